"""One switch that ends many waits at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Breaker:
    """Ends the waits inside of `waiting` when it trips. From then on, each wait raises its error."""

    def __init__(self) -> None:
        self._error: Callable[[], Exception] | None = None
        self._waiting: set[asyncio.Timeout] = set()

    @property
    def tripped(self) -> bool:
        """Whether it has tripped."""
        return self._error is not None

    def trip(self, error: Callable[[], Exception]) -> None:
        """End all waits, each with a new error. Only the first call counts."""
        if self._error is None:
            self._error = error
            for limit in self._waiting:
                limit.reschedule(0)

    def check(self) -> None:
        """Raises the error if it has tripped."""
        if self._error:
            raise self._error()

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """A context that raises as soon as the breaker trips.

        It cancels the task that entered it, as asyncio.timeout does.
        """
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
