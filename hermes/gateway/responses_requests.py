"""The body of OpenAI's responses as inputs of predict.py.

See https://platform.openai.com/docs/api-reference/responses/create.
"""

import json
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Protocol, Self, TypeAlias

from pydantic import Field, PrivateAttr

from hermes.client.cog import Json
from hermes.gateway import engine_fields
from hermes.gateway.answer_form import form_of
from hermes.gateway.chat_messages import messages_of
from hermes.gateway.completed import Texts
from hermes.gateway.fields import Known
from hermes.gateway.inputs import InputCheck
from hermes.gateway.openai_requests import ParsedRequest, Sampled
from hermes.gateway.problems import PARAMS, Problem, unsupported
from hermes.gateway.responses_items import items_of, turns_of
from hermes.gateway.responses_tools import MAX_KEYS, MAX_VALUE, Tools, tools_of

Key: TypeAlias = Annotated[str, Field(max_length=64)]  # of metadata, as OpenAI has it
Value: TypeAlias = Annotated[str, Field(max_length=MAX_VALUE)]
NO_STATE = "the gateway keeps responses only; send previous_response_id, or the whole conversation as input"


class Lookup(Protocol):
    """Returns what a request refers to, or raises Problem."""

    def conversation(self, response_id: str) -> list[Json]:
        """Returns the items of a conversation up to this response, with it."""

    def item(self, item_id: str, place: str) -> Json:
        """Returns the item of an id."""


class TextOptions(Known):
    """The field text."""

    at = "text."
    harmless: ClassVar[dict[str, str]] = {"verbosity": "is a wish, which the model has no word for"}

    format: Json = Field({})


class ResponsesRequest(Sampled):
    """The body of POST /v1/responses."""

    harmless: ClassVar[dict[str, str]] = (
        Sampled.harmless
        | engine_fields.HARMLESS_IN_CHATS
        | {
            "access_programs": "names who may ask OpenAI for what",
            "image": "is for tools that make images",
            "stream_options": "include_obfuscation pads events",
        }
    )
    misplaced: ClassVar[dict[str, str]] = dict.fromkeys(
        (*engine_fields.GUIDED, "output_config", "output_format"), "send text.format"
    ) | {
        "continue_final_message": "a response begins a new turn",
        "function_call": "send tool_choice",
        "functions": "send tools",
        "max_completion_tokens": "send max_output_tokens",
        "max_tokens": "send max_output_tokens",
        "messages": "send input",
        "n": "a request has one response",
        "response_format": "send text.format",
        "stop_sequences": "send stop",
        "system": "send instructions",
        "truncate": "send truncation: auto",
    }
    refused: ClassVar[dict[str, str]] = Sampled.refused | {
        "background": "the response is written while its request is open; leave it out, or stream",
        "background_options": "there is no background",
        "context_management": "the gateway compacts nothing; send truncation: auto, which leaves out the oldest turns",
        "conversation": NO_STATE,
        "enable_response_messages": "the response has items only",
        "ignore_eos": engine_fields.ENDS_ITSELF,
        "moderation": "the server moderates nothing",
        "previous_input_messages": NO_STATE,
        "structured_outputs": "send text.format with a JSON schema; the server constrains a response by nothing else",
        "prompt": "the gateway keeps no prompts; send it as instructions and input",
    }
    params: ClassVar[dict[str, str]] = (
        PARAMS | dict.fromkeys(("E1001", "E1002", "E1005"), "input") | {"E1007": "text.format"}
    )

    input: str | list[Json]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    max_tool_calls: int | None = None  # of tools that the server runs, and it runs none
    metadata: dict[Key, Value] = Field({}, max_length=MAX_KEYS)
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    reasoning: Json = Field({})  # the model does not reason
    safety_identifier: str | None = None
    service_tier: str = "auto"  # there is one
    include: list[str] = Field([])
    stop: Texts = Field([])
    store: bool = True
    text: TextOptions = TextOptions.model_validate({})
    tool_choice: str | Json = "auto"
    tools: list[Json] = Field([])
    truncation: Literal["auto", "disabled"] = "disabled"

    _before: list[Json] = PrivateAttr([])
    _items: list[Json] = PrivateAttr([])

    def looked_up(self, kept: Lookup) -> Self:
        """Returns the request with what it refers to. Raises Problem if something is not there."""
        if self.previous_response_id:
            self._before = kept.conversation(self.previous_response_id)
        self._items = items_of(self.input, kept.item)
        return self

    def parsed(self, check: InputCheck) -> "ParsedResponse":
        """See Sampled."""
        self._check()
        tools, items = tools_of(self.tools), [*self._before, *self._items]
        places = ["previous_response_id"] * len(self._before)
        places += [f"input[{index}]" for index in range(len(self._items))]
        turns, at = turns_of(items, places)
        if self.instructions:
            turns, at = [{"role": "system", "content": self.instructions}, *turns], ["instructions", *at]
        if not turns:
            raise Problem(400, "input: is empty", param="input")
        messages, where = messages_of(turns, at)
        parsed = ParsedResponse.of(self, self.inputs(messages, tools), check, places=[where], echo=self.echo(tools))
        kept = json.dumps(items, separators=(",", ":")).encode() if self.store else b""
        return replace(parsed, conversation=kept, before=len(self._before), custom=tools.custom)

    def inputs(self, messages: list[Json], tools: Tools) -> Json:
        """The inputs of predict.py."""
        inputs = self.sampling(self.max_output_tokens, self.stop) | {"system_prompt": "", "messages": messages}
        if self.truncation == "auto":
            inputs["truncate"] = "oldest_turns"
        choice = tools.choice(self.tool_choice)
        return inputs | form_of(
            tools.functions,
            choice,
            self.text.format,
            parallel=self.parallel_tool_calls,
            format_field="text.format",
        )

    def echo(self, tools: Tools) -> bytes:
        """What the response repeats, as JSON without its braces."""
        echo = {
            "background": False,
            "frequency_penalty": self.frequency_penalty or 0.0,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": self.max_tool_calls,
            "metadata": tools.warned(self.metadata),
            "model": self.model,
            "parallel_tool_calls": self.parallel_tool_calls,
            "presence_penalty": self.presence_penalty or 0.0,
            "previous_response_id": self.previous_response_id,
            "prompt_cache_key": self.prompt_cache_key,
            "reasoning": {"effort": None, "summary": None, **self.reasoning},
            "safety_identifier": self.safety_identifier,
            "service_tier": "default",
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "text": {"format": self.text.format or {"type": "text"}},
            "tool_choice": self.tool_choice,
            "tools": tools.echoed,
            "top_logprobs": 0,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "truncation": self.truncation,
        }
        return json.dumps(echo, separators=(",", ":"))[1:-1].encode()

    def _check(self) -> None:
        if not self.input and not self._before:
            raise Problem(400, "input: is empty", param="input")
        if any("logprobs" in each for each in self.include):
            raise unsupported("include", "the server returns no probabilities of tokens")


@dataclass(frozen=True)
class ParsedResponse(ParsedRequest):
    """What is kept of a request, with what its response needs."""

    conversation: bytes = b""  # the items that it answers, as JSON, if it is to be kept
    before: int = 0  # how many of them are of earlier responses
    custom: frozenset[str] = frozenset()  # functions that are custom tools

    @property
    def store(self) -> bool:
        """Whether the response is to be kept."""
        return bool(self.conversation)

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return super().size + len(self.conversation)
