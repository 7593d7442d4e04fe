"""How many bytes of requests and predictions in flight are held, and when it is too much."""

import ctypes
from contextlib import suppress

from hermes.gateway.problems import Problem

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of malloc.h
RETRY_SECONDS = 5


class Memory:
    """Bytes that are held from the arrival of a request to the end of its prediction."""

    def __init__(self, limit: int):
        """Args:
        limit: bytes. A Python process takes a few times as many for them.
        """
        self.limit, self.held = limit, 0

    def take(self, size: int) -> None:
        """Count `size` more bytes. Raises Problem, with status 429, if that is more than the limit."""
        if self.held + size > self.limit:
            raise Problem(
                429,
                f"the gateway holds {self.held:,} bytes of requests, of at most {self.limit:,}; send it again later",
                code="memory_full",
                retry_after=RETRY_SECONDS,
            )
        self.held += size

    def add(self, size: int) -> None:
        """Count `size` more bytes, whatever the limit: pieces of a prediction that runs already."""
        self.held += size

    def give_back(self, size: int) -> None:
        """Count `size` bytes less."""
        self.held -= size


def tune_malloc() -> None:
    """Have glibc's malloc return to the system what large bodies took, as hermes/serving/malloc.py does for Cog.

    By default it raises the threshold from which a block is returned at once, and each thread keeps a heap. After
    3,000 hostile bodies the gateway had grown by 195 MB; with these settings it was 110 to 140 MB.
    """
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 128 * 2**10)
        libc.mallopt(M_ARENA_MAX, 2)
