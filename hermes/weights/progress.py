"""Shows the progress of a download: one line in a terminal, a new line every few seconds in a log."""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

LINE_SECONDS, TERMINAL_SECONDS = 5.0, 1.0
CLEAR_REST = "\x1b[K"  # of the line


@dataclass
class Progress:
    """Counts the bytes and files that have arrived. Threads share it."""

    total: int | None = None  # bytes; None while unknown
    files: int | None = None  # in total; None while unknown
    done: int = 0  # bytes, including those of earlier runs
    files_done: int = 0
    fetched: int = 0  # bytes of this run
    last_arrival: float = field(default_factory=time.monotonic)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def arrived(self, count: int) -> None:
        """Count bytes that have just arrived."""
        with self._counting:
            self.done += count
            self.fetched += count
            self.last_arrival = time.monotonic()

    def was_there(self, count: int) -> None:
        """Count bytes of an earlier run. A negative count removes bytes that are of no use."""
        with self._counting:
            self.done += count

    def reset(self) -> None:
        """Forget all bytes and files, because none is of use."""
        with self._counting:
            self.done = self.files_done = 0

    def finished_file(self) -> None:
        """Count one file that is whole."""
        with self._counting:
            self.files_done += 1


@contextmanager
def shown(progress: Progress, name: str) -> Iterator[None]:
    """Show the progress while the block runs: on standard error if it is a terminal, else in the log."""
    ended = threading.Event()
    shower = threading.Thread(target=_show, args=(progress, name, ended), name="weights progress", daemon=True)
    shower.start()
    try:
        yield
    finally:
        ended.set()
        shower.join()


def _show(progress: Progress, name: str, ended: threading.Event) -> None:
    is_terminal = sys.stderr.isatty()
    began = since = time.monotonic()
    before = 0
    while not ended.wait(TERMINAL_SECONDS if is_terminal else LINE_SECONDS):
        now = time.monotonic()
        text = line(progress, name, now - began, (progress.fetched - before) / (now - since))
        before, since = progress.fetched, now
        if is_terminal:
            print(f"\r{text}{CLEAR_REST}", end="", file=sys.stderr, flush=True)
        else:
            logger.info("weights: %s", text)
    if is_terminal and since > began:
        print(file=sys.stderr)


def line(progress: Progress, name: str, seconds: float, rate: float) -> str:
    """`owner--repo: 9% 12.3G/141G [00:20<03:30, 612MB/s, 2/38 files]`, with the rate in bytes per second."""
    from tqdm import tqdm

    total, files = f"/{progress.files}" if progress.files else "", progress.files_done
    text: str = tqdm.format_meter(
        progress.done,
        progress.total,
        seconds,
        rate=rate,
        prefix=name,
        unit="B",
        unit_scale=True,
        postfix=f"{files}{total} files",
        ncols=0,
    )
    return text
