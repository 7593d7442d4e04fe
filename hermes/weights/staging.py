"""The folder in which a model grows until it is whole. One process at a time.

`parts/` has the files under way, `files/` those that are whole and verified: each is moved there when it is.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from hermes.errors import WeightsError
from hermes.weights.lock import LockedFile
from hermes.weights.progress import Progress
from hermes.weights.remote import Piece, RemoteFile

MARKER = ".complete.json"  # in a folder that is whole; written last, and no part of a model
READ_BACK = 1 << 20  # bytes at a time


class Digests:
    """The checksums of a file, as its bytes pass."""

    def __init__(self, name: str, size: int, *, git: bool = False):
        self._name = name
        self._size = size
        self._sha256 = hashlib.sha256()
        # As git names a blob, for hosts that publish nothing else.
        self._sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False) if git else None

    def update(self, piece: Piece) -> None:
        self._sha256.update(piece)
        if self._sha1:
            self._sha1.update(piece)

    def take_in(self, pieces: Iterator[Piece]) -> "Digests":
        for piece in pieces:
            self.update(piece)
        return self

    @property
    def locked(self) -> LockedFile:
        return LockedFile(name=self._name, size=self._size, sha256=self._sha256.hexdigest())

    def problem(self, file: RemoteFile) -> str | None:
        """How the file differs from what its host publishes."""
        found = self._sha256.hexdigest()
        if file.sha256 not in (None, found):
            return f"expected SHA-256 {file.sha256}, found {found}"
        git = self._sha1.hexdigest() if self._sha1 else None
        if file.git_sha1 not in (None, git):
            return f"expected git's SHA-1 {file.git_sha1}, found {git}"
        return None


def digests_of(file: RemoteFile) -> Digests:
    """Those that tell whether what comes is the file."""
    return Digests(file.name, file.size, git=file.git_sha1 is not None)


class Staging:
    """Files on their way. Errors of the disk in a `with staging.disk_errors()` become ours."""

    def __init__(self, folder: Path, source: object, progress: Progress):
        self.folder = folder
        self.files = folder / "files"
        self.progress = progress
        self._parts = folder / "parts"
        self._source = source

    def prepare(self) -> None:
        """Raises WeightsError if nothing can be written there."""
        with self.disk_errors():
            for folder in (self.files, self._parts):
                folder.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Begin again."""
        with self.disk_errors():
            shutil.rmtree(self.folder)
        self.prepare()

    def has(self, name: str, size: int) -> bool:
        """Whether an earlier run has finished this file: it is only in its place when it was verified."""
        whole = self.files / name
        return whole.is_file() and whole.stat().st_size == size

    def arrived_bytes(self, name: str, size: int) -> int:
        """How much of a file is there, and of use."""
        if self.has(name, size):
            return size
        arrived = _size(self._parts / name)
        return arrived if arrived <= size else 0

    def part_bytes(self) -> int:
        """How much is there of all files that are not whole."""
        return sum(map(_size, self._parts.rglob("*")))

    def part(self, name: str, size: int) -> FileIO:
        """A file under way, open at its end. One that has come out too long begins again."""
        path = self._parts / name
        path.parent.mkdir(parents=True, exist_ok=True)
        out = FileIO(path, "ab")
        if out.tell() > size:
            out.truncate(0)
            out.seek(0)
        return out

    def read_part(self, name: str) -> Iterator[Piece]:
        return pieces_of(self._parts / name)

    def drop_part(self, name: str) -> None:
        self.progress.was_there(-(self._parts / name).stat().st_size)
        (self._parts / name).unlink()

    def finish(self, name: str) -> Path:
        """Move a file that is whole and verified to its place."""
        whole = self.files / name
        whole.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self._parts / name, whole)
        self.progress.finished_file()
        return whole

    def require_room(self, wanted: int) -> None:
        """Raises WeightsError unless the disk takes so many bytes more."""
        free = shutil.disk_usage(self.folder).free
        if wanted > free:
            raise WeightsError(
                self._source,
                f"{wanted / 1e9:.1f} GB are missing, and the disk of {self.folder.parent} has {free / 1e9:.1f} GB free",
                f"make room for {(wanted - free) / 1e9:.1f} GB more, or set HERMES_WEIGHTS_DIR to a larger disk",
            )

    @contextmanager
    def disk_errors(self) -> Iterator[None]:
        """Turn errors of the disk into WeightsError."""
        try:
            yield
        except OSError as error:
            raise WeightsError(
                self._source,
                f"{self.folder.parent} can't be written ({error.strerror or error})",
                "make room or give permission there, or set HERMES_WEIGHTS_DIR; finished files are kept",
            ) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def pieces_of(path: Path) -> Iterator[Piece]:
    """What is on the disk of a file. A piece is good until the next one is asked for."""
    buffer = memoryview(bytearray(READ_BACK))
    with FileIO(path) as file:
        while count := file.readinto(buffer):
            yield buffer[:count]


def write_all(out: FileIO, piece: Piece) -> None:
    """Write a piece; a disk that is nearly full may take a part of it before it refuses the rest."""
    rest = memoryview(piece)
    while rest:
        rest = rest[out.write(rest) :]
