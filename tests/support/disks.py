"""Disks that take no more."""

import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest

from hermes.devserver import PROJECT


@contextmanager
def no_file_larger_than(size):
    """A write beyond it fails as one to a full disk does, with another number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def on_a_read_only_disk(folder, code):
    """What Python code prints in a process for which this folder is on a read-only disk, as a `:ro` volume is."""
    mount = f'mount --bind "{folder}" "{folder}" && mount -o remount,ro,bind "{folder}" && exec "$@"'
    unshare = [shutil.which("unshare") or "unshare", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make a mount namespace")
    command = [*unshare, "sh", "-c", mount, "sh", sys.executable, "-c", code]
    return subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True, timeout=60).stdout
