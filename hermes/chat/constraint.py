"""The grammar that a response must follow: text in which each tool call is valid, calls alone, or JSON of a schema.

Source of the format: llguidance's variant of Lark
(https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md).
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from hermes.errors import BadJsonSchema
from hermes.json_schema.grammar import Enforceable, enforceable
from hermes.json_schema.lark import LarkRules
from hermes.json_schema.limits import SchemaProblem
from hermes.json_schema.repair import FREE, Budget, enforceable_part
from hermes.json_schema.shapes import plain_schema
from hermes.tool_calls.definitions import Function
from hermes.tool_calls.parser import TRAINED, TRAINED_END

CALL_TAGS = OPEN, CLOSE = TRAINED, TRAINED_END

# Where one text is possible only, llguidance forces its usual tokens. If the text spells a special token, such as the
# const "<|im_end|>", it forces that one and then rejects it. Without forcing, a response has some more tokens.
NO_FORCING = '%llguidance {"no_forcing": true}\n'
NO_LETTER = re.compile(r"\{[0-9,]*\}|\\+x[0-9a-f]{2}|[^0-9A-Za-z]")  # a quantifier or an escape of a pattern, or other

NO_CALL = rf"""response: text
TEXT: /(?s:.*)/ & ~/(?s:.*){OPEN}(?s:.*)/
"""
MANY_CALLS, ONE_CALL = "(text_open call)* text", "text | text_open call"
# Calls alone end the response. A small model that may write any number of them does so, all alike.
MORE_CALLS = 3
# A lazy lexeme ends with the tag. There a call begins, and it must be valid.
CALLS = rf"""
call: "\n" arguments "\n" close
text_until_open[lazy]: TEXT "{OPEN}"
TEXT: /(.|\n)*/
"""


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens of a model that a response may have. A grammar has to name each of them by its id."""

    tags: Mapping[str, int] = field(default_factory=dict)  # those of CALL_TAGS
    visible: Sequence[int] = ()  # special to llguidance only: transformers shows them as text
    ends: Sequence[int] = ()  # of a response, beside the tokenizer's own end token
    texts: Sequence[str] = ()  # of all special tokens

    def may_be_spelled_in(self, grammar: str) -> bool:
        """Whether a text of the grammar has one of them in it, or a pattern may spell one piece by piece."""
        if any(each in grammar for each in self._written):
            return True
        if '"pattern' not in grammar:
            return False
        letters = _letters(grammar)
        return any(each in letters for each in self._spelled)

    @cached_property
    def _written(self) -> tuple[str, ...]:
        once = [json.dumps(text)[1:-1] for text in self.texts]  # within %json, and a key's text in Lark
        return tuple(dict.fromkeys([*once, *(_twice(text) for text in self.texts)]))

    @cached_property
    def _spelled(self) -> frozenset[str]:
        return frozenset(map(_letters, self._written))


@dataclass(frozen=True)
class Constraint:
    """A grammar for the response."""

    grammar: str  # of the rule `response`; its rule `text` is free text
    arguments: Mapping[str, Enforceable] = field(default_factory=dict, repr=False)  # of the tools that can be called
    document: Enforceable | None = field(default=None, repr=False)  # json_schema
    calling: str = ""  # the part of `response` that is no document

    @property
    def tools_unenforced(self) -> dict[str, Sequence[str]]:
        """The paths that the grammar leaves out, by tool."""
        return {name: enforced.unenforced for name, enforced in self.arguments.items()}

    @property
    def json_unenforced(self) -> Sequence[str]:
        """The paths of json_schema that the grammar leaves out."""
        return self.document.unenforced if self.document else ()

    def freed(self, names: Iterable[str]) -> "Constraint":
        """The same constraint, but for any object as the arguments of these tools."""
        return _calling(self.calling, {**self.arguments, **dict.fromkeys(names, FREE)}, self.document)

    def alone(self, name: str) -> "Constraint":
        """One call of this tool."""
        return _calling(_calls_alone(False), {name: self.arguments[name]})

    def lark(self, tokens: SpecialTokens) -> str:
        """The whole grammar, for a model with these special tokens."""
        option = NO_FORCING if tokens.may_be_spelled_in(self.grammar.removesuffix(CALLS)) else ""
        rules = [f"start: response {_any_of(tokens.ends)}?" if tokens.ends else "start: response"]
        before = f"(TEXT {_any_of(tokens.visible)})* " if tokens.visible else ""
        if self.grammar.endswith((NO_CALL, CALLS)):
            rules.append(f"text: {before}TEXT")
        if self.grammar.endswith(CALLS):
            opening, closing = ([_any_of([tokens.tags[tag]])] if tag in tokens.tags else [] for tag in CALL_TAGS)
            rules.append(" | ".join([f'open: "{OPEN}"', *opening]))
            rules.append(" | ".join([f'close: "{CLOSE}"', *closing]))
            until_open = ["text_until_open", *(f"TEXT {tag}" for tag in opening)]
            rules.append("text_open: " + " | ".join(f"{before}{each}" for each in until_open))
        return option + "\n".join([*rules, self.grammar])


def _twice(text: str) -> str:
    return json.dumps(json.dumps(text, ensure_ascii=False)[1:-1])[1:-1]


def _letters(written: str) -> str:
    """The letters and digits of JSON. A pattern may put punctuation of its own between those of a text."""
    return NO_LETTER.sub("", written)


def _any_of(token_ids: Iterable[int]) -> str:
    """One of these tokens, in llguidance's syntax."""
    return f"<[{','.join(map(str, token_ids))}]>"


def json_constraint(schema: Mapping[str, Any]) -> Constraint:
    """A grammar that allows only JSON of the schema. Raises BadJsonSchema if the schema makes no grammar."""
    enforced, rules = _enforced(schema), LarkRules()
    return Constraint(f"response: {rules.json(enforced.schema)}{rules.text()}\n", document=enforced)


def _enforced(schema: Mapping[str, Any]) -> Enforceable:
    try:
        return enforceable(schema)
    except SchemaProblem as problem:
        raise BadJsonSchema(str(problem)) from problem


def parse_json_schema(given: Any) -> dict[str, Any]:
    """The schema that a client means, see `plain_schema`. Raises BadJsonSchema if the value is not a schema."""
    try:
        return plain_schema(given)
    except SchemaProblem as problem:
        raise BadJsonSchema(str(problem)) from problem


def tools_constraint(functions: Sequence[Function], tool_choice: str, *, parallel: bool = True) -> Constraint:
    """A grammar that allows free text, and in it only valid tool calls; or, where a call has to be, only calls.

    Args:
        functions: what the model may call.
        tool_choice: "auto", "none" (no call may begin), "required" (calls alone), or the name of a function (one call
            of it alone).
        parallel: whether there may be more than one call. After a single one, the response ends.
    """
    if tool_choice == "none":
        return Constraint(NO_CALL)
    chosen = [function for function in functions if tool_choice in ("auto", "required", function.name)]
    response = _calls_alone(parallel and tool_choice == "required")
    if tool_choice == "auto":
        response = MANY_CALLS if parallel else ONE_CALL
    return _calling(response, _arguments(chosen))


def calls_or_json_constraint(
    functions: Sequence[Function], schema: Mapping[str, Any], *, parallel: bool = True
) -> Constraint:
    """A grammar that allows calls alone, or JSON of the schema; the first character shows which.

    Text before a call would make it no grammar at all: any text may come before a call.

    Raises BadJsonSchema if `schema` makes no grammar.
    """
    return _calling(_calls_alone(parallel), _arguments(functions), _enforced(schema))


def _calls_alone(several: bool) -> str:
    return f'open call ("\\n" open call){{0,{MORE_CALLS}}}' if several else "open call"


def _calling(calling: str, arguments: Mapping[str, Enforceable], document: Enforceable | None = None) -> Constraint:
    rules = LarkRules()
    response = f"{calling} | {rules.json(document.schema)}" if document else calling
    calls = "\n     | ".join(rules.json(_call(*each)) for each in arguments.items())
    grammar = f"response: {response}\narguments: {calls}{rules.text()}{CALLS}"
    return Constraint(grammar, arguments, document, calling)


def _arguments(functions: Iterable[Function]) -> dict[str, Enforceable]:
    budget = Budget()
    return {function.name: _of_one(function, budget) for function in functions}


def _of_one(function: Function, budget: Budget) -> Enforceable:
    enforced = enforceable_part(function.parameters, budget)
    return enforced if enforced is FREE else replace(enforced, unenforced=(*function.unread, *enforced.unenforced))


def _call(name: str, arguments: Enforceable) -> dict[str, Any]:
    schema = dict(arguments.schema)
    return {
        "type": "object",
        "properties": {"arguments": schema, "name": {"const": name}},
        "required": ["arguments", "name"],
        "additionalProperties": False,
        "$defs": schema.pop("$defs", {}),  # references count from the root
    }
