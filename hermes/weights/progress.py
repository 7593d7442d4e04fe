"""Shows the progress of a download: a bar in a terminal, a line every few seconds in a log."""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

LINE_SECONDS = 5.0


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
    show = _bar if sys.stderr.isatty() else _lines
    shower = threading.Thread(target=show, args=(progress, name, ended), name="weights progress", daemon=True)
    shower.start()
    try:
        yield
    finally:
        ended.set()
        shower.join()


def _lines(progress: Progress, _: str, ended: threading.Event) -> None:
    before, since = progress.fetched, time.monotonic()
    while not ended.wait(LINE_SECONDS):
        now = time.monotonic()
        logger.info("weights: %s", line(progress, (progress.fetched - before) / (now - since)))
        before, since = progress.fetched, now


def line(progress: Progress, rate: float) -> str:
    """`12.3 of 141.1 GB (8 %), 612 MB/s, 3 min 30 s left, 2 of 38 files`. The rate is in bytes per second."""
    parts = [_amount(progress), f"{rate / 1e6:.0f} MB/s"]
    if progress.total is not None and rate > 0:
        parts.append(f"{duration(max(0, progress.total - progress.done) / rate)} left")
    files = f"{progress.files_done} of {progress.files}" if progress.files else f"{progress.files_done}"
    return ", ".join([*parts, f"{files} files"])


def _amount(progress: Progress) -> str:
    unit, name = (1e9, "GB") if (progress.total or progress.done) >= 1e9 else (1e6, "MB")
    if not progress.total:
        return f"{progress.done / unit:.1f} {name}"
    share = 100 * progress.done // progress.total
    return f"{progress.done / unit:.1f} of {progress.total / unit:.1f} {name} ({share} %)"


def duration(seconds: float) -> str:
    """A time as `45 s`, `3 min 30 s` or `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _bar(progress: Progress, name: str, ended: threading.Event) -> None:
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[files]}"),
    )
    with bars.Progress(*columns, console=Console(stderr=True)) as shown_bars:
        bar = shown_bars.add_task(name, files="", total=None)
        while True:
            over = ended.wait(0.2)
            files = f"{progress.files_done}/{progress.files} files" if progress.files else ""
            shown_bars.update(bar, completed=progress.done, total=progress.total, files=files)
            if over:
                return
