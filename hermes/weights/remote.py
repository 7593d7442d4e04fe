"""What a source of files offers: a list of them, each with its bytes from any offset on; and patience with faults."""

import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hermes.errors import WeightsError

Piece = bytes | bytearray | memoryview  # of a file; good for as long as it is held, but see staging.pieces_of
Read = Callable[[int], Iterator[Piece]]  # the bytes from an offset to the end; raises Interrupted


@dataclass(frozen=True)
class RemoteFile:
    """One file of a model, somewhere else."""

    name: str  # relative, with slashes
    size: int  # bytes
    sha256: str | None  # as its host publishes it
    git_sha1: str | None  # of the blob in git, for small files that have no published SHA-256
    read: Read
    read_head: Read | None = None  # the same for its first bytes, where that is cheaper


@dataclass(frozen=True)
class Listing:
    """What a model consists of, as its host lists it."""

    source: str
    commit: str
    files: tuple[RemoteFile, ...]


class Interrupted(Exception):
    """A transfer ended early, for a cause that may pass."""

    def __init__(self, cause: str, retry_after: float | None = None):
        super().__init__(redacted(cause))
        self.retry_after = retry_after  # seconds, where the host says so


class Stopped(Exception):
    """The transfer was given up, by Ctrl-C or because another file failed."""


@dataclass(frozen=True)
class Patience:
    """How often something is tried in vain before it has failed, and the seconds in between: doubling, then level."""

    attempts: int = 8
    first_wait: float = 0.5
    longest_wait: float = 30.0
    longest_retry_after: float = 300.0

    def wait(self, failures: int, retry_after: float | None) -> float:
        """Seconds until the next attempt: ours and up to half as much again, or more where the host asks for it."""
        ours = min(self.longest_wait, self.first_wait * 2.0 ** (failures - 1)) * random.uniform(1, 1.5)
        return max(ours, min(retry_after or 0.0, self.longest_retry_after))


class Attempts:
    """The attempts at one transfer. Those in vain are counted; each bit of progress forgives them all."""

    def __init__(self, what: object, patience: Patience, stop: threading.Event | None = None):
        """Args:
        what: names it in errors.
        patience: with faults.
        stop: set by whoever wants it no more; None is nobody.
        """
        self._what = what
        self._patience = patience
        self._stop = stop or threading.Event()
        self._failures = 0

    def progressed(self) -> None:
        """Something has arrived.

        Raises:
            Stopped: nobody wants it any more.
        """
        self._failures = 0
        if self._stop.is_set():
            raise Stopped

    def failed(self, fault: Interrupted) -> None:
        """Wait for the next attempt.

        Raises:
            WeightsError: there is none.
            Stopped: nobody wants it any more.
        """
        self._failures += 1
        if self._failures >= self._patience.attempts:
            raise WeightsError(
                self._what,
                f"the download failed {self._failures} times in a row ({fault})",
                "start again when the cause is gone; what has arrived is kept",
            ) from fault
        if self._stop.wait(self._patience.wait(self._failures, fault.retry_after)):
            raise Stopped


def steadily(read: Read, start: int, end: int | None, attempts: Attempts) -> Iterator[memoryview]:
    """The bytes from `start` to `end` (None is as many as there are), through faults.

    Raises:
        WeightsError: `attempts` are at their end.
        Stopped: nobody wants them any more.
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


def redacted(text: str) -> str:
    """A text with no password, signature or token in it, and its URLs without their queries; in one line."""
    text = re.sub(r"://[^/\s]*@", "://...@", text)
    text = re.sub(r"\b(bearer|basic)\s+\S+", r"\1 ...", text, flags=re.IGNORECASE)
    text = re.sub(r"\b(hf|api_org|r8)_[\w.-]{8,}", "...", text)  # tokens of the hub and of Replicate
    return " ".join(map(_without_query, text.split()))


def _without_query(word: str) -> str:
    before, _, query = word.partition("?")
    if "=" not in query:
        return word
    return before + query[len(query.rstrip(")]}>'\",;:.")) :]  # what closes a quotation stays
