"""One queue before all upstreams, first come first served, and what is known of each upstream.

An upstream whose predictions fail before their first piece, several times in a row, is ejected for a while (passive
ejection): it says that it is ready, and would get most of the traffic, for its slots are always free.
"""

import asyncio
import logging
import re
import time
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from weakref import WeakSet

from hermes.client.cog import Json
from hermes.errors import EngineFailed, InvalidConfiguration
from hermes.gateway.problems import of_bug
from hermes.gateway.upstream import OPTION, Full, Unavailable, Upstream

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0  # between two looks at an upstream's health
# until predictions end at an upstream that says nothing: it may be stopped behind a proxy that keeps its connections
UNREACHABLE_SECONDS = 60.0
REST_SECONDS = 0.05  # until an upstream is asked again that had no slot: coglet frees one just after its last event
PLACE_OF_ERROR = re.compile(r"E1\d{3} \w+: [^:;\n]{1,80}")
FAILURES = 3  # in a row, until an upstream is ejected
EJECT_SECONDS, MAX_EJECT_SECONDS = 10.0, 300.0  # the first time; it doubles until a prediction succeeds


class QueueFull(Exception):
    """As many requests are queued as may; or this one has waited as long as it may."""

    def __init__(self, problem: str, retry_after: int):
        super().__init__(problem)
        self.retry_after = retry_after  # s


class FailedEarly(Exception):
    """The upstream failed before the first piece of a prediction: another one may be asked."""


@dataclass(eq=False)
class Backend:
    """An upstream, and what is known of it."""

    upstream: Upstream
    ready: bool = False
    problem: str = ""  # why it is not ready
    running: int = 0
    resting: bool = False  # it had no slot a moment ago
    failures: int = 0  # before the first piece, in a row
    ejected: bool = False  # used only if no other one is ready
    ejections: int = 0  # since the start
    document: Json | None = None  # its OpenAPI document
    learnt: bool = False  # the document is as of when it became ready
    ejected_in_a_row: int = 0
    readmission: asyncio.TimerHandle | None = None
    heard: float = 0.0  # time.monotonic() of its last event or answer to a health check
    waits: set[asyncio.Timeout] = field(default_factory=set)  # of its predictions

    @property
    def free(self) -> int:
        """How many more predictions it takes now, as far as is known."""
        return self.upstream.slots - self.running if self.ready and not self.resting else 0

    @property
    def on_probation(self) -> bool:
        """Whether it was ejected, and no prediction has succeeded since."""
        return self.ejected_in_a_row > 0


@dataclass(frozen=True)
class Ticket:
    """When a request came, and until when it waits."""

    number: int
    deadline: float  # of time.monotonic()


@dataclass(eq=False)
class QueuedRequest:
    """One that waits for a slot."""

    ticket: Ticket
    avoid: Upstream | None
    turn: "asyncio.Future[Backend]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Pool:
    """The queue, and the upstreams behind it."""

    def __init__(self, upstreams: Sequence[Upstream], *, max_waiting: int, max_wait: float):
        """Raises InvalidConfiguration if two upstreams have the same name."""
        self.backends = [Backend(upstream) for upstream in upstreams]
        names = [upstream.name for upstream in upstreams]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InvalidConfiguration(OPTION, f"{twice} is there twice; leave one out, and raise --slots instead")
        self._queue: list[QueuedRequest] = []  # by number
        self._coming: WeakSet[Ticket] = WeakSet()  # to the queue: a task begins only later, or is canceled before
        self._numbers = count()
        self._max_waiting, self._max_wait = max_waiting, max_wait
        self._last_document: Json | None = None

    @property
    def waiting(self) -> int:
        """How many requests are queued."""
        return len(self._queue)

    @property
    def document(self) -> Json | None:
        """The OpenAPI document of the first upstream that is ready and has one, or the last that was known."""
        known = (backend.document for backend in self.backends if backend.ready and backend.document)
        return next(known, self._last_document)

    def ticket(self, *, follows: bool = False) -> Ticket:
        """Returns the next number in the order of coming. Raises QueueFull if no more may wait.

        `follows`: takes the place of one that has ended, and is never refused.
        """
        free = sum(max(backend.free, 0) for backend in self.backends) if self._choice(None) else 0
        if not follows and self.waiting + len(self._coming) >= self._max_waiting + free:
            raise QueueFull(f"the queue is full: {self.waiting} requests are waiting", retry_after=10)
        ticket = Ticket(next(self._numbers), time.monotonic() + self._max_wait)
        self._coming.add(ticket)
        return ticket

    def has_other(self, upstream: Upstream | None) -> bool:
        """Whether another upstream than this one is ready and not ejected."""
        return any(each.ready and not each.ejected for each in self.backends if each.upstream is not upstream)

    @asynccontextmanager
    async def slot(self, ticket: Ticket, avoid: Upstream | None = None) -> AsyncIterator[Upstream]:
        """A slot at an upstream, once it is this request's turn; at another one than `avoid`, if one is ready.

        Full, Unavailable and FailedEarly, raised within, say what the upstream is; the request may then come back with
        its ticket, and is the first again. Raises QueueFull after the longest wait.

        Cancels what runs within, and raises EngineFailed, if the upstream cannot be reached any more.
        """
        backend = await self._turn(QueuedRequest(ticket, avoid))
        wait = asyncio.timeout(None)
        try:
            async with wait:
                backend.waits.add(wait)
                yield backend.upstream
        except TimeoutError:
            if not wait.expired():
                raise
            what = f"has sent nothing and answered no health check for {UNREACHABLE_SECONDS:.0f} s"
            raise EngineFailed(f"{backend.upstream.name} {what}") from None
        except Full:
            backend.resting = True
            asyncio.get_running_loop().call_later(REST_SECONDS, self._rested, backend)
            raise
        except Unavailable as problem:
            self._set_ready(backend, False, str(problem))
            raise
        except FailedEarly as failed:
            self._count_failure(backend, str(failed))
            raise
        finally:
            backend.waits.discard(wait)
            backend.running -= 1
            self._serve()

    def succeeded(self, upstream: Upstream) -> None:
        """Take note of a first piece, a success or a refusal of the inputs: the upstream works."""
        self._reset(self._backend(upstream))

    def heard(self, upstream: Upstream) -> None:
        """Take note of an event: the upstream can be reached."""
        self._backend(upstream).heard = time.monotonic()

    async def watch(self) -> None:
        """Look after the health of the upstreams, for ever."""
        async with asyncio.TaskGroup() as group:
            for backend in self.backends:
                group.create_task(self._watch(backend))

    async def _watch(self, backend: Backend) -> None:
        while True:
            try:
                ready, problem = await backend.upstream.ready(), "it says that it is not ready"
                backend.heard = time.monotonic()
                if ready and not (backend.ready and backend.learnt):
                    await self._learn(backend)
            except Unavailable as unavailable:
                ready, problem = False, str(unavailable)
                self._end_unreachable(backend)
            except Exception as bug:  # the others are watched all the same
                ready, problem = False, of_bug(backend.upstream.name, bug).message
            self._set_ready(backend, ready, problem)
            self._serve()
            await asyncio.sleep(POLL_SECONDS)

    @staticmethod
    async def _learn(backend: Backend) -> None:
        """Ask for the document again: a server that became ready may be of another version."""
        try:
            backend.document, backend.learnt = await backend.upstream.document(), True
        except Unavailable as problem:
            if not backend.ready:  # else it was said before
                log.warning("gateway: %s has no document: %s", backend.upstream.name, problem)

    @staticmethod
    def _end_unreachable(backend: Backend) -> None:
        if time.monotonic() - backend.heard >= UNREACHABLE_SECONDS:
            for wait in backend.waits:
                wait.reschedule(0)
            backend.waits.clear()  # each ends once

    def _backend(self, upstream: Upstream) -> Backend:
        return next(backend for backend in self.backends if backend.upstream is upstream)

    async def _turn(self, request: QueuedRequest) -> Backend:
        self._coming.discard(request.ticket)
        insort(self._queue, request, key=_number)
        self._serve()
        try:
            async with asyncio.timeout(request.ticket.deadline - time.monotonic()):
                return await request.turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if request.turn.cancelled():
                del self._queue[bisect_left(self._queue, request.ticket.number, key=_number)]
            else:  # it was this request's turn at the same moment
                request.turn.result().running -= 1
                self._serve()
            if isinstance(error, TimeoutError):
                raise QueueFull(f"no slot was free for {self._max_wait:.0f} s", retry_after=60) from None
            raise

    def _serve(self) -> None:
        """Give free slots to the first in the queue. One that avoids an upstream does not hold up those behind it."""
        index = 0
        while index < len(self._queue) and any(backend.free > 0 for backend in self.backends):
            request = self._queue[index]
            if request.turn.done():  # it is being cancelled, and takes itself out
                index += 1
            elif backend := self._choice(request.avoid):
                backend.running += 1
                del self._queue[index]
                request.turn.set_result(backend)
            elif request.avoid is None:
                return
            else:
                index += 1

    def _choice(self, avoid: Upstream | None) -> Backend | None:
        """The upstream with the most free slots of the best that are ready, or None if these have no slot."""
        ready = [backend for backend in self.backends if backend.ready]
        ready = [backend for backend in ready if not backend.ejected] or ready
        ready = [backend for backend in ready if backend.upstream is not avoid] or ready
        proven = [backend for backend in ready if not backend.on_probation]
        free = [
            backend
            for backend in ready
            if backend.free > 0 and not (proven and backend.on_probation and backend.running)  # one at a time
        ]
        return max(free, key=lambda backend: backend.free, default=None)

    def _rested(self, backend: Backend) -> None:
        backend.resting = False
        self._serve()

    def _set_ready(self, backend: Backend, ready: bool, problem: str) -> None:
        if ready and backend.document:
            self._last_document = backend.document
        problem = "" if ready else problem
        if (backend.ready, backend.problem) == (ready, problem):
            return
        backend.ready, backend.problem = ready, problem
        backend.learnt = backend.learnt and ready
        log.info("gateway: %s is %s", backend.upstream.name, "ready" if ready else f"not ready: {problem}")

    def _count_failure(self, backend: Backend, problem: str) -> None:
        backend.failures += 1
        if backend.failures < FAILURES or backend.ejected:
            return
        seconds = min(EJECT_SECONDS * 2**backend.ejected_in_a_row, MAX_EJECT_SECONDS)
        backend.ejected = True
        backend.ejections += 1
        backend.ejected_in_a_row += 1
        backend.readmission = asyncio.get_running_loop().call_later(seconds, self._readmit, backend)
        said = PLACE_OF_ERROR.match(problem)  # the rest may quote a prompt
        what = f"{backend.failures} predictions in a row failed before their first piece"
        what += f", the last one with {said[0]}" if said else ""
        log.warning("gateway: %s is ejected for %.0f s: %s", backend.upstream.name, seconds, what)

    def _readmit(self, backend: Backend) -> None:
        backend.ejected = False  # its failures stay: the next one ejects it again
        self._serve()

    def _reset(self, backend: Backend) -> None:
        if backend.readmission:
            backend.readmission.cancel()
        if backend.on_probation:
            log.info("gateway: %s works again", backend.upstream.name)
        backend.failures = backend.ejected_in_a_row = 0
        backend.ejected, backend.readmission = False, None


def _number(request: QueuedRequest) -> int:
    return request.ticket.number
