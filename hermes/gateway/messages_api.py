"""Anthropic's messages (https://docs.anthropic.com/en/api/messages), over runs."""

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hermes.client.cog import Json
from hermes.gateway.answer import Arguments, CallStart, Part
from hermes.gateway.caller import caller_of
from hermes.gateway.events import compact, event
from hermes.gateway.messages_errors import body_of
from hermes.gateway.messages_requests import CountTokensRequest, MessagesRequest
from hermes.gateway.problems import of_error
from hermes.gateway.replies import Replies
from hermes.gateway.reply import HEARTBEAT, Reply, ReplyStream


class MessagesApi:
    """The endpoints."""

    def __init__(self, replies: Replies):
        self._replies = replies

    async def create(self, request: Request) -> Response:
        """POST /v1/messages."""
        parsed, reply = await self._replies.begin(request, MessagesRequest)
        writer = _MessageWriter(parsed.model)

        async def whole() -> bytes:
            async with aclosing(reply.parts()) as parts:
                async for _, part in parts:
                    if isinstance(part, Part):
                        writer.take(part)
            run = reply.runs[0]
            return await self._replies.bodies.in_thread(run.characters, lambda: writer.whole(reply), run.owner)

        events = _stream(reply, writer, caller_of(request).request_id)
        stream = ReplyStream(events, reply.give_up) if parsed.stream else None
        return await self._replies.answer(request, reply, whole, stream)

    async def count_tokens(self, request: Request) -> Response:
        """POST /v1/messages/count_tokens."""
        _, reply = await self._replies.begin(request, CountTokensRequest)

        async def whole() -> bytes:
            await reply.whole()
            return compact({"input_tokens": _usage(reply)["input_tokens"]}).encode()

        return await self._replies.answer(request, reply, whole)


class _MessageWriter:
    """A message while it is written: its blocks, and the events that announce them."""

    def __init__(self, model: str):
        self._head = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "model": model}
        self._content: list[Json] = []
        self._open: list[str] | None = None  # the text of the last block, or its arguments, while it is written

    def start(self) -> str:
        """The event that a stream begins with. The tokens of the prompt are known at its end."""
        usage = {"input_tokens": 0, "output_tokens": 0}
        message: Json = {**self._head, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        return _event("message_start", message=message)

    def take(self, part: Part) -> str:
        """The events of a part."""
        match part:
            case CallStart():
                call = {"type": "tool_use", "id": f"toolu_{secrets.token_hex(12)}", "name": part.name, "input": {}}
                return self._begin(call)
            case Arguments():
                return self._delta({"type": "input_json_delta", "partial_json": part.text}, part.text)
        begun = "" if self._open is not None and self._kind == "text" else self._begin({"type": "text", "text": ""})
        return begun + self._delta({"type": "text_delta", "text": part}, part)

    def close(self) -> str:
        """The event that ends the block that is open, if there is one."""
        if self._open is None:
            return ""
        text, self._open = "".join(self._open), None
        self._content[-1] |= {"text": text} if self._kind == "text" else {"input": _arguments(text)}
        return _event("content_block_stop", index=len(self._content) - 1)

    def end(self, reply: Reply) -> str:
        """The events that end a stream."""
        delta = {"stop_reason": self._stop_reason(reply), "stop_sequence": None}
        return self.close() + _event("message_delta", delta=delta, usage=_usage(reply)) + _event("message_stop")

    def whole(self, reply: Reply) -> bytes:
        """The whole message, as JSON. It takes time that grows with the message."""
        self.close()
        ended = {"stop_reason": self._stop_reason(reply), "stop_sequence": None, "usage": _usage(reply)}
        return compact({**self._head, "content": self._content, **ended}).encode(errors="replace")

    @property
    def _kind(self) -> Any:
        return self._content[-1]["type"]

    def _begin(self, block: Json) -> str:
        closed = self.close()
        self._content.append(block)
        self._open = []
        return closed + _event("content_block_start", index=len(self._content) - 1, content_block=block)

    def _delta(self, delta: Json, text: str) -> str:
        assert self._open is not None  # noqa: S101
        self._open.append(text)
        return _event("content_block_delta", index=len(self._content) - 1, delta=delta)

    def _stop_reason(self, reply: Reply) -> str:
        """Why the message ended. Which stop sequence it was, or whether it was one, the server does not say."""
        if reply.runs[0].cut_off:
            return "max_tokens"
        return "tool_use" if any(block["type"] == "tool_use" for block in self._content) else "end_turn"


async def _stream(reply: Reply, writer: _MessageWriter, request_id: str) -> AsyncIterator[str]:
    """The events of a stream."""
    try:
        yield writer.start()
        async with aclosing(reply.parts()) as parts:
            async for _, part in parts:
                if part is HEARTBEAT:
                    yield _event("ping")
                elif isinstance(part, Part):
                    yield writer.take(part)
        yield writer.end(reply)
    except ClientDisconnect:
        return
    except Exception as error:
        yield event(body_of(of_error("a stream", error), request_id), "error")


def _event(kind: str, **body: Any) -> str:
    return event({"type": kind, **body}, kind)


def _usage(reply: Reply) -> Json:
    usage = reply.usage()
    cached = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {"input_tokens": usage["prompt_tokens"], **cached, "output_tokens": usage["completion_tokens"]}


def _arguments(text: str) -> Json:
    """The arguments of a call; of one that max_tokens cut, what Anthropic's clients read of it."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        try:
            read = from_json(text, allow_partial=True)
        except ValueError:
            return {}
    return read if isinstance(read, dict) else {}
