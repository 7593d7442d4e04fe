"""OpenAI's chat completions and completions (https://platform.openai.com/docs/api-reference), over runs."""

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hermes.client.cog import Json
from hermes.gateway.answer import Arguments, CallStart, Part
from hermes.gateway.chat_requests import ChatRequest
from hermes.gateway.completion_requests import CompletionRequest
from hermes.gateway.events import compact, event
from hermes.gateway.openai_requests import ParsedRequest
from hermes.gateway.problems import of_error
from hermes.gateway.replies import Replies
from hermes.gateway.reply import HEARTBEAT, Call, Reply, ReplyStream


class OpenAIApi:
    """The endpoints."""

    def __init__(self, replies: Replies):
        self._replies = replies

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        parsed, reply = await self._replies.begin(request, ChatRequest)
        return await self._choices(request, parsed, reply, _Chat(parsed.model))

    async def complete(self, request: Request) -> Response:
        """POST /v1/completions."""
        parsed, reply = await self._replies.begin(request, CompletionRequest)
        return await self._choices(request, parsed, reply, _Completion(parsed.model))

    async def _choices(
        self, request: Request, parsed: ParsedRequest, reply: Reply, shape: "_Chat | _Completion"
    ) -> Response:
        async def whole() -> bytes:
            choices = [
                shape.choice(number, text, calls, reply.finish_reason(number, bool(calls)))
                for number, (text, calls) in enumerate(await reply.whole())
            ]
            body = {**shape.head(), "choices": choices, "usage": reply.usage()}
            size = sum(run.characters for run in reply.runs)
            return await self._replies.bodies.in_thread(size, lambda: compact(body).encode(), reply.runs[0].owner)

        stream = ReplyStream(_stream(reply, shape, parsed.include_usage), reply.give_up) if parsed.stream else None
        return await self._replies.answer(request, reply, whole, stream)


class _Chat:
    """How chat completions are written."""

    def __init__(self, model: str):
        self._id, self._model, self._created = f"chatcmpl-{secrets.token_hex(12)}", model, int(time.time())

    def head(self, *, chunk: bool = False) -> Json:
        """What each body begins with."""
        kind = "chat.completion.chunk" if chunk else "chat.completion"
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def choice(self, index: int, text: str, calls: Sequence[Call], finish_reason: str) -> Json:
        """A whole answer."""
        message: Json = {"role": "assistant", "content": text or ("" if not calls else None), "refusal": None}
        if calls:
            message["tool_calls"] = [tool_call(call.name, call.text) for call in calls]
        return {"index": index, "message": message, "logprobs": None, "finish_reason": finish_reason}

    def first(self, index: int) -> Json:
        """What a stream begins with."""
        return self._delta(index, {"role": "assistant", "content": ""})

    def part(self, index: int, part: Part, calls: int) -> Json:
        """A part of a stream, after so many calls."""
        match part:
            case CallStart():
                return self._delta(index, {"tool_calls": [{"index": calls, **tool_call(part.name)}]})
            case Arguments():
                return self._delta(index, {"tool_calls": [{"index": calls - 1, "function": {"arguments": part.text}}]})
        return self._delta(index, {"content": part})

    def heartbeat(self, index: int) -> Json:
        """Returns a chunk that changes nothing.

        openai's clients, the AI SDK and LangChain pass over it, in Python and JavaScript. Chunks without choices make
        openai's raise, and an empty `content` is an event of its helpers. Comments break clients with parsers of
        their own.
        """
        return self._delta(index, {})

    def last(self, index: int, finish_reason: str) -> Json:
        """The end of a stream."""
        return self._delta(index, {}, finish_reason)

    def _delta(self, index: int, delta: Json, finish_reason: str | None = None) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self.head(chunk=True), "choices": [choice]}


class _Completion:
    """How completions are written. A stream's bodies have the shape of the whole."""

    def __init__(self, model: str):
        self._id, self._model, self._created = f"cmpl-{secrets.token_hex(12)}", model, int(time.time())

    def head(self, *, chunk: bool = False) -> Json:  # noqa: ARG002  as _Chat's
        """What each body begins with."""
        return {"id": self._id, "object": "text_completion", "created": self._created, "model": self._model}

    def choice(self, index: int, text: str, calls: Sequence[Call], finish_reason: str | None) -> Json:  # noqa: ARG002
        """A whole answer, or a part of it."""
        return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}

    def first(self, index: int) -> None:
        """A stream begins with its first text."""

    def part(self, index: int, part: Part, calls: int) -> Json:  # noqa: ARG002
        """A part of a stream."""
        return {**self.head(), "choices": [self.choice(index, str(part), (), None)]}

    def heartbeat(self, index: int) -> Json:
        """Returns a chunk that changes nothing."""
        return self.part(index, "", 0)

    def last(self, index: int, finish_reason: str) -> Json:
        """The end of a stream."""
        return {**self.head(), "choices": [self.choice(index, "", (), finish_reason)]}


async def _stream(reply: Reply, shape: _Chat | _Completion, usage: bool) -> AsyncIterator[str]:
    """The events of a stream. An error in it is an event of its own, for the status is sent by then."""
    called = [0] * reply.predictions
    try:
        for number in range(reply.predictions):
            if first := shape.first(number):
                yield event(first)
        async with aclosing(reply.parts()) as parts:
            async for number, part in parts:
                if part is HEARTBEAT:
                    yield event(shape.heartbeat(number))
                elif part is None:
                    yield event(shape.last(number, reply.finish_reason(number, bool(called[number]))))
                else:
                    yield event(shape.part(number, part, called[number]))
                    called[number] += isinstance(part, CallStart)
        if usage:
            yield event({**shape.head(chunk=True), "choices": [], "usage": reply.usage()})
    except ClientDisconnect:
        return
    except Exception as error:
        yield event({"error": of_error("a stream", error).body()["error"]})
    yield "data: [DONE]\n\n"


def tool_call(name: str, arguments: str = "") -> Json:
    """A call as chat completions write it."""
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
