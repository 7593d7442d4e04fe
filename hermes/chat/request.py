"""A request: the inputs of one prediction, checked and frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Unpack

from hermes.chat.chatml import ChatML
from hermes.chat.constraint import (
    Constraint,
    calls_or_json_constraint,
    json_constraint,
    parse_json_schema,
    tools_constraint,
)
from hermes.chat.conversation import parse_conversation
from hermes.chat.inputs import Inputs
from hermes.chat.messages import Message
from hermes.chat.sampling import Sampling
from hermes.chat.template import fill, filled_size
from hermes.chat.truncation import Prompt, truncated
from hermes.errors import BadJsonSchema, BadMessages, BadTools, EmptyRequest, PromptTooLong, RequestError
from hermes.text import shown
from hermes.tool_calls.definitions import Function, json_within_tags, tools_prompt

MOST_COUNTED = 16_384  # tokens of a prompt that is only counted, if the context is shorter: 3 MB are encoded at most
DEFAULT_SYSTEM_PROMPT = "You are a helpful assistant."

# Source: the model card of NousResearch/Hermes-2-Theta-Llama-3-70B.
JSON_PROMPT = """\
You are a helpful assistant that answers in JSON. Here's the json schema you must adhere to:
<schema>
{schema}
</schema>"""


@dataclass(frozen=True)
class Request:
    """The conversation to respond to, and how. Made by `from_inputs`."""

    prompt: str
    system_prompt: str | None  # None: the default
    prompt_template: str | None
    sampling: Sampling
    messages: tuple[Message, ...] = ()  # the turns before the prompt
    functions: tuple[Function, ...] = ()
    tool_choice: str = "auto"
    json_schema: Mapping[str, Any] | None = None  # of the response, unless it is a call
    constraint: Constraint | None = None  # on the response
    truncate: bool = False  # drop the oldest turns of a conversation that is too long
    continues: bool = False  # the response goes on with the last turn
    prompt_token_ids: tuple[Any, ...] = ()  # the whole prompt

    @classmethod
    def from_inputs(cls, **inputs: Unpack[Inputs]) -> "Request":
        """Check the inputs of a prediction. Raises a RequestError: E1001, or one of E1003 to E1008."""
        functions, turns = parse_conversation(inputs)
        constraint, json_schema = None, inputs["json_schema"]
        choice, parallel = inputs["tool_choice"], inputs["parallel_tool_calls"]
        if json_schema is not None:
            json_schema = parse_json_schema(json_schema)
        if functions and choice not in ("auto", "none"):
            json_schema = None  # the response is a call
        if json_schema is not None and functions and choice == "auto":
            constraint = calls_or_json_constraint(functions, json_schema, parallel=parallel)
        elif json_schema is not None:
            constraint = json_constraint(json_schema)
        elif functions:
            constraint = tools_constraint(functions, choice, parallel=parallel)
        return cls(
            prompt=inputs["prompt"],
            # Cog fills in the default, so this cannot tell a client who sent it from one who did not.
            system_prompt=None if inputs["system_prompt"] == DEFAULT_SYSTEM_PROMPT else inputs["system_prompt"],
            prompt_template=inputs["prompt_template"] or None,
            sampling=Sampling.from_inputs(inputs),
            messages=turns,
            functions=functions,
            tool_choice=choice,
            json_schema=json_schema,
            constraint=constraint,
            truncate=inputs["truncate"] == "oldest_turns",
            continues=inputs["continue_final_message"],
            prompt_token_ids=tuple(inputs["prompt_token_ids"] or ()),
        )

    @property
    def is_plain(self) -> bool:
        """Whether it has a prompt and nothing else. Only then does the server's own template apply."""
        return bool(self.prompt) and not self.messages and not self.functions and self.json_schema is None

    @property
    def may_call(self) -> bool:
        """Whether the response may hold calls."""
        return bool(self.functions) and self.tool_choice != "none"

    def conversation(self) -> list[Message]:
        """All turns, as the model reads them. A system turn in messages wins over system_prompt."""
        turns = list(self.messages)
        own = turns.pop(0).content if turns and turns[0].role == "system" else self.system_prompt
        if system := self._system_text(own):
            turns.insert(0, Message("system", system))
        return turns + ([Message("user", self.prompt)] if self.prompt else [])

    def _system_text(self, own: str | None) -> str:
        """The client's own text, then the text that the model was trained to read before tools or a JSON schema.

        In training, nothing stood before that text. So it takes the place of the default prompt.
        """
        trained = [tools_prompt(self.functions)] if self.functions else []
        if self.json_schema is not None:
            trained.append(JSON_PROMPT.replace("{schema}", json_within_tags(self.json_schema)))
        if not trained:
            return DEFAULT_SYSTEM_PROMPT if own is None else own
        return "\n\n".join([own, *trained] if own else trained)

    def encode(self, chatml: ChatML, context_tokens: int) -> Prompt:
        """The prompt as token ids: those that were sent, else the filled prompt_template, else a ChatML conversation.

        Raises:
            BadMessages: the model has no such token.
            EmptyRequest: the filled template is empty.
            PromptTooLong: the prompt is too long by a lower bound, so it is not encoded.
        """
        if self.prompt_token_ids:
            self._require_room(len(self.prompt_token_ids), context_tokens)
            return Prompt([_token_id(each, index, chatml) for index, each in enumerate(self.prompt_token_ids)])
        if self.prompt_template:
            system_prompt = DEFAULT_SYSTEM_PROMPT if self.system_prompt is None else self.system_prompt
            parts = self.prompt_template, self.prompt, system_prompt
            self._require_room(chatml.fewest_tokens(filled_size(*parts)), context_tokens, at_least=True)
            if not (raw := fill(*parts)):
                raise EmptyRequest
            ids = chatml.encode_raw(raw)
            bos = chatml.missing_bos(ids)
            return Prompt([*bos, *ids], bos=len(bos))
        turns = self.conversation()
        begun = turns.pop().content if self.continues else ""
        if self.truncate and self.messages and not self.only_counts:
            return truncated(turns, chatml, context_tokens, self.sampling.max_tokens, begun)
        self._require_room(chatml.fewest_tokens_of(turns, begun), context_tokens, at_least=True)
        return Prompt(chatml.encode(turns, begun), bos=len(chatml.bos_ids))

    @property
    def only_counts(self) -> bool:
        """Whether the client wants only the tokens of the prompt."""
        return not self.sampling.max_tokens

    def refused(self, problem: str) -> RequestError:
        """The error of the input that asked for a grammar which cannot be used."""
        if self.json_schema is None:
            return BadTools("tools", problem)
        return BadTools("tools beside json_schema:", problem) if self.may_call else BadJsonSchema(problem)

    def fitted(self, prompt_tokens: int, context_tokens: int) -> Sampling:
        """The sampling values for the engine, after a prompt of that many tokens. JSON and calls stop by themselves.

        Raises PromptTooLong if the context has no room for one more token, or the prompt is too long to be counted.
        """
        self._require_room(prompt_tokens, context_tokens)
        sampling = self.sampling if self._is_free_text else replace(self.sampling, stop=())
        return sampling if self.only_counts else sampling.fitted(prompt_tokens, context_tokens)

    @property
    def stop_outside_calls(self) -> tuple[str, ...]:
        """Stop strings that end free text with calls. The engine must not look for them: it would cut a call."""
        free_with_calls = self.may_call and self.tool_choice == "auto" and self.json_schema is None
        return self.sampling.stop if free_with_calls else ()

    @property
    def _is_free_text(self) -> bool:
        return self.json_schema is None and not self.may_call

    def _require_room(self, prompt_tokens: int, context_tokens: int, *, at_least: bool = False) -> None:
        most = max(context_tokens, MOST_COUNTED) if self.only_counts else context_tokens
        if prompt_tokens >= most:
            truncate = self.truncate if self.messages and not self.only_counts else None
            raise PromptTooLong(prompt_tokens, self.sampling.max_tokens, most, at_least=at_least, truncate=truncate)


def _token_id(given: Any, index: int, chatml: ChatML) -> int:
    """A token id of the client's. Raises BadMessages if the model has no such token: the engine would die of it."""
    whole = not isinstance(given, bool) and isinstance(given, int | float) and given == given // 1  # as JSON has it
    if not whole or chatml.token(int(given)) is None:
        problem = f"is {shown(given)}; it has to be the id of a token that the model has"
        raise BadMessages(f"prompt_token_ids[{index}]", problem)
    return int(given)
