"""OpenAI's chat completions and completions (https://platform.openai.com/docs/api-reference), over runs."""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from hermes.client.cog import Json, given
from hermes.errors import BadTools
from hermes.gateway.answer import Answer, Part
from hermes.gateway.problems import Problem, of_failed, of_invalid, unsupported
from hermes.gateway.runs import Run, Runs
from hermes.text import shortened
from hermes.tool_calls.call import ToolCall
from hermes.tool_calls.definitions import Function, parse_functions

log = logging.getLogger(__name__)

MAX_TOKENS = 131_072  # what predict.py takes at most; the server lowers it to the room in the context
MAX_CHOICES = 16
MAX_SEED = 2**53
MAX_SAID = 200  # characters
EVENT_STREAM = "text/event-stream; charset=utf-8"
NO_CACHE = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the second is for nginx, which would collect
Texts = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


class Sampled(BaseModel):
    """What chat completions, completions and responses have in common. Unknown fields are let through, null is absent.

    The last five are this package's own, sent as extra_body by OpenAI's client.
    """

    model_config = ConfigDict(strict=True, extra="ignore")

    model: str
    stream: bool = False
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = None
    top_k: int | None = None
    min_p: float | None = None
    min_tokens: int | None = None
    repetition_penalty: float | None = None
    timeout: float | None = None

    def sampling(self) -> Json:
        """The inputs of predict.py that say how tokens are drawn. OpenAI's defaults stand for what is left out."""
        greedy = {"temperature": 0.0, "top_p": 1.0} if self.top_p == 0 else {}
        given = self.model_dump(include=set(Sampled.model_fields) - {"model", "stream"}, exclude_none=True)
        if self.seed is not None:
            given["seed"] = self.seed % MAX_SEED
        return {"temperature": 1.0, "top_p": 1.0, "top_k": 0, **given, **greedy}


class Streaming(BaseModel):
    """stream_options."""

    include_usage: bool = False


class Completed(Sampled):
    """What chat completions and completions have in common."""

    n: int = Field(1, ge=1, le=MAX_CHOICES)
    max_tokens: int | None = Field(None, ge=1)
    stop: Texts = []
    stream_options: Streaming = Streaming()
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, Any] | None = None

    def completing(self) -> Json:
        """The inputs of predict.py for all but the prompt."""
        if self.logprobs not in (None, False) or self.top_logprobs:
            raise unsupported("logprobs", "the server gives no probabilities of tokens")
        if self.logit_bias:
            raise unsupported("logit_bias", "the server cannot favour single tokens")
        inputs = {**self.sampling(), "max_tokens": min(self.max_tokens or MAX_TOKENS, MAX_TOKENS)}
        return inputs | ({"stop": self.stop} if self.stop else {})


class ChatRequest(Completed):
    """The body of POST /v1/chat/completions."""

    messages: list[Json] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    tools: list[Json] = []
    tool_choice: str | Json = "auto"
    parallel_tool_calls: bool = True
    response_format: Json = {"type": "text"}
    modalities: list[str] = ["text"]
    audio: Json | None = None
    functions: list[Json] | None = None
    truncate: str | None = None

    def inputs(self) -> Json:
        """The inputs of predict.py."""
        if self.audio or self.modalities != ["text"]:
            raise unsupported("modalities", "the model reads and writes only text")
        if self.functions:
            raise unsupported("functions", "send tools, which took their place")
        inputs = self.completing() | {"system_prompt": "", "messages": messages_of(self.messages)}
        if self.max_completion_tokens:
            inputs["max_tokens"] = min(self.max_completion_tokens, MAX_TOKENS)
        if self.truncate:
            inputs["truncate"] = self.truncate
        return inputs | form_of(self.tools, self.tool_choice, self.response_format)


class CompletionRequest(Completed):
    """The body of POST /v1/completions."""

    prompt: Texts = Field(min_length=1)
    echo: bool = False
    suffix: str | None = None
    best_of: int | None = None

    def inputs(self, prompt: str) -> Json:
        """The inputs of predict.py."""
        if self.echo or self.suffix or (self.best_of or self.n) != self.n:
            raise unsupported("echo, suffix and best_of", "are not supported")
        return self.completing() | {"prompt": prompt, "prompt_template": "{prompt}"}


def messages_of(messages: Sequence[Json], at: str = "messages") -> list[Json]:
    """Messages as predict.py takes them: one system turn, text only, no nulls. Raises Problem if they cannot be."""
    turns = [_message(message, f"{at}[{index}]") for index, message in enumerate(messages)]
    if turns[-1]["role"] == "assistant":
        raise Problem(400, f"{at}: the last turn is the assistant's; end with a turn that it can answer", param=at)
    leading = next((n for n, turn in enumerate(turns) if turn["role"] != "system"), len(turns))
    system = "\n\n".join(turn["content"] for turn in turns[:leading])
    return [{"role": "system", "content": system}] * bool(leading) + turns[leading:]


def _message(message: Json, at: str) -> Json:
    message = given(message)
    if not isinstance(message.get("role"), str):
        raise Problem(400, f"{at}.role: has to be system, developer, user, assistant or tool", param=f"{at}.role")
    if message["role"] == "developer":
        message["role"] = "system"
    content = message.get("content")
    if isinstance(content, list):
        for index, part in enumerate(content):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            if kind not in ("text", "input_text", "output_text", "refusal"):
                raise unsupported(f"{at}.content[{index}]", f"is {kind!r}; the model reads only text")
        content = "".join(str(part.get("text", part.get("refusal", ""))) for part in content)
    if content is None and message["role"] == "assistant":
        content = ""
    if not isinstance(content, str):
        raise Problem(400, f"{at}.content: has to be text, or a list of text parts", param=f"{at}.content")
    return message | {"content": content}


def choice_of(choice: str | Json) -> str:
    """The input tool_choice: a word, or the name of the tool."""
    if isinstance(choice, str):
        return choice
    function = choice.get("function", choice)
    name = function.get("name") if isinstance(function, dict) else None
    if choice.get("type") == "allowed_tools" or not isinstance(name, str):
        raise unsupported("tool_choice", "has to be auto, none, required, or name one function")
    return name


def form_of(tools: Sequence[Json], choice: str | Json, response_format: Any) -> Json:
    """The inputs that say what an answer is. predict.py takes tools or a schema, so what cannot come is left out."""
    schema, named = schema_of(response_format), choice_of(choice)
    if not tools or (schema and named == "none"):
        return schema
    return {"tools": list(tools), "tool_choice": named, **(schema if named == "auto" else {})}


def schema_of(response_format: Any) -> Json:
    """The input json_schema of a response_format."""
    match response_format.get("type", "text") if isinstance(response_format, dict) else response_format:
        case "text":
            return {}
        case "json_object":
            return {"json_schema": {"type": "object"}}
        case "json_schema":
            holder = response_format.get("json_schema", response_format)
            schema = holder.get("schema") if isinstance(holder, dict) else None
            if not isinstance(schema, dict):
                raise Problem(400, "response_format: has no JSON schema", param="response_format")
            return {"json_schema": schema}
        case other:
            raise unsupported("response_format", f"is {other!r}; it has to be text, json_object or json_schema")


def functions_of(inputs: Mapping[str, Any]) -> tuple[Function, ...]:
    """The functions that an answer may call."""
    if inputs.get("tool_choice") == "none":
        return ()
    try:
        return parse_functions(inputs.get("tools", ()))
    except BadTools as error:
        raise Problem(400, str(error), param="tools", code=error.code) from error


class Reply:
    """The reply to one request, of one run or of several, as its parts come."""

    def __init__(self, runs: Runs, each: Sequence[Mapping[str, Any]], *, parallel_calls: bool = True):
        """Begin a run for each of the inputs."""
        self._runs = runs
        self._answers = [Answer(functions_of(inputs)) for inputs in each]
        self._named = each[0].get("tool_choice") not in (None, "auto", "none", "required")
        self._parallel = parallel_calls
        self.runs: list[Run] = []
        try:
            self.runs += map(runs.start, each)
        except Exception:
            self.give_up()
            raise

    async def begun(self) -> None:
        """Wait until each has its first piece. Raises Problem if one failed before."""
        await asyncio.gather(*(run.begun() for run in self.runs))
        for run in self.runs:
            if run.status in ("failed", "canceled") and not run.output:
                raise of_failed(run)

    async def parts(self) -> AsyncGenerator[tuple[int, Part | None]]:
        """The parts of all, with the number of the run; None is the end of one. Raises Problem if one fails."""
        queue: asyncio.Queue[tuple[int, Part | Problem | None]] = asyncio.Queue()
        readers = [asyncio.create_task(self._read(number, queue)) for number in range(len(self.runs))]
        try:
            ended = 0
            while ended < len(readers):
                number, part = await queue.get()
                if isinstance(part, Problem):
                    raise part
                ended += part is None
                yield number, part
        finally:
            for reader in readers:
                reader.cancel()

    async def whole(self) -> list[tuple[str, list[ToolCall]]]:
        """The text and the calls of each."""
        texts, calls = [""] * len(self.runs), [list[ToolCall]() for _ in self.runs]
        async for number, part in self.parts():
            if isinstance(part, str):
                texts[number] += part
            elif part:
                calls[number].append(part)
        return list(zip(texts, calls, strict=True))

    def finish_reason(self, number: int, called: bool) -> str:
        """Why an answer ended, in OpenAI's words."""
        if self.runs[number].cut_off:
            return "length"
        return "tool_calls" if called and not self._named else "stop"

    def usage(self) -> Json:
        """The tokens of the request and of all answers."""
        counts = [run.metrics for run in self.runs]
        prompt = counts[0].get("input_token_count", 0)
        written = sum(each.get("output_token_count", 0) for each in counts)
        return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}

    def give_up(self) -> None:
        """End what runs still: nobody reads it."""
        for run in self.runs:
            self._runs.abandon(run)

    async def _read(self, number: int, queue: "asyncio.Queue[tuple[int, Part | Problem | None]]") -> None:
        """Put the parts of one into the queue, and its end or what went wrong."""
        called = False
        try:
            async with aclosing(self._parts_of(number)) as parts:
                async for part in parts:
                    is_call = isinstance(part, ToolCall)
                    if self._parallel or not (called and is_call):  # else one call is all that was asked for
                        queue.put_nowait((number, part))
                    called = called or is_call
        except Problem as problem:
            queue.put_nowait((number, problem))
        except Exception as bug:
            log.exception("gateway: run %s", self.runs[number].id)
            queue.put_nowait((number, Problem(500, f"the gateway failed: {type(bug).__name__}")))
        else:
            queue.put_nowait((number, None))

    async def _parts_of(self, number: int) -> AsyncGenerator[Part]:
        run, answer = self.runs[number], self._answers[number]
        async with aclosing(run.pieces()) as pieces:
            async for piece in pieces:
                for part in answer.feed(piece):
                    yield part
        if run.status != "succeeded":
            raise of_failed(run)
        for part in await asyncio.to_thread(lambda: list(answer.end(cut=run.cut_off))):  # up to a second of CPU time
            yield part


class OpenAIApi:
    """The endpoints."""

    def __init__(self, runs: Runs, names: Sequence[str], document: Callable[[], Json]):
        self._runs, self._names, self._document = runs, names, document

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        asked = await read_body(ChatRequest, request)
        reply = self.reply(asked.model, several(asked.inputs(), asked.n), parallel_calls=asked.parallel_tool_calls)
        return await self._answer(request, asked, reply, _Chat(asked.model))

    async def complete(self, request: Request) -> Response:
        """POST /v1/completions."""
        asked = await read_body(CompletionRequest, request)
        each = [inputs for prompt in asked.prompt for inputs in several(asked.inputs(prompt), asked.n)]
        return await self._answer(request, asked, self.reply(asked.model, each), _Completion(asked.model))

    def reply(self, model: str, each: Sequence[Json], *, parallel_calls: bool = True) -> Reply:
        """Begin the reply of a model. Raises Problem if it is not here, or does not take the inputs."""
        if model not in self._names:
            said = f"there is no model {model!r}; there is {self._names[0]!r}"
            raise Problem(404, said, param="model", code="model_not_found")
        if len(each) > MAX_CHOICES:
            raise Problem(400, f"{len(each)} answers at once; at most {MAX_CHOICES}", param="n")
        known = self._document()["components"]["schemas"]["Input"]["properties"]
        if unknown := [name for name in each[0] if name not in known]:  # Cog would drop it without a word
            raise unsupported(unknown[0], "is no input of the model that is served")
        return Reply(self._runs, each, parallel_calls=parallel_calls)

    async def _answer(self, request: Request, asked: Completed, reply: Reply, shape: "_Chat | _Completion") -> Response:
        async with while_asked(request, reply):
            await reply.begun()
            if asked.stream:
                stream = _stream(reply, shape, asked.stream_options.include_usage)
                return StreamingResponse(stream, media_type=EVENT_STREAM, headers=NO_CACHE)
            answers = await reply.whole()
        choices = [
            shape.choice(number, text, calls, reply.finish_reason(number, bool(calls)))
            for number, (text, calls) in enumerate(answers)
        ]
        return JSONResponse({**shape.head(), "choices": choices, "usage": reply.usage()})


class _Chat:
    """How chat completions are written."""

    def __init__(self, model: str):
        self._id, self._model, self._created = f"chatcmpl-{secrets.token_hex(12)}", model, int(time.time())

    def head(self, *, chunk: bool = False) -> Json:
        """What each body begins with."""
        kind = "chat.completion.chunk" if chunk else "chat.completion"
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def choice(self, index: int, text: str, calls: Sequence[ToolCall], finish_reason: str) -> Json:
        """A whole answer."""
        message: Json = {"role": "assistant", "content": text or ("" if not calls else None), "refusal": None}
        if calls:
            message["tool_calls"] = [tool_call(call) for call in calls]
        return {"index": index, "message": message, "logprobs": None, "finish_reason": finish_reason}

    def first(self, index: int) -> Json:
        """What a stream begins with."""
        return self._delta(index, {"role": "assistant", "content": ""})

    def part(self, index: int, part: Part, calls: int) -> Json:
        """A part of a stream, after so many calls."""
        if isinstance(part, ToolCall):
            return self._delta(index, {"tool_calls": [{"index": calls, **tool_call(part)}]})
        return self._delta(index, {"content": part})

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

    def choice(self, index: int, text: str, calls: Sequence[ToolCall], finish_reason: str | None) -> Json:  # noqa: ARG002
        """A whole answer, or a part of it."""
        return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}

    def first(self, index: int) -> None:
        """A stream begins with its first text."""

    def part(self, index: int, part: Part, calls: int) -> Json:  # noqa: ARG002
        """A part of a stream."""
        return {**self.head(), "choices": [self.choice(index, str(part), (), None)]}

    def last(self, index: int, finish_reason: str) -> Json:
        """The end of a stream."""
        return {**self.head(), "choices": [self.choice(index, "", (), finish_reason)]}


async def _stream(reply: Reply, shape: _Chat | _Completion, usage: bool) -> AsyncIterator[str]:
    """The events of a stream. An error in it is an event of its own, for the status is sent by then."""
    called = [0] * len(reply.runs)
    try:
        for number in range(len(reply.runs)):
            if first := shape.first(number):
                yield event(first)
        async with aclosing(reply.parts()) as parts:
            async for number, part in parts:
                if part is None:
                    yield event(shape.last(number, reply.finish_reason(number, bool(called[number]))))
                    continue
                yield event(shape.part(number, part, called[number]))
                called[number] += isinstance(part, ToolCall)
        if usage:
            yield event({**shape.head(chunk=True), "choices": [], "usage": reply.usage()})
    except Problem as problem:
        yield event({"error": problem.body()["error"]})
    finally:
        reply.give_up()
    yield "data: [DONE]\n\n"


def tool_call(call: ToolCall) -> Json:
    """A call as chat completions write it."""
    function = {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def event(body: Json, name: str | None = None) -> str:
    """A server-sent event."""
    return f"{f'event: {name}' + chr(10) if name else ''}data: {compact(body)}\n\n"


def several(inputs: Json, n: int) -> list[Json]:
    """The inputs of n answers. With a seed, each has its own."""
    if n == 1 or "seed" not in inputs:
        return [inputs] * n
    return [inputs | {"seed": (inputs["seed"] + number) % MAX_SEED} for number in range(n)]


Body = TypeVar("Body", bound=BaseModel)


async def read_body(model: type[Body], request: Request) -> Body:
    """The body of a request. Raises Problem if it is not as `model` has it."""
    try:
        value = json.loads(await request.body())
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()  # Python reads what it cannot write again
        return model.model_validate(given(value) if isinstance(value, dict) else value)  # clients send nulls
    except ValidationError as error:
        raise of_invalid(error) from error
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the body is not JSON: {shortened(str(error), MAX_SAID)}") from error


@asynccontextmanager
async def while_asked(request: Request, reply: Reply) -> AsyncIterator[None]:
    """Give the reply up if its caller goes away, or what is done with it fails."""

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
