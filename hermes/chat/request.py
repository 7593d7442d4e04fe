"""A request: the inputs of one prediction, checked and frozen."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from hermes.chat.chatml import ChatML
from hermes.chat.constraint import Constraint, json_constraint, parse_json_schema, tools_constraint
from hermes.chat.conversation import parse_conversation
from hermes.chat.inputs import Inputs
from hermes.chat.messages import Message
from hermes.chat.sampling import Sampling
from hermes.chat.template import fill, filled_size
from hermes.chat.truncation import Prompt, truncated
from hermes.errors import BadJsonSchema, BadTools, EmptyRequest, PromptTooLong, RequestError
from hermes.tool_calls.definitions import Function, json_within_tags, tools_prompt

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
    json_schema: Mapping[str, Any] | None = None
    constraint: Constraint | None = None  # on the response
    truncate: bool = False  # drop the oldest turns of a conversation that is too long

    @classmethod
    def from_inputs(cls, **inputs: Unpack[Inputs]) -> "Request":
        """Check the inputs of a prediction. Raises a RequestError: E1001, or one of E1003 to E1008."""
        functions, turns = parse_conversation(inputs)
        constraint, json_schema = None, inputs["json_schema"]
        if json_schema is not None:
            json_schema = parse_json_schema(json_schema)
            constraint = json_constraint(json_schema)
        elif functions:
            constraint = tools_constraint(functions, inputs["tool_choice"])
        return cls(
            prompt=inputs["prompt"],
            # Cog fills in the default, so this cannot tell a client who sent it from one who did not.
            system_prompt=None if inputs["system_prompt"] == DEFAULT_SYSTEM_PROMPT else inputs["system_prompt"],
            prompt_template=inputs["prompt_template"] or None,
            sampling=Sampling.from_inputs(inputs),
            messages=turns,
            functions=functions,
            tool_choice=inputs["tool_choice"],
            json_schema=json_schema,
            constraint=constraint,
            truncate=inputs["truncate"] == "oldest_turns",
        )

    @property
    def is_plain(self) -> bool:
        """Whether it has a prompt and nothing else. Only then does the server's own template apply."""
        return not self.messages and not self.functions and self.json_schema is None

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
        if self.functions:
            trained = tools_prompt(self.functions)
        elif self.json_schema is not None:
            trained = JSON_PROMPT.replace("{schema}", json_within_tags(self.json_schema))
        else:
            return DEFAULT_SYSTEM_PROMPT if own is None else own
        return f"{own}\n\n{trained}" if own else trained

    def encode(self, chatml: ChatML, context_tokens: int) -> Prompt:
        """The prompt as token ids: the filled prompt_template if there is one, else a ChatML conversation.

        Raises:
            EmptyRequest: the filled template is empty.
            PromptTooLong: the prompt is too long by a lower bound, so it is not encoded.
        """
        if self.prompt_template:
            system_prompt = DEFAULT_SYSTEM_PROMPT if self.system_prompt is None else self.system_prompt
            parts = self.prompt_template, self.prompt, system_prompt
            self._require_room(chatml.fewest_tokens(filled_size(*parts)), context_tokens, at_least=True)
            if not (raw := fill(*parts)):
                raise EmptyRequest
            return Prompt(chatml.encode_raw(raw))
        turns = self.conversation()
        if self.truncate and self.messages:
            return truncated(turns, chatml, context_tokens, self.sampling.max_tokens)
        self._require_room(sum(map(chatml.fewest_tokens_of_turn, turns)), context_tokens, at_least=True)
        return Prompt(chatml.encode(turns))

    def refused(self, problem: str) -> RequestError:
        """The error of the input that asked for a grammar which cannot be used."""
        return BadTools("tools", problem) if self.functions else BadJsonSchema(problem)

    def fitted(self, prompt_tokens: int, context_tokens: int) -> Sampling:
        """The sampling values after a prompt of that many tokens.

        Raises PromptTooLong if the context has no room for one more token.
        """
        self._require_room(prompt_tokens, context_tokens)
        return self.sampling.fitted(prompt_tokens, context_tokens)

    def _require_room(self, prompt_tokens: int, context_tokens: int, *, at_least: bool = False) -> None:
        if prompt_tokens >= context_tokens:
            truncate = self.truncate if self.messages else None
            raise PromptTooLong(
                prompt_tokens, self.sampling.max_tokens, context_tokens, at_least=at_least, truncate=truncate
            )
