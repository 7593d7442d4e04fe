"""OpenAI's responses (https://platform.openai.com/docs/api-reference/responses), without a memory, over runs.

Codex speaks nothing else, and pydantic-ai and openai-agents ask so by default. What a conversation was comes with each
request, as it does for `store: false`.
"""

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from itertools import count
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from hermes.client.cog import Json
from hermes.gateway.openai_api import (
    EVENT_STREAM,
    MAX_TOKENS,
    NO_CACHE,
    OpenAIApi,
    Reply,
    Sampled,
    event,
    form_of,
    messages_of,
    read_body,
    tool_call,
    while_asked,
)
from hermes.gateway.problems import Problem, unsupported
from hermes.tool_calls.call import ToolCall

IGNORED = ("reasoning", "item_reference")  # items that a client may send back and that say nothing here


class ResponsesRequest(Sampled):
    """The body of POST /v1/responses."""

    input: str | list[Json]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    tools: list[Json] = Field([])
    tool_choice: str | Json = "auto"
    parallel_tool_calls: bool = True
    text: Json = Field({})
    truncation: str = "disabled"
    metadata: Json = Field({})
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool = False

    def inputs(self) -> Json:
        """The inputs of predict.py."""
        for name in ("previous_response_id", "conversation", "background"):
            if getattr(self, name):
                raise unsupported(name, "the gateway keeps no responses; send the whole conversation as input")
        turns = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else turns_of(self.input)
        if self.instructions:
            turns = [{"role": "system", "content": self.instructions}, *turns]
        if not turns:
            raise Problem(400, "input: is empty", param="input")
        inputs = self.sampling() | {
            "system_prompt": "",
            "messages": messages_of(turns, "input"),
            "max_tokens": min(self.max_output_tokens or MAX_TOKENS, MAX_TOKENS),
        }
        if self.truncation == "auto":
            inputs["truncate"] = "oldest_turns"
        for index, tool in enumerate(self.tools):
            if tool.get("type") != "function":
                raise unsupported(f"tools[{index}]", f"is {tool.get('type')!r}; only functions can be called")
        return inputs | form_of(self.tools, self.tool_choice, self.text.get("format") or {})


def turns_of(items: Sequence[Json]) -> list[Json]:
    """Chat messages out of the items of an input. Calls that follow each other are one turn."""
    turns: list[Json] = []
    for index, item in enumerate(items):
        match item.get("type", "message"):
            case "message":
                turns.append({"role": item.get("role"), "content": item.get("content")})
            case "function_call":
                call = {
                    "id": item.get("call_id"),
                    "type": "function",
                    "function": {"name": item.get("name"), "arguments": item.get("arguments") or "{}"},
                }
                if not turns or turns[-1]["role"] != "assistant":
                    turns.append({"role": "assistant", "content": ""})
                turns[-1].setdefault("tool_calls", []).append(call)
            case "function_call_output":
                turns.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")})
            case kind if kind not in IGNORED:
                raise unsupported(f"input[{index}]", f"is {kind!r}; it has to be a message, a call or its output")
    return turns


class ResponsesApi:
    """The endpoint."""

    def __init__(self, openai: OpenAIApi):
        self._openai = openai

    async def respond(self, request: Request) -> Response:
        """POST /v1/responses."""
        asked = await read_body(ResponsesRequest, request)
        reply = self._openai.reply(asked.model, [asked.inputs()], parallel_calls=asked.parallel_tool_calls)
        written = _Written(asked)
        async with while_asked(request, reply):
            await reply.begun()
            if asked.stream:
                return StreamingResponse(_stream(reply, written), media_type=EVENT_STREAM, headers=NO_CACHE)
            async with aclosing(reply.parts()) as parts:
                async for _, part in parts:
                    if part is not None:
                        written.take(part)
            written.close()
        return JSONResponse(written.ended(reply))


class _Written:
    """A response while it is written: its items, and the events that tell of them."""

    def __init__(self, asked: ResponsesRequest):
        self._asked = asked
        self._id, self._created = f"resp_{secrets.token_hex(16)}", int(time.time())
        self._output: list[Json] = []
        self._numbers = count()
        self._text: list[str] | None = None  # of a message that is not whole yet

    def response(self, status: str, **more: Any) -> Json:
        """The response as it is."""
        asked = self._asked
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata,
            "model": asked.model,
            "output": self._output,
            "parallel_tool_calls": asked.parallel_tool_calls,
            "previous_response_id": None,
            "store": False,
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "text": asked.text or {"format": {"type": "text"}},
            "tool_choice": asked.tool_choice,
            "tools": asked.tools,
            "truncation": asked.truncation,
            "usage": None,
            **more,
        }

    def ended(self, reply: Reply) -> Json:
        """The response when its run has ended."""
        usage = reply.usage()
        counts = {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }
        if reply.runs[0].cut_off:
            return self.response("incomplete", incomplete_details={"reason": "max_output_tokens"}, usage=counts)
        return self.response("completed", usage=counts)

    def event(self, kind: str, **body: Any) -> str:
        """An event, with its number."""
        return event({"type": kind, "sequence_number": next(self._numbers), **body}, kind)

    def take(self, part: str | ToolCall) -> list[str]:
        """The events of a part."""
        return self._take_call(part) if isinstance(part, ToolCall) else self._take_text(part)

    def close(self) -> list[str]:
        """The events that end a message, if one is open."""
        if self._text is None:
            return []
        text, self._text = "".join(self._text), None
        content = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        self._output[-1] |= {"status": "completed", "content": [content]}
        at = self._at() | {"content_index": 0}
        return [
            self.event("response.output_text.done", **at, text=text, logprobs=[]),
            self.event("response.content_part.done", **at, part=content),
            self._item_done(),
        ]

    def _take_text(self, text: str) -> list[str]:
        events = []
        if self._text is None:
            self._text = []
            events.append(self._item_added({"type": "message", "role": "assistant", "content": []}, "msg"))
            empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            events.append(self.event("response.content_part.added", **self._at(), content_index=0, part=empty))
        self._text.append(text)
        events.append(self.event("response.output_text.delta", **self._at(), content_index=0, delta=text, logprobs=[]))
        return events

    def _take_call(self, call: ToolCall) -> list[str]:
        events = self.close()
        written = tool_call(call)
        arguments = written["function"]["arguments"]
        item = {"type": "function_call", "call_id": written["id"], "name": call.name, "arguments": ""}
        events.append(self._item_added(item, "fc"))
        events.append(self.event("response.function_call_arguments.delta", **self._at(), delta=arguments))
        events.append(
            self.event("response.function_call_arguments.done", **self._at(), name=call.name, arguments=arguments)
        )
        self._output[-1] |= {"status": "completed", "arguments": arguments}
        events.append(self._item_done())
        return events

    def _at(self) -> Json:
        return {"item_id": self._output[-1]["id"], "output_index": len(self._output) - 1}

    def _item_added(self, item: Json, kind: str) -> str:
        self._output.append({"id": f"{kind}_{secrets.token_hex(12)}", "status": "in_progress", **item})
        return self.event("response.output_item.added", output_index=len(self._output) - 1, item=self._output[-1])

    def _item_done(self) -> str:
        return self.event("response.output_item.done", output_index=len(self._output) - 1, item=self._output[-1])


async def _stream(reply: Reply, written: _Written) -> AsyncIterator[str]:
    """The events of a stream."""
    try:
        for kind in ("created", "in_progress"):
            yield written.event(f"response.{kind}", response=written.response("in_progress"))
        async with aclosing(reply.parts()) as parts:
            async for _, part in parts:
                if part is not None:
                    yield "".join(written.take(part))
        yield "".join(written.close())
        ended = written.ended(reply)
        yield written.event(f"response.{ended['status']}", response=ended)
    except Problem as problem:
        error = {"code": "server_error", "message": problem.message}
        yield written.event("response.failed", response=written.response("failed", error=error))
    finally:
        reply.give_up()
