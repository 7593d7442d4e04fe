"""A request: the inputs of one prediction, checked and frozen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from hermes.chat.chatml import ChatML
from hermes.chat.constraint import Constraint, json_constraint, parse_json_schema, tools_constraint
from hermes.chat.inputs import Inputs
from hermes.chat.messages import ROLES, Message, parse_messages
from hermes.chat.sampling import Sampling
from hermes.chat.template import check, fill, filled_size
from hermes.chat.truncation import Prompt, truncated
from hermes.errors import BadJsonSchema, BadMessages, BadSampling, BadTools, EmptyRequest, PromptTooLong, RequestError
from hermes.text import shortened, shown, surrogate_problem
from hermes.tool_calls.definitions import Function, json_within_tags, parse_functions, tools_prompt

MAX_NAMES = 300  # characters of tool names in a message

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


def parse_conversation(inputs: Inputs) -> tuple[tuple[Function, ...], tuple[Message, ...]]:
    """The tools and the turns of these inputs. Raises a RequestError: E1001, E1003 to E1006, or E1008."""
    prompt, messages = inputs["prompt"], inputs["messages"] or ()
    prompt_template = inputs["prompt_template"] or None
    if not prompt and not prompt_template and not messages:
        raise EmptyRequest
    if prompt_template:
        check(prompt_template, prompt)
    for name, text in (("prompt", prompt), ("system_prompt", inputs["system_prompt"])):
        if problem := surrogate_problem(text):
            raise BadMessages(name, problem)
    functions = parse_functions(inputs["tools"] or [])
    _check_together(inputs, functions)
    turns = parse_messages(messages, functions)
    if messages and not prompt:
        _require_question(messages)
    return functions, turns


def _check_together(inputs: Inputs, functions: Sequence[Function]) -> None:
    """Refuse inputs that contradict each other."""
    prompt_template, tool_choice, json_schema = inputs["prompt_template"], inputs["tool_choice"], inputs["json_schema"]
    if prompt_template and inputs["messages"]:
        raise BadMessages("messages", "can't go with prompt_template, which is the whole prompt; send one of them")
    if prompt_template and functions:
        raise BadTools("tools", "can't go with prompt_template, which is the whole prompt; send one of them")
    if functions and json_schema is not None:
        raise BadTools("tools", "can't go with json_schema: a response is a tool call or JSON; send one of them")
    names = [function.name for function in functions]
    if tool_choice not in ("auto", "none", "required", *names):
        raise BadTools(
            "tool_choice",
            f"is {shown(tool_choice)}; it has to be auto, none, required or one of "
            f"{shortened(', '.join(names), MAX_NAMES) or 'the tools'}",
        )
    if tool_choice == "required" and not functions:
        raise BadTools("tool_choice", "is 'required' and there are no tools to call")
    if json_schema is not None and inputs["min_tokens"]:
        raise BadSampling(
            f"min_tokens is {shown(inputs['min_tokens'])} beside json_schema; JSON ends where it is complete"
        )


def _require_question(messages: Sequence[Any]) -> None:
    """Raises BadMessages if the last of them leaves nothing to respond to."""
    if (role := ROLES[messages[-1]["role"]]) not in ("user", "tool"):
        raise BadMessages(
            f"messages[{len(messages) - 1}].role",
            f"is {role!r}, so there is nothing to respond to; end with a user turn, or send a prompt",
        )
