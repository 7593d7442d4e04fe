"""Which files the wheels of a lock install. Of each wheel only the end is read, where its list of files (RECORD) is."""

import csv
import io
import re
import subprocess
import sys
import tomllib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from hermes.environment import tls

END_BYTES = 1 << 17  # enough for the directory and the RECORD of most wheels
PLATFORM = "x86_64-manylinux_2_35"
PYTHON = (3, 12)
OLDER = [f"manylinux_2_{minor}_x86_64" for minor in range(35, 4, -1)]
PLATFORMS = [*OLDER, "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
TAGS = [*cpython_tags(PYTHON, platforms=PLATFORMS), *compatible_tags(PYTHON, "cp312", PLATFORMS)]  # the best first
RANKS = {tag: rank for rank, tag in reversed(list(enumerate(TAGS)))}


def files_of_wheels(lock):
    """Where the image's Python installs the files of each package of a requirements file. Skips without an index."""
    command = "pip", "compile", str(lock), "--no-deps", "--format", "pylock.toml", "--quiet"
    target = "--python-version", ".".join(map(str, PYTHON)), "--python-platform", PLATFORM
    done = subprocess.run([sys.executable, "-m", "uv", *command, *target], capture_output=True, text=True, timeout=300)
    if "Failed to fetch" in done.stderr:
        pytest.skip(f"needs the package index: {done.stderr.splitlines()[-1].strip()}")
    assert done.returncode == 0, done.stderr
    packages = tomllib.loads(done.stdout)["packages"]
    with httpx.Client(verify=tls(), timeout=60, follow_redirects=True) as http, ThreadPoolExecutor(8) as pool:
        try:
            files = list(pool.map(partial(installed_files, http), map(best_wheel, packages)))
        except httpx.HTTPError as error:
            pytest.skip(f"needs the host of the wheels: {error}")
    return {package["name"]: paths for package, paths in zip(packages, files, strict=True)}


def best_wheel(package):
    """The wheel that pip would take."""
    ranked = []
    for wheel in package["wheels"]:
        tags = parse_wheel_filename(wheel["url"].rsplit("/", 1)[1])[3]
        ranked += [(RANKS[tag], wheel["url"], wheel["size"]) for tag in tags if tag in RANKS]
    _, url, size = min(ranked)
    return url, size


def installed_files(http, wheel):
    with zipfile.ZipFile(RemoteFile(http, *wheel)) as archive:
        (record,) = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/RECORD", name)]
        rows = csv.reader(io.StringIO(archive.read(record).decode()))
        return [installed(path) for path, *_ in rows]


def installed(path):
    """Where a file of a wheel lands, seen from site-packages."""
    kind = re.match(r"[^/]+\.data/([a-z]+)/", path)
    where = {"purelib": "", "platlib": "", "scripts": "bin/", "data": "prefix/", "headers": "include/"}
    return where[kind[1]] + path[kind.end() :] if kind else path


class RemoteFile(io.RawIOBase):
    """A file at a host that serves ranges."""

    def __init__(self, http, url, size):
        self._http, self._url, self._size, self._at = http, url, size, 0
        self._end_at = max(0, size - END_BYTES)
        self._end = self._fetch(self._end_at, size)

    def _fetch(self, start, stop):
        response = self._http.get(self._url, headers={"Range": f"bytes={start}-{stop - 1}"}).raise_for_status()
        assert len(response.content) == stop - start, "the host serves no ranges"
        return response.content

    def seekable(self):
        return True

    def tell(self):
        return self._at

    def seek(self, offset, whence=io.SEEK_SET):
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, count=-1):
        start, stop = self._at, self._size if count < 0 else min(self._size, self._at + count)
        self._at = max(start, stop)
        if start >= stop:
            return b""
        return (
            self._end[start - self._end_at : stop - self._end_at] if start >= self._end_at else self._fetch(start, stop)
        )
