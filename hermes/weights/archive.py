"""Unpacks a tar archive while it downloads. It keeps no second copy and writes nothing outside its folder.

An interrupted plain tar goes on in the middle of a file, because its offsets are those of the download. A compressed
archive starts again. A journal beside the files has one line of JSON for each whole file.
"""

import gzip
import logging
import tarfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from io import FileIO
from itertools import takewhile
from pathlib import Path
from typing import IO, Any, cast

import zstandard
from pydantic import BaseModel, ConfigDict

from hermes.errors import WeightsError
from hermes.weights.http import PIECE
from hermes.weights.lock import Lock, LockedFile
from hermes.weights.members import CONFIG, REPACK, Members
from hermes.weights.reader import Reader
from hermes.weights.remote import Piece
from hermes.weights.safetensors import require_whole
from hermes.weights.source import ArchiveSource
from hermes.weights.staging import Digests, Staging, write_all

logger = logging.getLogger(__name__)

GZIP = b"\x1f\x8b"  # its first bytes
WINDOW = 1 << 31  # bytes of memory that unpacking may take: as much as `zstd --long=31` needs, the longest
BATCH = 1 << 20  # bytes; a second thread hashes a batch while the next one is written


class Damaged(Exception):
    """The bytes of the archive are not a valid tar, or not the locked ones."""


TARFILE_RAISES = (tarfile.TarError, ValueError, RecursionError)  # invalid headers raise the last two
DAMAGE = (Damaged, *TARFILE_RAISES, gzip.BadGzipFile, zlib.error, zstandard.ZstdError, EOFError)


class Unpacked(BaseModel):
    """A line of the journal: one whole file."""

    model_config = ConfigDict(frozen=True)

    file: LockedFile
    end: int  # offset in the archive of the next header


class Unpacking:
    """The transfer of one archive into a staging folder."""

    def __init__(
        self,
        source: ArchiveSource,
        bytes_from: Callable[[int], Iterator[Piece]],
        staging: Staging,
        lock: Lock | None,
        admit: Callable[[Path], None],
    ):
        """Args:
        source: names the archive.
        bytes_from: yields the bytes of the archive from an offset.
        staging: receives the files.
        lock: the files that the archive must hold; None accepts any model.
        admit: gets the path of config.json as soon as it is unpacked; raises to refuse the model.
        """
        self._source = source
        self._bytes_from = bytes_from
        self._staging = staging
        self._lock = lock
        self._admit = admit
        self._journal = staging.folder / "unpacked.jsonl"

    def run(self) -> list[LockedFile]:
        """Unpack the files that are missing. A damaged archive is fetched once more.

        Raises WeightsError if the archive cannot be fetched, holds a forbidden member, or was damaged in two downloads.
        """
        with self._staging.disk_errors():
            try:
                return self._unpack()
            except DAMAGE as error:
                _require_memory(self._source, error)
                logger.warning("weights: %s is damaged (%s); it is fetched once more", self._source, error)
            try:
                return self._unpack()
            except DAMAGE as error:
                problem = f"the archive was damaged in two downloads ({error})"
                raise WeightsError(self._source, problem, REPACK) from error

    def _unpack(self) -> list[LockedFile]:
        compressed = decompressor(str(self._source))
        pieces_from = decompressed(self._bytes_from, compressed) if compressed else self._bytes_from
        if compressed:
            self._staging.clear()
        self._staging.progress.reset()
        done = {each.file.name: each for each in self._resume()}
        members = Members(self._source, self._lock, self._staging.files)
        for each in done.values():
            self._arrived(members, each.file.name)
        start = max((each.end for each in done.values()), default=0)
        self._staging.require_room((self._staging.progress.total or 0) - start - self._staging.part_bytes())
        with closing(Reader(pieces_from)) as reader:
            reader.seek(start)
            with tarfile.open(fileobj=cast(IO[bytes], reader), mode="r:") as tar:
                for member in tar:
                    if member.size < 0:
                        raise Damaged(f"its member {member.name!r} has a size of {member.size} bytes")
                    if name := members.wanted(member):
                        done[name] = Unpacked(file=self._member(name, member, reader), end=_end(member))
                        self._note(done[name])
                        self._arrived(members, name)
                _require_end_mark(reader)
        model = members.model()
        return [each.file for name, each in done.items() if name in model]

    def _resume(self) -> list[Unpacked]:
        """The files that an earlier run unpacked and that are still here."""
        lines = self._journal.read_text(encoding="utf-8").splitlines() if self._journal.is_file() else []
        done = list(takewhile(self._is_here, _parsed(lines)))
        self._journal.write_text("".join(f"{each.model_dump_json()}\n" for each in done), encoding="utf-8")
        self._staging.progress.files_done = len(done)
        return done

    def _is_here(self, unpacked: Unpacked) -> bool:
        wanted = self._lock is None or self._lock.problem(unpacked.file) is None
        return wanted and self._staging.has(unpacked.file.name, unpacked.file.size)

    def _note(self, unpacked: Unpacked) -> None:
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(f"{unpacked.model_dump_json()}\n")

    def _member(self, name: str, member: tarfile.TarInfo, reader: Reader) -> LockedFile:
        self._staging.require_room(member.size - self._staging.arrived_bytes(name, member.size))
        found = self._extract(name, member, reader)
        if problem := self._lock and self._lock.problem(found):
            self._staging.drop_part(name)
            raise Damaged(problem)
        self._staging.finish(name)
        return found

    def _arrived(self, members: Members, name: str) -> None:
        members.arrived(name)
        if name == CONFIG:
            self._admit(self._staging.files / CONFIG)

    def _extract(self, name: str, member: tarfile.TarInfo, reader: Reader) -> LockedFile:
        def read(start: int, end: int) -> bytes:
            got = b"".join(map(bytes, reader.pieces(end - start)))
            if len(got) < end - start:
                raise Damaged(f"it ends in the middle of {name}")
            return got

        with self._staging.part(name, member.size) as out:
            digests = Digests(name, member.size).take_in(self._staging.read_part(name))
            reader.seek(member.offset_data + out.tell())
            if not (out.tell() or self._lock):  # with a lock, the checksum decides
                head = require_whole(self._source, name, member.size, read)
                write_all(out, head)
                digests.update(head)
            with ThreadPoolExecutor(1) as thread:
                hashing = thread.submit(digests.take_in, iter(()))
                for batch in _batches(_written(out, reader.pieces(member.size - out.tell()))):
                    hashing.result()
                    hashing = thread.submit(digests.take_in, iter(batch))
            if out.tell() < member.size:
                raise Damaged(f"it ends in the middle of {name}")
        return digests.locked


def decompressor(name: str) -> Callable[[Any], Any] | None:
    """A function that opens an archive of this name as a stream of tar; None for a plain tar."""
    path = name.partition("?")[0].lower()
    if path.endswith((".gz", ".tgz")):
        return _gunzipped
    if path.endswith(".zst"):
        return lambda file: zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(
            file, read_size=PIECE, read_across_frames=True
        )
    return None


def _gunzipped(file: Any) -> gzip.GzipFile:
    unpacked = gzip.GzipFile(fileobj=file, mode="rb")
    if unpacked.peek(2)[:2] == GZIP:  # its host has compressed it once more, with Content-Encoding: gzip
        return gzip.GzipFile(fileobj=unpacked, mode="rb")
    return unpacked


def decompressed(
    bytes_from: Callable[[int], Iterator[Piece]], opened: Callable[[Any], Any]
) -> Callable[[int], Iterator[Piece]]:
    """A function that yields the unpacked bytes from an offset. It reads and drops the bytes before."""

    def pieces_from(offset: int) -> Iterator[Piece]:
        with closing(Reader(bytes_from)) as packed, opened(packed) as unpacked:
            while offset and (skipped := len(unpacked.read(min(offset, PIECE)))):
                offset -= skipped
            while piece := unpacked.read(PIECE):
                yield piece

    return pieces_from


def _require_memory(source: object, error: Exception) -> None:
    """Raises WeightsError if this is the error of an archive that unpacks with more memory than there is."""
    if isinstance(error, zstandard.ZstdError) and "memory" in str(error):
        problem = f"unpacking it takes more memory than there is, or than {WINDOW >> 20} MiB ({error})"
        raise WeightsError(source, problem, "write it again with `zstd --long=27` or without --long") from error


def _require_end_mark(reader: Reader) -> None:
    """Raises Damaged unless the end mark is there. tarfile takes an invalid header or a cut for the end."""
    if reader.last != tarfile.NUL * tarfile.BLOCKSIZE:
        raise Damaged("it has no end mark, so it may be cut short")
    while piece := reader.read(PIECE):  # a compressed stream has its checksum at the end
        if piece.strip(tarfile.NUL):
            raise Damaged("it has data after its end mark")


def _written(out: FileIO, pieces: Iterator[Piece]) -> Iterator[Piece]:
    for piece in pieces:
        write_all(out, piece)
        yield piece


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    """Lists of pieces of about 1 MiB, which is worth a hand-over to another thread."""
    batch, size = [], 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _parsed(lines: list[str]) -> Iterator[Unpacked]:
    for line in lines:
        try:
            yield Unpacked.model_validate_json(line)
        except ValueError:  # a process was killed while it wrote its last line
            return


def _end(member: tarfile.TarInfo) -> int:
    """The offset of the next header."""
    return member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
