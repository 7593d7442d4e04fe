"""A request: the inputs of one prediction, checked and frozen."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hermes.chat.chatml import ChatML
from hermes.chat.constraint import Constraint, json_constraint, parse_json_schema, tools_constraint
from hermes.chat.messages import ROLES, Message, parse_messages
from hermes.chat.template import check, fill, filled_size
from hermes.chat.truncation import Prompt, truncated
from hermes.errors import BadMessages, BadSampling, BadTools, EmptyRequest, PromptTooLong
from hermes.text import shortened, shown, surrogate_problem
from hermes.tool_calls.definitions import Function, json_within_tags, parse_functions, tools_prompt

MAX_DRAWN_SEED = 2**31 - 1  # the most that `cog run -i` takes, so that each one that is reported can be sent again
MAX_NUMBER = 2**53  # of any sampling value, either way
MAX_STOPS = 256  # each is looked for after each token, while others stream
MAX_STOP = 1_000  # characters of one: the engine holds back as much text
MAX_NAMES = 300  # characters of tool names in a message

DEFAULT_SYSTEM_PROMPT = "You are a helpful assistant."

# Source: the model card of NousResearch/Hermes-2-Theta-Llama-3-70B.
JSON_PROMPT = """\
You are a helpful assistant that answers in JSON. Here's the json schema you must adhere to:
<schema>
{schema}
</schema>"""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn and when generation stops. Names and meanings are vLLM's SamplingParams.

    Raises:
        BadSampling: a value is out of its range, or two contradict each other.
    """

    seed: int
    min_tokens: int = 0
    max_tokens: int = 512
    temperature: float = 0.6
    top_p: float = 0.9
    top_k: int = 50  # 0 or -1: all tokens
    min_p: float = 0.0  # 0: all tokens
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0  # 1: none
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("seed", "min_tokens", "max_tokens", "top_k"):
            value = getattr(self, name)
            if isinstance(value, float) and value.is_integer():  # JSON has one kind of number: 1.0 is an integer
                object.__setattr__(self, name, int(value))
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:  # NaN is not, either
                raise BadSampling(f"{name} is {shown(value)}; it must be a number of at most {MAX_NUMBER} either way")
        if self.max_tokens < 1:
            raise BadSampling(f"max_tokens is {self.max_tokens}; ask for at least 1")
        if not 0 <= self.min_tokens <= self.max_tokens:
            raise BadSampling(f"min_tokens is {self.min_tokens}; it must be from 0 to max_tokens, {self.max_tokens}")
        if not 0 < self.top_p <= 1:
            raise BadSampling(f"top_p is {self.top_p}; it must be above 0 and at most 1 (for greedy: temperature 0)")

    def fitted(self, prompt_tokens: int, context_tokens: int) -> "Sampling":
        """These values with as many tokens to generate as the model's context still takes after the prompt."""
        room = context_tokens - prompt_tokens
        return replace(self, max_tokens=min(self.max_tokens, room), min_tokens=min(self.min_tokens, room))


@dataclass(frozen=True)
class Request:
    """What to answer, and how."""

    prompt: str
    system_prompt: str
    prompt_template: str | None
    sampling: Sampling
    messages: tuple[Message, ...] = ()  # the turns before the prompt
    functions: tuple[Function, ...] = ()
    tool_choice: str = "auto"
    json_schema: Mapping[str, Any] | None = None
    constraint: Constraint | None = None  # on the answer
    truncate: bool = False  # drop the oldest turns of a conversation that is too long

    @classmethod
    def from_inputs(
        cls,
        *,
        prompt: str,
        system_prompt: str,
        prompt_template: str | None,
        stop_sequences: str | None,
        seed: int | None,
        messages: Sequence[Any] | None = None,
        tools: Sequence[Any] | None = None,
        tool_choice: str = "auto",
        json_schema: Mapping[str, Any] | None = None,
        truncate: str = "error",
        **sampling: Any,
    ) -> "Request":
        """Check the inputs of a prediction. A seed of None draws one; 0 is a seed.

        `sampling` are the other fields of Sampling, by name.

        Raises:
            RequestError: E1001 and E1003 to E1008, see hermes.errors.
        """
        if not prompt and not prompt_template and not messages:
            raise EmptyRequest
        if prompt_template:
            check(prompt_template, prompt)
        for name, text in (("prompt", prompt), ("system_prompt", system_prompt)):
            if problem := surrogate_problem(text):
                raise BadMessages(name, problem)
        functions = parse_functions(tools or [])
        _check_together(prompt_template, messages, functions, tool_choice, json_schema, sampling)
        turns = parse_messages(messages or [], functions)
        if messages and not prompt and (role := ROLES[messages[-1]["role"]]) not in ("user", "tool"):
            raise BadMessages(
                f"messages[{len(messages) - 1}].role",
                f"is {role!r}, so there is nothing to answer; end with a user turn, or send a prompt",
            )
        constraint = None
        if json_schema is not None:
            json_schema = parse_json_schema(json_schema)
            constraint = json_constraint(json_schema)
        elif functions:
            constraint = tools_constraint(functions, tool_choice)
        return cls(
            prompt,
            system_prompt,
            prompt_template or None,
            Sampling(
                seed=random.randint(0, MAX_DRAWN_SEED) if seed is None else seed,
                stop=split_stop_sequences(stop_sequences),
                **sampling,
            ),
            turns,
            functions,
            tool_choice,
            json_schema,
            constraint,
            truncate == "oldest_turns",
        )

    @property
    def is_plain(self) -> bool:
        """Whether it is one prompt and nothing else, which a template of the model may render."""
        return not self.messages and not self.functions and self.json_schema is None

    def conversation(self) -> list[Message]:
        """All turns, as the model reads them. A system turn in messages wins over system_prompt."""
        turns = list(self.messages)
        own = self.system_prompt
        if turns and turns[0].role == "system":
            own = turns.pop(0).content
        if system := self._system_text(own):
            turns.insert(0, Message("system", system))
        return turns + ([Message("user", self.prompt)] if self.prompt else [])

    def _system_text(self, own: str) -> str:
        """The caller's own text, then what the model was trained to read where it calls tools or answers in JSON.

        That text takes the place of the default prompt: in training nothing stood before it.
        """
        if self.functions:
            trained = tools_prompt(self.functions)
        elif self.json_schema is not None:
            trained = JSON_PROMPT.replace("{schema}", json_within_tags(self.json_schema))
        else:
            return own
        return trained if own in ("", DEFAULT_SYSTEM_PROMPT) else f"{own}\n\n{trained}"

    def encode(self, chatml: ChatML, context_tokens: int) -> Prompt:
        """The prompt as token ids: the caller's raw template if there is one, else a ChatML conversation.

        Raises:
            EmptyRequest: the template, filled, is empty.
            PromptTooLong: it is so long that it need not be encoded to know that it can't fit.
        """
        if self.prompt_template:
            parts = self.prompt_template, self.prompt, self.system_prompt
            self._require_room(chatml.fewest_tokens(filled_size(*parts)), context_tokens, at_least=True)
            if not (raw := fill(*parts)):
                raise EmptyRequest
            return Prompt(chatml.encode_raw(raw))
        turns = self.conversation()
        if self.truncate and self.messages:
            return truncated(turns, chatml, context_tokens, self.sampling.max_tokens)
        self._require_room(sum(map(chatml.fewest_tokens_of_turn, turns)), context_tokens, at_least=True)
        return Prompt(chatml.encode(turns))

    def fitted(self, prompt_tokens: int, context_tokens: int) -> Sampling:
        """How to sample after a prompt of so many tokens.

        Raises:
            PromptTooLong: not even one token fits.
        """
        self._require_room(prompt_tokens, context_tokens)
        return self.sampling.fitted(prompt_tokens, context_tokens)

    def _require_room(self, prompt_tokens: int, context_tokens: int, *, at_least: bool = False) -> None:
        if prompt_tokens >= context_tokens:
            truncate = self.truncate if self.messages else None
            raise PromptTooLong(
                prompt_tokens, self.sampling.max_tokens, context_tokens, at_least=at_least, truncate=truncate
            )


def _check_together(
    prompt_template: str | None,
    messages: Sequence[Any] | None,
    functions: Sequence[Function],
    tool_choice: str,
    json_schema: Mapping[str, Any] | None,
    sampling: Mapping[str, Any],
) -> None:
    """Refuse inputs that can't be meant together."""
    if prompt_template and messages:
        raise BadMessages("messages", "can't go with prompt_template, which is the whole prompt; send one of them")
    if prompt_template and functions:
        raise BadTools("tools", "can't go with prompt_template, which is the whole prompt; send one of them")
    if functions and json_schema is not None:
        raise BadTools("tools", "can't go with json_schema: an answer is a tool call or JSON; send one of them")
    names = [function.name for function in functions]
    if tool_choice not in ("auto", "none", "required", *names):
        raise BadTools(
            "tool_choice",
            f"is {shown(tool_choice)}; it has to be auto, none, required or one of "
            f"{shortened(', '.join(names), MAX_NAMES) or 'the tools'}",
        )
    if tool_choice == "required" and not functions:
        raise BadTools("tool_choice", "is 'required' and there are no tools to call")
    if json_schema is not None and sampling.get("min_tokens"):
        raise BadSampling(
            f"min_tokens is {shown(sampling['min_tokens'])} beside json_schema; JSON ends where it is complete"
        )


def split_stop_sequences(comma_separated: str | None) -> tuple[str, ...]:
    """The stop strings, spaces kept and empty ones dropped.

    Raises:
        BadSampling: there are too many, one is too long, or there is a lone surrogate.
    """
    if problem := surrogate_problem(comma_separated or ""):
        raise BadSampling(f"stop_sequences {problem}")
    stops = tuple(stop for stop in (comma_separated or "").split(",") if stop)
    if len(stops) > MAX_STOPS:
        raise BadSampling(f"stop_sequences has {len(stops)} texts; at most {MAX_STOPS}")
    if (longest := max(map(len, stops), default=0)) > MAX_STOP:
        raise BadSampling(f"stop_sequences has a text of {longest} characters; at most {MAX_STOP}")
    return stops
