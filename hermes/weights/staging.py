"""The folder of a model under way. Only one process uses it at a time.

`parts/` has the partial files. `files/` has the files that are whole and verified; each moves there at its end.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from hermes.errors import WeightsError
from hermes.weights.disk import WEIGHTS_DIR, unwritable
from hermes.weights.lock import LockedFile
from hermes.weights.progress import Progress
from hermes.weights.remote import Piece, RemoteFile

MARKER = ".complete.json"  # marks a whole folder; written last, and not part of a model
READ_BACK = 1 << 20  # bytes of a piece that is read back


class Digests:
    """The checksums of a file, computed while its bytes pass."""

    def __init__(self, name: str, size: int, *, git: bool = False):
        self._name = name
        self._size = size
        self._sha256 = hashlib.sha256()
        # The name that git gives to a blob, for hosts that publish nothing else.
        self._sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False) if git else None

    def update(self, piece: Piece) -> None:
        """Add the next bytes."""
        self._sha256.update(piece)
        if self._sha1:
            self._sha1.update(piece)

    def take_in(self, pieces: Iterator[Piece]) -> "Digests":
        """Add the bytes of several pieces. Returns self."""
        for piece in pieces:
            self.update(piece)
        return self

    @property
    def locked(self) -> LockedFile:
        """The file with the SHA-256 of the bytes so far."""
        return LockedFile(name=self._name, size=self._size, sha256=self._sha256.hexdigest())

    def problem(self, file: RemoteFile) -> str | None:
        """How the bytes differ from the checksum that the host publishes; None if they do not."""
        found = self._sha256.hexdigest()
        if file.sha256 not in (None, found):
            return f"expected SHA-256 {file.sha256}, found {found}"
        git = self._sha1.hexdigest() if self._sha1 else None
        if file.git_sha1 not in (None, git):
            return f"expected git's SHA-1 {file.git_sha1}, found {git}"
        return None


def digests_of(file: RemoteFile) -> Digests:
    """New digests, to compare with what the host of a file publishes."""
    return Digests(file.name, file.size, git=file.git_sha1 is not None)


class Staging:
    """A staging folder. A `with staging.disk_errors()` converts errors of the disk."""

    def __init__(self, folder: Path, source: object, progress: Progress):
        self.folder = folder
        self.files = folder / "files"
        self.progress = progress
        self._parts = folder / "parts"
        self._source = source  # in errors

    def prepare(self) -> None:
        """Create the folder. Raises WeightsError if the disk fails."""
        with self.disk_errors():
            for folder in (self.files, self._parts):
                folder.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Delete all files. Raises WeightsError if the disk fails."""
        with self.disk_errors():
            shutil.rmtree(self.folder)
        self.prepare()

    def has(self, name: str, size: int) -> bool:
        """Whether an earlier run finished this file. Only a verified file is in its place."""
        whole = self.files / name
        return whole.is_file() and whole.stat().st_size == size

    def arrived_bytes(self, name: str, size: int) -> int:
        """The bytes of a file that are here and of use."""
        if self.has(name, size):
            return size
        arrived = _size(self._parts / name)
        return arrived if arrived <= size else 0

    def part_bytes(self) -> int:
        """The bytes of all partial files."""
        return sum(map(_size, self._parts.rglob("*")))

    def part(self, name: str, size: int) -> FileIO:
        """A partial file, open at its end. A file that is too long begins again. Raises OSError."""
        path = self._parts / name
        path.parent.mkdir(parents=True, exist_ok=True)
        out = FileIO(path, "ab")
        if out.tell() > size:
            out.truncate(0)
            out.seek(0)
        return out

    def read_part(self, name: str) -> Iterator[Piece]:
        """The bytes of a partial file, see `pieces_of`."""
        return pieces_of(self._parts / name)

    def drop_part(self, name: str) -> None:
        """Delete a partial file and subtract its bytes from the progress. Raises OSError."""
        self.progress.was_there(-(self._parts / name).stat().st_size)
        (self._parts / name).unlink()

    def finish(self, name: str) -> Path:
        """Move a whole, verified file to its place. Returns its path. Raises OSError."""
        whole = self.files / name
        whole.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self._parts / name, whole)
        self.progress.finished_file()
        return whole

    def require_room(self, wanted: int) -> None:
        """Raises WeightsError unless the disk has room for `wanted` more bytes."""
        free = shutil.disk_usage(self.folder).free
        if wanted > free:
            raise WeightsError(
                self._source,
                f"it needs {wanted / 1e9:.1f} GB, but the disk of {self.folder.parent} has {free / 1e9:.1f} GB free",
                f"make room for {(wanted - free) / 1e9:.1f} GB more, or set HERMES_WEIGHTS_DIR to a larger disk",
            )

    @contextmanager
    def disk_errors(self) -> Iterator[None]:
        """Convert an OSError in the block to WeightsError."""
        try:
            yield
        except OSError as error:
            otherwise = f"{WEIGHTS_DIR}; finished files are kept"
            raise unwritable(self._source, error, otherwise, folder=self.folder.parent) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def pieces_of(path: Path) -> Iterator[Piece]:
    """The bytes of a file on this disk. A piece is valid until the next one is read. Raises OSError."""
    buffer = memoryview(bytearray(READ_BACK))
    with FileIO(path) as file:
        while count := file.readinto(buffer):
            yield buffer[:count]


def write_all(out: FileIO, piece: Piece) -> None:
    """Write a whole piece. A nearly full disk may take a part before it refuses the rest with OSError."""
    rest = memoryview(piece)
    while rest:
        rest = rest[out.write(rest) :]
