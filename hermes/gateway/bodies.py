"""The body of a request: received within limits, and read off the event loop.

What takes time that grows with a body runs in threads, so that nobody else waits: parsing, checking, writing it again.
A token has one such work at a time in each pool, so a token with twenty of them does not delay the others twentyfold.
"""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from hermes.errors import ServerStopping
from hermes.gateway.encodings import Decoder, encoding_of
from hermes.gateway.memory import Memory
from hermes.gateway.problems import Problem, of_invalid
from hermes.gateway.turns import Turns
from hermes.text import shortened

MAX_DEPTH = 100  # lists and objects within each other; a JSON schema may have 32
MAX_VALUES = 100_000  # a conversation of 10,000 turns has 30,000
BODY_SECONDS = 60.0  # for the whole body
PART_BYTES, PART_SECONDS = 16 * 2**10, 10.0  # so much of a body arrives in this time, or its end
MAX_SAID = 200  # characters
SMALL = 32 * 2**10  # bytes; these do not queue behind larger ones
BOM = b"\xef\xbb\xbf"
HIGH, LOW = rb"\\u[dD][89abAB][\da-fA-F]{2}", rb"\\u[dD][c-fC-F][\da-fA-F]{2}"
HALVES = re.compile(  # of a pair, escaped
    rb"\\u[dD](?:[89abAB][\da-fA-F]{2}(?!%s)|[c-fC-F][\da-fA-F]{2}(?<!%s%s))" % (LOW, HIGH, LOW)
)
BACKSLASH, NUL = rb"\\", b"\0\0"  # an escaped one, and what no JSON has
T = TypeVar("T")


class Bodies:
    """What reads bodies."""

    def __init__(self, max_body: int, memory: Memory):
        """Args:
        max_body: bytes of one.
        memory: counts those that are being received and read.
        """
        self._max_body, self._memory = max_body, memory
        self._small, self._large = ThreadPoolExecutor(2, "small"), ThreadPoolExecutor(1, "large")
        self._turns = Turns()
        self._arriving: set[asyncio.Timeout] = set()
        self._grace: float | None = None  # s; set when the gateway stops

    async def read(self, request: Request, take: Callable[[Any], T]) -> T:
        """Returns what `take` makes of the JSON value, in a thread.

        Raises Problem if the body is too large, too slow, nested too deeply or not JSON in an encoding that is read, if
        `take` finds it invalid (pydantic's ValidationError), if the gateway holds too much already, or is stopping.
        Raises ClientDisconnect.
        """
        owner = request.state.caller.token
        held: list[bytes] = []

        def give_back() -> None:
            self._memory.give_back(sum(map(len, held)), owner)
            held.clear()  # a traceback may keep the list

        try:
            encoding = encoding_of(request.headers)
            await self._receive(request, held, owner)
            if encoding:
                await self._decode(encoding, held, owner)
        except BaseException:
            give_back()
            raise
        size = sum(map(len, held))
        found = await self.in_thread(size, lambda: _parsed(b"".join(held), take), owner, give_back)
        if isinstance(found, Problem):
            try:
                raise found
            finally:
                del found  # its traceback has this frame
        return found

    async def in_thread(
        self, size: int, work: Callable[[], T], owner: str = "", at_end: Callable[[], None] = lambda: None
    ) -> T:
        """Returns what `work` returns; its time grows with `size` bytes.

        A cancel does not stop a thread: the owner's turn lasts until the work has ended.

        Args:
            size: of what it works on.
            work: is called in a thread.
            owner: the name of the token for which it is done. The work of one comes one after the other.
            at_end: is called on the event loop when the work has ended, or will not begin.
        """
        pool = self._small if size <= SMALL else self._large
        with ExitStack() as stack:
            stack.callback(at_end)
            if owner:
                turn = self._turns.of((owner, size <= SMALL))
                await turn.acquire()
                stack.callback(turn.release)
            job = pool.submit(work)
            ended = stack.pop_all().close
        result = asyncio.wrap_future(job)
        result.add_done_callback(lambda _: ended())
        try:
            return await asyncio.shield(result)
        except asyncio.CancelledError:
            job.cancel()  # if it has not begun
            raise

    def stop(self, grace: float) -> None:
        """Refuse bodies with E1205, those that are arriving too. `grace`: seconds that predictions have."""
        self._grace = grace
        for arriving in self._arriving:
            if not arriving.expired():
                arriving.reschedule(0)

    def close(self) -> None:
        """Stop the threads."""
        for pool in (self._small, self._large):
            pool.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def _arrival(self) -> AsyncIterator[asyncio.Timeout]:
        """The time for a body. Raises Problem when it is over."""
        if self._grace is not None:
            raise _stopping(self._grace)
        try:
            async with asyncio.timeout(PART_SECONDS) as limit:
                self._arriving.add(limit)
                try:
                    yield limit
                finally:
                    self._arriving.discard(limit)
        except TimeoutError:
            if self._grace is not None:
                raise _stopping(self._grace) from None
            pace = f"{PART_BYTES:,} bytes in {PART_SECONDS:g} s, and the whole in {BODY_SECONDS:g} s"
            raise Problem(408, f"the body did not arrive in time, which is {pace}; send it faster") from None

    async def _receive(self, request: Request, chunks: list[bytes], owner: str) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + BODY_SECONDS
        size = part = 0
        async with self._arrival() as limit:
            async for chunk in request.stream():
                size, part = size + len(chunk), part + len(chunk)
                if size > self._max_body:
                    raise too_large(self._max_body)
                self._memory.take(len(chunk), owner)
                chunks.append(chunk)
                if part >= PART_BYTES and self._grace is None:
                    part = 0
                    limit.reschedule(min(end, loop.time() + PART_SECONDS))

    async def _decode(self, encoding: str, held: list[bytes], owner: str) -> None:
        """Put in the place of a compressed body what it becomes, which may be a thousand times as much."""
        received = len(held)
        decoder, size = Decoder(encoding, b"".join(held)), 0
        while piece := await self.in_thread(size, decoder.next, owner):
            size += len(piece)
            if size > self._max_body:
                raise too_large(self._max_body)
            self._memory.take(len(piece), owner)
            held.append(piece)
        self._memory.give_back(sum(map(len, held[:received])), owner)
        del held[:received]


def _stopping(grace: float) -> Problem:
    return Problem(503, str(ServerStopping(grace)), code=ServerStopping.code)


def too_deep() -> Problem:
    """The problem of a body whose lists and objects are nested too deeply."""
    return Problem(400, f"the body is nested more than {MAX_DEPTH} levels deep")


def too_large(limit: int) -> Problem:
    """The problem of a body of more than `limit` bytes."""
    return Problem(413, f"the body has more than {limit:,} bytes; send a shorter conversation")


def _parsed(body: bytes, take: Callable[[Any], T]) -> T | Problem:
    """Returns what `take` makes of the JSON value, or the problem of the body, without a traceback.

    Its frames would hold the value, which may be thirty times as large as the body, until garbage is collected.
    """
    try:
        return take(json_of(body))
    except ValidationError as error:
        return of_invalid(error)
    except Problem as problem:
        problem.__cause__ = problem.__context__ = None
        return problem.with_traceback(None)


def json_of(body: bytes) -> Any:
    """Returns the JSON value in a body. Raises Problem if it is none, or has too many values, or too deep."""
    try:
        value = _with_halves(body.removeprefix(BOM))
    except ValueError as error:
        if "recursion limit" in str(error):
            raise too_deep() from error
        raise Problem(400, f"the body cannot be read as JSON: {shortened(str(error), MAX_SAID)}") from error
    _check_limits(value)
    return value


def without_halves(json: bytes) -> bytes:
    """Returns JSON with U+FFFD for half a character."""
    if b"\0" in json:  # it is none
        return json
    return HALVES.sub("\ufffd".encode(), json.replace(BACKSLASH, NUL)).replace(NUL, BACKSLASH)


def _with_halves(body: bytes) -> Any:
    """Returns the JSON value in a body, U+FFFD in it for half a character. Raises ValueError if it is none.

    Clients cut texts within an emoji, and send the same conversation again and again. A Cog server refuses it.
    """
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError:
        if (mended := without_halves(body)) == body:
            raise
    return from_json(mended, allow_inf_nan=False)


def _check_limits(value: Any) -> None:
    level: Sequence[Any] = [value]
    depth = count = 0
    while level:
        depth, count = depth + 1, count + len(level)
        if depth > MAX_DEPTH:
            raise too_deep()
        if count > MAX_VALUES:
            raise Problem(400, f"the body has more than {MAX_VALUES:,} values")
        if any(math.isinf(each) for each in level if isinstance(each, float)):
            raise Problem(400, "the body has a number that is too large")
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
