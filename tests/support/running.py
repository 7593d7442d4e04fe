"""The commands as a person types them."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil

from hermes.devserver.server import PROJECT
from hermes.serving.guard import wait_for_end
from tests.support.asking import until


class Command:
    """A running `python -m hermes ...`, with everything it has started."""

    def __init__(self, *arguments, **environment):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hermes", *arguments],
            cwd=PROJECT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.reads, self.err, self.family = [], b"", {}
        self._readers = [threading.Thread(target=self._read_out), threading.Thread(target=self._read_err)]
        for reader in self._readers:
            reader.start()

    def _read_out(self):
        while some := os.read(self.process.stdout.fileno(), 65536):
            self.reads.append(some)

    def _read_err(self):
        while some := os.read(self.process.stderr.fileno(), 65536):
            self.err += some

    def watch(self):
        """Remember what it has started so far; true while it runs."""
        if self.process.poll() is not None:
            return False
        self.family |= {child.pid: child for child in psutil.Process(self.process.pid).children(recursive=True)}
        return True

    def wait(self, seconds=300):
        """Its exit code, what it printed, and what outlived it by 10 s."""
        until(lambda: not self.watch(), seconds, "the command ends")
        for reader in self._readers:
            reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        alive = list(wait_for_end(self.family.values(), 10))
        return self.process.returncode, b"".join(self.reads).decode(), self.err.decode(), alive


def uv(requirements, *command):
    """A command in an environment with these packages."""
    given = [f"--with={each}" for each in requirements]
    python = str(Path(sys.base_prefix) / "bin" / "python3")  # with that of .venv, its packages would be there, too
    return [sys.executable, "-m", "uv", "run", "--no-project", "--quiet", "--python", python, *given, *command]
