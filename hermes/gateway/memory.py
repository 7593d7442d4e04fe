"""How many bytes of requests, predictions and responses in flight are held, and when it is too much."""

import ctypes
import gc
from collections import Counter
from contextlib import suppress

from hermes.gateway.problems import Problem

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of malloc.h
RETRY_SECONDS = 5


class Memory:
    """Bytes that are held from the arrival of a request to the end of its prediction and of its response."""

    def __init__(self, limit: int):
        """Args:
        limit: bytes. A Python process takes a few times as many for them.
        """
        self.limit, self.held = limit, 0
        self._of_owners: Counter[str] = Counter()

    def take(self, size: int, owner: str = "") -> None:
        """Count `size` more bytes. Raises Problem, with status 429, if that is more than the limit.

        Args:
            size: how many.
            owner: the name of a token, which may have half of the limit; "" may have all of it.
        """
        if owner and self._of_owners[owner] + size > self.limit // 2:
            raise _full(f"the gateway holds {self._of_owners[owner]:,} bytes of this token's", self.limit // 2)
        if self.held + size > self.limit:
            raise _full(f"the gateway holds {self.held:,} bytes of", self.limit)
        self.add(size, owner)

    def add(self, size: int, owner: str = "") -> None:
        """Count `size` more bytes, whatever the limit: what cannot be refused any more."""
        self.held += size
        if owner:
            self._of_owners[owner] += size

    def give_back(self, size: int, owner: str = "") -> None:
        """Count `size` bytes less."""
        self.held -= size
        if owner:
            self._of_owners[owner] -= size
            if not self._of_owners[owner]:
                del self._of_owners[owner]


def _full(what: str, limit: int) -> Problem:
    said = f"{what} requests and responses, of at most {limit:,}; send it again later"
    return Problem(429, said, code="memory_full", retry_after=RETRY_SECONDS)


def tune_process() -> None:
    """Keep memory and pauses of the gateway's process small, once everything is imported.

    glibc's malloc returns to the system what large bodies took, as hermes/serving/malloc.py does for Cog: after 3,000
    hostile bodies the gateway had grown by 110 to 140 MB, and by 195 MB with malloc's own settings. The garbage
    collector leaves out what was imported: a full collection of it would hold up the event loop for 35 ms.
    """
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 128 * 2**10)
        libc.mallopt(M_ARENA_MAX, 2)
    gc.freeze()
