"""Who is served when: one line before all upstreams, first come first served."""

import asyncio
import heapq
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from hermes.gateway.upstream import Full, NotThere, Upstream

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0  # between two looks at an upstream's health
REST_SECONDS = 0.05  # until an upstream is asked again that had no slot: coglet frees one just after its last event


class LineFull(Exception):
    """As many callers wait as may; or this one has waited as long as it may."""

    def __init__(self, problem: str, retry_after: int):
        super().__init__(problem)
        self.retry_after = retry_after  # s


@dataclass
class Place:
    """An upstream, and what is known of its slots."""

    upstream: Upstream
    ready: bool = False
    running: int = 0
    rests: bool = False  # it had no slot a moment ago

    @property
    def free(self) -> int:
        """How many more predictions it takes now, as far as is known."""
        return self.upstream.slots - self.running if self.ready and not self.rests else 0


@dataclass(order=True, frozen=True)
class Ticket:
    """When somebody came, and until when they wait."""

    number: int
    deadline: float = field(compare=False)  # of time.monotonic()


@dataclass(order=True, frozen=True)
class Caller:
    """One who waits in line."""

    ticket: Ticket
    place: "asyncio.Future[Place]" = field(compare=False)


class Pool:
    """The line, and the upstreams behind it."""

    def __init__(self, upstreams: Sequence[Upstream], *, max_waiting: int, max_wait: float):
        self.places = [Place(upstream) for upstream in upstreams]
        self._line: list[Caller] = []  # a heap
        self._numbers = count()
        self._max_waiting, self._max_wait = max_waiting, max_wait

    @property
    def waiting(self) -> int:
        """How many callers stand in line."""
        return sum(not caller.place.done() for caller in self._line)

    def ticket(self) -> Ticket:
        """The next place in the order of coming. Raises LineFull if no more may wait."""
        if self.waiting >= self._max_waiting and not any(place.free for place in self.places):
            raise LineFull(f"{self.waiting} callers are waiting", retry_after=10)
        return Ticket(next(self._numbers), time.monotonic() + self._max_wait)

    @asynccontextmanager
    async def slot(self, ticket: Ticket) -> AsyncIterator[Upstream]:
        """A slot at an upstream, once it is this caller's turn. Raises LineFull after the longest wait.

        Full and NotThere, raised within, say what the upstream is; the caller may then come back with its ticket.
        """
        place = await self._turn(ticket)
        try:
            yield place.upstream
        except Full:
            place.rests = True
            asyncio.get_running_loop().call_later(REST_SECONDS, self._rested, place)
            raise
        except NotThere as problem:
            self._set_ready(place, False, str(problem))
            raise
        finally:
            place.running -= 1
            self._serve()

    async def watch(self) -> None:
        """Look after the health of the upstreams, for ever."""
        async with asyncio.TaskGroup() as group:
            for place in self.places:
                group.create_task(self._watch(place))

    async def _watch(self, place: Place) -> None:
        while True:
            self._set_ready(place, await place.upstream.ready(), "it says that it is not ready")
            self._serve()
            await asyncio.sleep(POLL_SECONDS)

    async def _turn(self, ticket: Ticket) -> Place:
        caller = Caller(ticket, asyncio.get_running_loop().create_future())
        heapq.heappush(self._line, caller)
        self._serve()
        try:
            async with asyncio.timeout(ticket.deadline - time.monotonic()):
                return await caller.place
        except (TimeoutError, asyncio.CancelledError) as error:
            if not caller.place.cancelled():  # it was this caller's turn at the same moment
                caller.place.result().running -= 1
                self._serve()
            if isinstance(error, TimeoutError):
                raise LineFull(f"no slot was free for {self._max_wait:.0f} s", retry_after=60) from None
            raise

    def _serve(self) -> None:
        """Give free slots to the first in line."""
        while self._line:
            if self._line[0].place.done():  # it went away
                heapq.heappop(self._line)
                continue
            place = max(self.places, key=lambda each: each.free)
            if place.free <= 0:
                return
            place.running += 1
            heapq.heappop(self._line).place.set_result(place)

    def _rested(self, place: Place) -> None:
        place.rests = False
        self._serve()

    def _set_ready(self, place: Place, ready: bool, problem: str) -> None:
        if place.ready != ready:
            place.ready = ready
            log.info("gateway: %s is %s", place.upstream.name, "ready" if ready else f"left out: {problem}")
