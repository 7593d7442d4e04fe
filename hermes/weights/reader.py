"""Reads an archive once from front to back, over many connections if its host serves ranges."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from hermes.weights.http import PIECE, HttpFile, break_off
from hermes.weights.progress import Progress
from hermes.weights.remote import Attempts, Patience, Piece, steadily

BLOCK = 8 << 20  # bytes of one request
CONNECTIONS = 8  # at once, each for its own block
SKIPPED = 1 << 20  # bytes; a shorter gap is read and dropped, a longer one is jumped
LITTLE = 1 << 16  # bytes of the first request, which may be a header before a jump


@dataclass(frozen=True)
class Download:
    """Yields the bytes of a URL from any offset, with repeated attempts after faults."""

    file: HttpFile
    ranges: bool  # whether its host serves ranges
    what: object  # names the file in errors
    progress: Progress
    patience: Patience

    def pieces(self, offset: int) -> Iterator[Piece]:
        """The bytes from `offset` to the end. Raises WeightsError after too many failed attempts."""
        self.progress.was_there(offset - self.progress.done)  # all bytes before it, and none that were read ahead
        size = self.file.size
        if self.ranges and size:
            start, offset = offset, min(size, offset + LITTLE)
            yield from self._in_one(start, offset)
        if self.ranges and size and size - offset > 2 * BLOCK:
            yield from self._in_blocks(offset, size)
        else:
            yield from self._in_one(offset, size)

    def _in_one(self, start: int, end: int | None, stop: threading.Event | None = None) -> Iterator[Piece]:
        attempts = Attempts(self.what, self.patience, stop)
        read = partial(self.file.read, end=end if self.ranges else None)
        for piece in steadily(read, start, end, attempts):
            self.progress.arrived(len(piece))
            yield piece

    def _in_blocks(self, offset: int, end: int) -> Iterator[Piece]:
        starts, stop = iter(range(offset, end, BLOCK)), threading.Event()
        waiting: deque[Future[list[Piece]]] = deque()
        with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="weights") as threads:

            def ask() -> None:
                if (start := next(starts, None)) is not None:
                    waiting.append(threads.submit(self._block, start, min(end, start + BLOCK), stop))

            try:
                for _ in range(CONNECTIONS):
                    ask()
                while waiting:
                    yield from waiting[0].result()
                    waiting.popleft()
                    ask()
            finally:
                stop.set()
                break_off(waiting, self.file.hang_up)

    def _block(self, start: int, end: int, stop: threading.Event) -> list[Piece]:
        return list(self._in_one(start, end, stop))


class Reader:
    """A file that is read forward. `pieces_from` yields its bytes from an offset. tarfile can read it."""

    def __init__(self, pieces_from: Callable[[int], Iterator[Piece]]):
        self._pieces_from = pieces_from
        self._stream: Iterator[Piece] | None = None
        self._piece = memoryview(b"")
        self._at = 0
        self.last = b""  # the last result of `read`

    def tell(self) -> int:
        """The offset of the next byte."""
        return self._at

    def seek(self, offset: int) -> int:
        """Go to an offset and return it. A seek backward or over a long gap starts a new stream."""
        if self._stream and 0 <= offset - self._at <= SKIPPED:
            for _ in self.pieces(offset - self._at):
                pass
        if offset != self._at:
            self.close()
            self._at = offset
        return self._at

    def pieces(self, count: int) -> Iterator[memoryview]:
        """The next `count` bytes, or fewer at the end of the file."""
        while count and (self._piece or self._more()):
            piece, self._piece = self._piece[:count], self._piece[count:]
            self._at += len(piece)
            count -= len(piece)
            yield piece

    def read(self, count: int) -> bytes:
        """The next bytes in one piece, for headers. Raises ValueError if `count` is above PIECE or negative."""
        if not 0 <= count <= PIECE:
            raise ValueError(f"it has a header of {count} bytes")
        self.last = b"".join(map(bytes, self.pieces(count)))
        return self.last

    def close(self) -> None:
        """Close the connections."""
        if self._stream is not None:
            self._stream.close()  # type: ignore[attr-defined] # they are generators
        self._stream, self._piece = None, memoryview(b"")

    def _more(self) -> bool:
        if self._stream is None:
            self._stream = self._pieces_from(self._at)
        self._piece = memoryview(next(self._stream, b""))
        return bool(self._piece)
