"""OpenAI's responses (https://platform.openai.com/docs/api-reference/responses), over runs.

Codex speaks nothing else, and pydantic-ai and openai-agents use it by default. Responses are kept by id, so a request
may refer to an earlier one, or to an item of it. With `store: false` the whole conversation comes with each request.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hermes.gateway.caller import caller_of
from hermes.gateway.counted import CountedResponse
from hermes.gateway.events import compact
from hermes.gateway.problems import Problem, of_error, unsupported
from hermes.gateway.replies import Replies
from hermes.gateway.reply import Reply, ReplyStream
from hermes.gateway.response_store import EndedResponse, ResponseStore
from hermes.gateway.response_writer import ResponseWriter, status_of
from hermes.gateway.responses_items import listed
from hermes.gateway.responses_requests import ParsedResponse, ResponsesRequest
from hermes.text import shown

log = logging.getLogger(__name__)

PAGE, MAX_PAGE = 20, 100  # items


class ResponsesApi:
    """The endpoints. Each token sees its own responses."""

    def __init__(self, replies: Replies, store: ResponseStore):
        """Args:
        replies: begins them, and answers.
        store: keeps responses that have ended.
        """
        self._replies, self._store = replies, store
        self._live: dict[str, LiveResponse] = {}

    async def respond(self, request: Request) -> Response:
        """POST /v1/responses."""
        kept = self._store.reader(caller_of(request).token)
        parsed, reply = await self._replies.begin(request, ResponsesRequest, lambda body: body.looked_up(kept))
        assert isinstance(parsed, ParsedResponse)  # noqa: S101
        live = LiveResponse(parsed, reply, self._store, self._live)
        stream = ReplyStream(live.events(), live.close) if parsed.stream else None
        return await self._replies.answer(request, reply, live.whole, stream)

    async def get(self, request: Request) -> Response:
        """GET /v1/responses/{id}."""
        if request.query_params.get("stream", "false").lower() not in ("false", "0"):
            raise unsupported("stream", "a kept response is not streamed again; leave it out")
        owner, response_id = _owner_and_id(request)
        if live := self._find(owner, response_id):
            return self._answer(live.now().encode(), owner)
        return self._answer(await self._store.response(owner, response_id) or _missing(response_id), owner)

    async def delete(self, request: Request) -> Response:
        """DELETE /v1/responses/{id}."""
        owner, response_id = _owner_and_id(request)
        if live := self._find(owner, response_id):
            if not live.has_ended:
                raise Problem(400, f"the response {shown(response_id)} is still being written; cancel it first")
            await live.stored()
        if not await self._store.delete(owner, response_id):
            _missing(response_id)
        return self._answer(compact({"id": response_id, "object": "response", "deleted": True}).encode(), owner)

    async def input_items(self, request: Request) -> Response:
        """GET /v1/responses/{id}/input_items."""
        owner, response_id = _owner_and_id(request)
        limit, order, after = _page_of(request)
        live = self._find(owner, response_id)
        items = live.parsed.conversation if live else await self._store.conversation(owner, response_id)
        if items is None:
            _missing(response_id)
        work = partial(listed, items, limit=limit, order=order, after=after)
        page = await self._replies.bodies.in_thread(len(items), work, owner)
        if page is None:
            raise Problem(404, f"after: there is no item {shown(after)}", param="after")
        return self._answer(page, owner)

    async def cancel(self, request: Request) -> Response:
        """POST /v1/responses/{id}/cancel."""
        owner, response_id = _owner_and_id(request)
        live = self._find(owner, response_id)
        if live and not live.has_ended:
            live.cancel()
            return self._answer(live.now().encode(), owner)
        if not live and await self._store.response(owner, response_id) is None:
            _missing(response_id)
        raise Problem(400, f"the response {shown(response_id)} has ended, so it cannot be canceled")

    async def unsupported(self, request: Request) -> Response:
        """POST /v1/responses/compact and /input_tokens, which would be taken for responses of these ids."""
        name = request.url.path.rpartition("/")[2]
        advice = "send truncation: auto" if name == "compact" else "/tokenize and /v1/messages/count_tokens count"
        raise Problem(404, f"{name}: there is no such endpoint; {advice}")

    def _find(self, owner: str, response_id: str) -> "LiveResponse | None":
        live = self._live.get(response_id)
        return live if live and live.owner == owner else None

    def _answer(self, body: bytes, owner: str) -> Response:
        return CountedResponse(body, self._replies.memory, owner)


class LiveResponse:
    """A response that is being written. If it is to be kept, it can be found by its id meanwhile."""

    def __init__(
        self, parsed: ParsedResponse, reply: Reply, store: ResponseStore, live: "dict[str, LiveResponse]"
    ) -> None:
        self.parsed, self.reply, self._store, self._live = parsed, reply, store, live
        self.owner = reply.runs[0].owner
        self.writer = ResponseWriter(parsed.echo, parsed.custom, store=parsed.store)
        self._last: str | None = None  # its JSON, once it has ended
        self._kept: asyncio.Future[None] | None = None  # is done when that is stored
        self._canceled = False

    @property
    def has_ended(self) -> bool:
        """Whether nothing is written any more."""
        return self._last is not None

    async def stored(self) -> None:
        """Wait until it is stored, or could not be, once it has ended."""
        if self._kept:
            await asyncio.wait([self._kept])

    def now(self) -> str:
        """Returns the response as it is, as JSON."""
        return self._last or self.writer.response("in_progress")

    async def whole(self) -> bytes:
        """Returns the response when it has ended, as JSON. Raises Problem if it fails: then nobody knows its id."""
        async with aclosing(self.reply.parts()) as parts:
            async for _, part in parts:
                self.writer.take(part)
        self.writer.close(status_of(self.reply))
        return (await self._end()).encode()

    async def events(self) -> AsyncIterator[str]:
        """The events of a stream."""
        writer = self.writer
        if self.parsed.store:
            self._live[writer.id] = self
        try:
            for kind in ("response.created", "response.in_progress"):
                yield writer.event_with_response(kind, writer.response("in_progress"))
            async with aclosing(self.reply.parts()) as parts:
                async for _, part in parts:
                    if self.has_ended:  # canceled while its client did not read
                        break
                    if events := writer.take(part):
                        yield "".join(events)
            yield "".join(writer.close(status_of(self.reply)))
            if not self.has_ended:
                yield writer.event_with_response(f"response.{status_of(self.reply)}", await self._end())
        except ClientDisconnect:
            pass  # canceled, or nobody reads it
        except Exception as error:
            problem = of_error("a stream", error)
            yield "".join(writer.close("incomplete"))
            said = {"code": problem.code or "server_error", "message": problem.message}
            yield writer.event_with_response("response.failed", self._cut("failed", error=said))
        if self._canceled:
            yield writer.event_with_response("response.incomplete", self.now())

    def cancel(self) -> None:
        """End it, because its client wants it."""
        self._canceled = True
        self._cut("cancelled")
        self.reply.give_up()

    def close(self) -> None:
        """Let go of it. If it has not ended, nobody reads it any more."""
        self.reply.give_up()
        if not self.has_ended and self._live.get(self.writer.id) is self:
            self._cut("incomplete")

    def _cut(self, status: str, **more: Any) -> str:
        self.writer.close("incomplete")
        self._last = self.writer.response(status, **more)
        self._keep(self._last)
        return self._last

    async def _end(self) -> str:
        """Returns the response with its end, when it is kept. One that cannot be kept says so."""
        self._last = self.writer.ended(self.reply)
        if kept := self._keep(self._last):
            await asyncio.wait([kept])  # it is stored even if nobody waits for it any more
            if kept.exception():
                self.writer.store = False
                self._last = self.writer.ended(self.reply)
        return self._last

    def _keep(self, response: str) -> "asyncio.Future[None] | None":
        if not self.parsed.store:
            return None
        ended = EndedResponse(
            id=self.writer.id,
            owner=self.owner,
            response=response.encode(),
            conversation=self.parsed.conversation,
            before=self.parsed.before,
        )
        self._kept = self._store.keep(ended)
        self._kept.add_done_callback(self._forget)
        return self._kept

    def _forget(self, kept: "asyncio.Future[None]") -> None:
        self._live.pop(self.writer.id, None)
        if error := kept.exception():
            log.error("gateway: response %s is not stored: %s", self.writer.id, error)


def _owner_and_id(request: Request) -> tuple[str, str]:
    return caller_of(request).token, request.path_params["id"]


def _missing(response_id: str) -> NoReturn:
    raise Problem(404, f"there is no response {shown(response_id)}", code="response_not_found")


def _page_of(request: Request) -> tuple[int, str, str | None]:
    """The page of a list that is asked for: how many, in which order, after which one. Raises Problem if it is none."""
    limit, order = request.query_params.get("limit", str(PAGE)), request.query_params.get("order", "desc")
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 4 and 1 <= int(limit) <= MAX_PAGE):
        raise Problem(400, f"limit: is {shown(limit)}; it has to be 1 to {MAX_PAGE}", param="limit")
    if order not in ("asc", "desc"):
        raise Problem(400, f"order: is {shown(order)}; it has to be asc or desc", param="order")
    return int(limit), order, request.query_params.get("after")
