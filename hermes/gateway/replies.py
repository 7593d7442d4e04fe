"""The way from a request in any dialect to its response: it is read, its reply begins, and it is answered."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from hermes.gateway.bodies import Bodies
from hermes.gateway.caller import caller_of
from hermes.gateway.counted import CountedResponse
from hermes.gateway.fields import without_nulls
from hermes.gateway.inputs import InputCheck
from hermes.gateway.memory import Memory
from hermes.gateway.openai_requests import ParsedRequest, Sampled
from hermes.gateway.problems import Problem
from hermes.gateway.reply import Reply, ReplyStream
from hermes.gateway.runs import Runs

REFUSAL_SECONDS = 1.0  # that a stream waits for its first piece, so that a refusal is a status and not an event
S = TypeVar("S", bound=Sampled)


class Replies:
    """What the endpoints of all dialects share."""

    def __init__(
        self, runs: Runs, bodies: Bodies, memory: Memory, names: Sequence[str], check: Callable[[], InputCheck]
    ):
        """Args:
        runs: begins the predictions.
        bodies: reads requests.
        memory: counts responses.
        names: of the model.
        check: of the inputs that the upstreams take; raises Problem while none was ready.
        """
        self._runs, self.bodies, self.memory, self._names, self._check = runs, bodies, memory, names, check

    async def begin(
        self, request: Request, kind: type[S], prepare: Callable[[S], S] = lambda body: body
    ) -> tuple[ParsedRequest, Reply]:
        """Read a request and begin its reply. Raises Problem if it cannot be answered.

        Args:
            request: whose body it is.
            kind: of request.
            prepare: is called with what was read, in a thread.
        """

        def take(value: Any) -> ParsedRequest:
            body = prepare(kind.model_validate(without_nulls(value)))
            body.model = body.model or self._names[0]
            if body.model not in self._names:
                said = f"there is no model {body.model!r}; there is {self._names[0]!r}"
                raise Problem(404, said, param="model", code="model_not_found")
            return body.parsed(self._check())

        parsed = await self.bodies.read(request, take)
        return parsed, Reply(self._runs, self.bodies, parsed, caller_of(request))

    async def answer(
        self, request: Request, reply: Reply, whole: Callable[[], Awaitable[bytes]], stream: ReplyStream | None = None
    ) -> Response:
        """Returns the response in any dialect, once it is known that the request is not refused.

        Args:
            request: its client may go away.
            reply: to it.
            whole: returns the JSON of the response, unless it is a stream.
            stream: the response, if it is one.
        """
        async with _cancel_on_disconnect(request, reply):
            await reply.begun(REFUSAL_SECONDS if stream else None)
            if stream:
                return stream
            written = await whole()
        reply.give_up()
        return CountedResponse(written, self.memory, reply.runs[0].owner, always=True)


@asynccontextmanager
async def _cancel_on_disconnect(request: Request, reply: Reply) -> AsyncIterator[None]:
    """Give the reply up if its client goes away, or what is done with it fails."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        reply.give_up()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except BaseException:
        reply.give_up()
        raise
    finally:
        watcher.cancel()
