"""The files of a source, each with its bytes from any offset; and repeated attempts after faults."""

import logging
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hermes.errors import WeightsError
from hermes.text import redacted

logger = logging.getLogger(__name__)

NOTED = 5  # seconds of a wait; a person who waits longer wants to know why

Piece = bytes | bytearray | memoryview  # bytes of a file; they stay valid, except those of staging.pieces_of
Read = Callable[[int], Iterator[Piece]]  # yields the bytes from an offset to the end; raises Interrupted


@dataclass(frozen=True)
class RemoteFile:
    """One file of a model at its host."""

    name: str  # relative, with slashes
    size: int  # bytes
    sha256: str | None  # as its host publishes it; else None
    git_sha1: str | None  # of the blob in git, for small files that have no published SHA-256
    read: Read
    read_range: Callable[..., Iterator[Piece]] | None = None  # as `read`, to an `end`, where that is cheaper


@dataclass(frozen=True)
class Listing:
    """The files of a model, as its host lists them."""

    source: str
    commit: str
    files: tuple[RemoteFile, ...]


class Interrupted(Exception):
    """A transfer failed for a cause that may pass."""

    def __init__(self, cause: str, retry_after: float | None = None):
        super().__init__(redacted(cause))
        self.retry_after = retry_after  # seconds that the host asks for; else None


class PermanentFault(Interrupted):
    """A fault that rarely passes. After one more attempt, its cause and the next step are the error."""

    def __init__(self, cause: str, next_step: str):
        super().__init__(cause)
        self.next_step = next_step


class Stopped(Exception):
    """A transfer is no longer wanted, after Ctrl-C or because another file failed."""


@dataclass(frozen=True)
class Patience:
    """The number of failed attempts in a row that are too many, and the seconds between two: doubled up to a limit."""

    attempts: int = 8
    first_wait: float = 0.5
    longest_wait: float = 30.0
    longest_retry_after: float = 600.0  # twice the window of the hub's rate limit

    def wait(self, failures: int, retry_after: float | None) -> float:
        """Seconds until the next attempt: our time plus up to half of it, or more if the host asks for more."""
        ours = min(self.longest_wait, self.first_wait * 2.0 ** (failures - 1)) * random.uniform(1, 1.5)
        return max(ours, retry_after or 0.0)


class Attempts:
    """Counts the failed attempts at one transfer. Each arrival of bytes resets the count."""

    def __init__(self, what: object, patience: Patience, stop: threading.Event | None = None):
        """Args:
        what: names the transfer in errors.
        patience: limits the attempts.
        stop: is set when the transfer is no longer wanted; None if it always is.
        """
        self._what = what
        self._patience = patience
        self._stop = stop or threading.Event()
        self._failures = 0

    def progressed(self) -> None:
        """Reset the count, because bytes have arrived. Raises Stopped if the transfer is no longer wanted."""
        self._failures = 0
        if self._stop.is_set():
            raise Stopped

    def failed(self, fault: Interrupted) -> None:
        """Count a failed attempt and wait until the next one.

        Raises:
            WeightsError: too many attempts failed in a row, or the host asks for too long a wait.
            Stopped: the transfer is no longer wanted.
        """
        self._failures += 1
        longest, asked = self._patience.longest_retry_after, fault.retry_after or 0.0
        if asked > longest:
            problem = f"its host asks to wait {asked:.0f} s, and a fetch waits at most {longest:.0f} s ({fault})"
            raise WeightsError(self._what, problem, "start again after that time; a fetch resumes where it can")
        if isinstance(fault, PermanentFault) and self._failures >= 2:
            raise WeightsError(self._what, str(fault), fault.next_step) from fault
        if self._failures >= self._patience.attempts:
            raise WeightsError(
                self._what,
                f"the download failed {self._failures} times in a row ({fault})",
                "start again when the cause is gone; a fetch resumes where it can",
            ) from fault
        seconds = self._patience.wait(self._failures, asked)
        if asked >= 1 or seconds >= NOTED:
            why = ", as its host asks" if asked else ""
            logger.info("weights: %s: waiting %.0f s%s (%s)", self._what, seconds, why, fault)
        if self._stop.wait(seconds):
            raise Stopped


def steadily(read: Read, start: int, end: int | None, attempts: Attempts) -> Iterator[memoryview]:
    """The bytes from `start` to `end` (None for all). After a fault, another attempt goes on where the last stopped.

    Raises:
        WeightsError: too many attempts failed in a row.
        Stopped: the transfer is no longer wanted.
    """
    while end is None or start < end:
        try:
            for piece in read(start):
                if wanted := memoryview(piece)[: None if end is None else end - start]:
                    start += len(wanted)
                    attempts.progressed()
                    yield wanted
                if start == end:
                    return
        except Interrupted as fault:
            attempts.failed(fault)
        else:
            if end is None:
                return
            if start < end:
                attempts.failed(Interrupted(f"it ended after {start} of {end} bytes"))
