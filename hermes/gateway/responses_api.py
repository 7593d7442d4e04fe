"""OpenAI's responses (https://platform.openai.com/docs/api-reference/responses), without a memory, over runs.

Codex speaks nothing else, and pydantic-ai and openai-agents ask so by default. What a conversation was comes with each
request, as it does for `store: false`.
"""

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from itertools import count
from typing import Annotated, Any, TypeAlias

from pydantic import Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hermes.client.cog import Json
from hermes.gateway.answer import Part
from hermes.gateway.counted import CountedResponse
from hermes.gateway.events import compact, event
from hermes.gateway.inputs import InputCheck
from hermes.gateway.openai_api import OpenAIApi, tool_call
from hermes.gateway.openai_requests import MAX_TOKENS, ParsedRequest, Sampled, form_of, messages_of
from hermes.gateway.problems import Problem, of_bug, unsupported
from hermes.gateway.reply import HEARTBEAT, REFUSAL_SECONDS, Heartbeat, Reply, ReplyStream, cancel_on_disconnect
from hermes.tool_calls.call import ToolCall

ECHOED = (  # in the response
    "instructions",
    "max_output_tokens",
    "metadata",
    "model",
    "parallel_tool_calls",
    "temperature",
    "top_p",
    "tool_choice",
    "tools",
    "truncation",
)
Key: TypeAlias = Annotated[str, Field(max_length=64)]  # of metadata, as OpenAI has it
Value: TypeAlias = Annotated[str, Field(max_length=512)]
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
    metadata: dict[Key, Value] = Field({}, max_length=16)
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

    def parsed(self, check: InputCheck) -> ParsedRequest:
        """See Sampled."""
        echo = {name: getattr(self, name) for name in ECHOED} | {"text": self.text or {"format": {"type": "text"}}}
        return ParsedRequest.of(
            self, [self.inputs()], check, parallel_calls=self.parallel_tool_calls, echo=compact(echo)[1:-1].encode()
        )


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
        parsed, reply = await self._openai.begin(request, ResponsesRequest)
        writer = _ResponseWriter(parsed.echo)
        async with cancel_on_disconnect(request, reply):
            await reply.begun(REFUSAL_SECONDS if parsed.stream else None)
            if parsed.stream:
                return ReplyStream(_stream(reply, writer), reply)
            async with aclosing(reply.parts()) as parts:
                async for _, part in parts:
                    writer.take(part)
            writer.close(status_of(reply))
        reply.give_up()
        return CountedResponse(writer.ended(reply).encode(), self._openai.memory, reply.runs[0].owner, always=True)


class _ResponseWriter:
    """A response while it is written: its items, and the events that tell of them."""

    def __init__(self, echo: bytes):
        self._echo = echo  # as JSON, for it may be large
        self._id, self._created = f"resp_{secrets.token_hex(16)}", int(time.time())
        self._output: list[Json] = []
        self._numbers = count()
        self._text: list[str] | None = None  # of a message that is not whole yet

    def response(self, status: str, **more: Any) -> str:
        """The response as it is, as JSON."""
        own = {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "output": self._output,
            "previous_response_id": None,
            "store": False,
            "usage": None,
            **more,
        }
        return f"{compact(own)[:-1]},{self._echo.decode()}}}"

    def ended(self, reply: Reply) -> str:
        """The response when its run has ended, as JSON."""
        usage = reply.usage()
        counts = {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }
        reason = {"reason": "max_output_tokens"} if reply.runs[0].cut_off else None
        return self.response(status_of(reply), incomplete_details=reason, usage=counts)

    def event(self, kind: str, **body: Any) -> str:
        """An event, with its number."""
        return event({"type": kind, "sequence_number": next(self._numbers), **body}, kind)

    def event_with_response(self, kind: str, response: str) -> str:
        """An event that has the response as it is."""
        head = compact({"type": kind, "sequence_number": next(self._numbers)})
        return f'event: {kind}\ndata: {head[:-1]},"response":{response}}}\n\n'

    def take(self, part: Part | Heartbeat | None) -> list[str]:
        """The events of a part."""
        if part is HEARTBEAT:
            return [self._heartbeat()]
        if isinstance(part, ToolCall):
            return self._take_call(part)
        return self._take_text(part) if isinstance(part, str) else []

    def close(self, status: str = "completed") -> list[str]:
        """The events that end a message, if one is open."""
        if self._text is None:
            return []
        text, self._text = "".join(self._text), None
        content = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        self._output[-1] |= {"status": status, "content": [content]}
        at = self._at() | {"content_index": 0}
        return [
            self.event("response.output_text.done", **at, text=text, logprobs=[]),
            self.event("response.content_part.done", **at, part=content),
            self._item_done(),
        ]

    def _heartbeat(self) -> str:
        """Returns an event that changes nothing. openai's client for JavaScript takes a response for the whole state,
        which it is only between messages.
        """
        if self._text is None:
            return self.event_with_response("response.in_progress", self.response("in_progress"))
        return self.event("response.output_text.delta", **self._at(), content_index=0, delta="", logprobs=[])

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


def status_of(reply: Reply) -> str:
    """How a response has ended."""
    return "incomplete" if reply.runs[0].cut_off else "completed"


async def _stream(reply: Reply, writer: _ResponseWriter) -> AsyncIterator[str]:
    """The events of a stream."""
    try:
        for kind in ("response.created", "response.in_progress"):
            yield writer.event_with_response(kind, writer.response("in_progress"))
        async with aclosing(reply.parts()) as parts:
            async for _, part in parts:
                if events := writer.take(part):
                    yield "".join(events)
        yield "".join(writer.close(status_of(reply)))
        yield writer.event_with_response(f"response.{status_of(reply)}", writer.ended(reply))
    except ClientDisconnect:
        return
    except Exception as error:
        problem = error if isinstance(error, Problem) else of_bug("a stream", error)
        yield "".join(writer.close("incomplete"))
        said = {"code": problem.code or "server_error", "message": problem.message}
        yield writer.event_with_response("response.failed", writer.response("failed", error=said))
