"""One switch that ends many waits at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Breaker:
    """Waits go on inside `waiting` until it trips; then each of them raises its error, and every later one does."""

    def __init__(self) -> None:
        self._error: Callable[[], Exception] | None = None
        self._waiting: set[asyncio.Timeout] = set()

    @property
    def tripped(self) -> bool:
        return self._error is not None

    def trip(self, error: Callable[[], Exception]) -> None:
        """End all waits, each with an error of its own. Only the first time counts."""
        if self._error is None:
            self._error = error
            for limit in self._waiting:
                limit.reschedule(0)

    def check(self) -> None:
        """Raises the error when it has tripped."""
        if self._error:
            raise self._error()

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Around an await; raises as soon as it has tripped."""
        self.check()
        limit = asyncio.timeout(None)
        self._waiting.add(limit)
        try:
            async with limit:
                yield
        except TimeoutError:
            if limit.expired():
                self.check()
            raise
        finally:
            self._waiting.discard(limit)
