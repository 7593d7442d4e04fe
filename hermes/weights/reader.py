"""The bytes of an archive as one file that is read once from front to back, from many connections where that works."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from hermes.weights.http import PIECE, HttpFile, break_off
from hermes.weights.progress import Progress
from hermes.weights.remote import Attempts, Patience, Piece, steadily

BLOCK = 8 << 20  # bytes that one connection fetches at a time
CONNECTIONS = 8  # at once, each with a block of its own
SKIPPED = 1 << 20  # bytes: a shorter way is read over, a longer one is jumped
LITTLE = 1 << 16  # bytes asked for first, for they may be a header after which to jump


class Download:
    """Gives the bytes of a URL from any offset on, through faults."""

    def __init__(self, file: HttpFile, ranges: bool, what: object, progress: Progress, patience: Patience):
        self._file = file
        self._ranges = ranges
        self._what = what
        self._progress = progress
        self._patience = patience

    def pieces(self, offset: int) -> Iterator[Piece]:
        """Raises WeightsError when patience is at its end."""
        self._progress.was_there(offset - self._progress.done)  # all before it, and nothing of what was read ahead
        size = self._file.size
        if self._ranges and size:
            start, offset = offset, min(size, offset + LITTLE)
            yield from self._in_one(start, offset)
        if self._ranges and size and size - offset > 2 * BLOCK:
            yield from self._in_blocks(offset, size)
        else:
            yield from self._in_one(offset, size)

    def _in_one(self, start: int, end: int | None, stop: threading.Event | None = None) -> Iterator[Piece]:
        attempts = Attempts(self._what, self._patience, stop)
        read = partial(self._file.read, end=end if self._ranges else None)
        for piece in steadily(read, start, end, attempts):
            self._progress.arrived(len(piece))
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
                break_off(waiting, self._file.hang_up)

    def _block(self, start: int, end: int, stop: threading.Event) -> list[Piece]:
        return list(self._in_one(start, end, stop))


class Reader:
    """A file to be read forward, from a function that gives its bytes from an offset on. tarfile can read it."""

    def __init__(self, pieces_from: Callable[[int], Iterator[Piece]]):
        self._pieces_from = pieces_from
        self._stream: Iterator[Piece] | None = None
        self._piece = memoryview(b"")
        self._at = 0
        self.last = b""  # what `read` gave last

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int) -> int:
        """Go to an offset. Backward it is read anew from there, or from its beginning."""
        if self._stream and 0 <= offset - self._at <= SKIPPED:
            for _ in self.pieces(offset - self._at):
                pass
        if offset != self._at:
            self.close()
            self._at = offset
        return self._at

    def pieces(self, count: int) -> Iterator[memoryview]:
        """The next `count` bytes, or as many as there are."""
        while count and (self._piece or self._more()):
            piece, self._piece = self._piece[:count], self._piece[count:]
            self._at += len(piece)
            count -= len(piece)
            yield piece

    def read(self, count: int) -> bytes:
        """The next bytes in one piece, for headers. A file that calls for a large one is damaged, or meant to harm."""
        if not 0 <= count <= PIECE:
            raise ValueError(f"it has a header of {count} bytes")
        self.last = b"".join(map(bytes, self.pieces(count)))
        return self.last

    def close(self) -> None:
        """Give up the connections."""
        if self._stream is not None:
            self._stream.close()  # type: ignore[attr-defined] # they are generators
        self._stream, self._piece = None, memoryview(b"")

    def _more(self) -> bool:
        if self._stream is None:
            self._stream = self._pieces_from(self._at)
        self._piece = memoryview(next(self._stream, b""))
        return bool(self._piece)
