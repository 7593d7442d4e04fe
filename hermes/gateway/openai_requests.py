"""The bodies of OpenAI's chat completions and completions as inputs of predict.py.

See https://platform.openai.com/docs/api-reference.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import to_json

from hermes.client.cog import Json, given
from hermes.gateway.inputs import InputCheck
from hermes.gateway.problems import Problem, unsupported

MAX_TOKENS = 131_072  # what predict.py takes at most; the server lowers it to the room in the context
MAX_CHOICES = 16
MAX_SEED = 2**53
Texts = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


class Sampled(BaseModel, ABC):
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

    @abstractmethod
    def parsed(self, check: InputCheck) -> "ParsedRequest":
        """What is asked for. Raises Problem if it cannot be had."""


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

    def parsed(self, check: InputCheck) -> "ParsedRequest":
        """See Sampled."""
        usage, parallel = self.stream_options.include_usage, self.parallel_tool_calls
        return ParsedRequest.of(self, [self.inputs()], check, n=self.n, usage=usage, parallel_calls=parallel)


class CompletionRequest(Completed):
    """The body of POST /v1/completions."""

    prompt: Texts = Field(min_length=1, max_length=MAX_CHOICES)
    echo: bool = False
    suffix: str | None = None
    best_of: int | None = None

    def inputs(self, prompt: str) -> Json:
        """The inputs of predict.py."""
        if self.echo or self.suffix or (self.best_of or self.n) != self.n:
            raise unsupported("echo, suffix and best_of", "are not supported")
        return self.completing() | {"prompt": prompt, "prompt_template": "{prompt}"}

    def parsed(self, check: InputCheck) -> "ParsedRequest":
        """See Sampled."""
        each = [self.inputs(prompt) for prompt in self.prompt]
        return ParsedRequest.of(self, each, check, n=self.n, usage=self.stream_options.include_usage)


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
        content = "".join(_text(part, f"{at}.content[{index}]") for index, part in enumerate(content))
    if content is None and message["role"] == "assistant":
        content = ""
    if not isinstance(content, str):
        raise Problem(400, f"{at}.content: has to be text, or a list of text parts", param=f"{at}.content")
    return message | {"content": content}


def _text(part: Any, at: str) -> str:
    """The text of a part of a message."""
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if kind not in ("text", "input_text", "output_text", "refusal"):
        raise unsupported(at, f"is {kind!r}; the model reads only text")
    text = part.get("text", part.get("refusal"))
    if not isinstance(text, str):
        raise Problem(400, f"{at}.text: has to be a string", param=f"{at}.text")
    return text


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


@dataclass(frozen=True)
class ParsedRequest:
    """What is kept of a request while it is answered: little, however large its body was."""

    model: str
    stream: bool
    include_usage: bool
    inputs: tuple[bytes, ...]  # of each prediction, as JSON
    per_prompt: int  # predictions
    may_call: bool
    named: bool  # the tool that it has to call
    parallel_calls: bool
    echo: bytes = b""  # what the response repeats of the request, as JSON

    @classmethod
    def of(
        cls,
        request: Sampled,
        each: Sequence[Json],
        check: InputCheck,
        *,
        n: int = 1,
        usage: bool = False,
        parallel_calls: bool = True,
        echo: bytes = b"",
    ) -> "ParsedRequest":
        """Raises Problem if a prediction cannot have these inputs."""
        if len(each) * n > MAX_CHOICES:
            raise Problem(400, f"{len(each) * n} responses at once; at most {MAX_CHOICES}", param="n")
        written = tuple(numbered for inputs in each for numbered in several(inputs, check.written(inputs), n))
        for inputs in each:
            check.conversation(inputs)
        first = each[0]
        return cls(
            model=request.model,
            stream=request.stream,
            include_usage=usage,
            inputs=written,
            per_prompt=n,
            may_call=bool(first.get("tools")) and first.get("tool_choice") != "none",
            named=first.get("tool_choice", "auto") not in ("auto", "none", "required"),
            parallel_calls=parallel_calls,
            echo=echo,
        )


def body_of(value: Any) -> Any:
    """Returns a body without its nulls, which clients send for what they leave out."""
    return given(value) if isinstance(value, dict) else value


def several(inputs: Json, written: bytes, n: int) -> list[bytes]:
    """Returns the inputs of n responses, as JSON. With a seed, each has its own."""
    if "seed" not in inputs:
        return [written] * n
    seeds = ((inputs["seed"] + number) % MAX_SEED for number in range(1, n))
    return [written, *(to_json({**inputs, "seed": seed}) for seed in seeds)]
