"""The grammar that a response must follow: text in which each tool call is valid, or JSON of a schema.

Source of the format: llguidance's variant of Lark
(https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hermes.errors import BadJsonSchema
from hermes.json_schema.grammar import Enforceable, enforceable
from hermes.json_schema.limits import SchemaProblem
from hermes.json_schema.shapes import plain_schema
from hermes.tool_calls.definitions import Function, of_parameters
from hermes.tool_calls.parser import TRAINED, TRAINED_END

CALL_TAGS = OPEN, CLOSE = TRAINED, TRAINED_END
# At most one white space, after a comma or colon: a small model writes it without end.
SPACES = {"whitespace_flexible": False, "item_separator": r",[ \n]?", "key_separator": r":[ \n]?"}

NO_CALL = rf"""start: TEXT
TEXT: /(?s:.*)/ & ~/(?s:.*){OPEN}(?s:.*)/
"""
# A lazy lexeme ends with the tag. There a call begins, and it must be valid.
CALLS = rf"""
call: "\n" arguments "\n" close
text_until_open[lazy]: TEXT "{OPEN}"
TEXT: /(.|\n)*/
"""


@dataclass(frozen=True)
class Constraint:
    """A grammar for the response."""

    grammar: str
    unenforced: Mapping[str, Sequence[str]]  # paths that the grammar leaves out, by tool name or json_schema

    def lark(self, tag_tokens: Mapping[str, int]) -> str:
        """The whole grammar. `tag_tokens` has the ids of tags that are special tokens of the model."""
        if not self.grammar.endswith(CALLS):
            return self.grammar
        tokens = {tag: f"<[{token_id}]>" for tag, token_id in tag_tokens.items()}
        spelled = {tag: f'"{tag}" | {tokens[tag]}' if tag in tokens else f'"{tag}"' for tag in CALL_TAGS}
        text_open = f"text_until_open | TEXT {tokens[OPEN]}" if OPEN in tokens else "text_until_open"
        return f"{self.grammar}open: {spelled[OPEN]}\nclose: {spelled[CLOSE]}\ntext_open: {text_open}\n"


def json_constraint(schema: Mapping[str, Any]) -> Constraint:
    """A grammar that allows only JSON of the schema. Raises BadJsonSchema if the schema makes no grammar."""
    try:
        enforced = enforceable(schema)
    except SchemaProblem as problem:
        raise BadJsonSchema(str(problem)) from problem
    return Constraint(f"start: {_json(enforced.schema)}\n", {"json_schema": enforced.unenforced})


def parse_json_schema(given: Any) -> dict[str, Any]:
    """The schema that a client means, see `plain_schema`. Raises BadJsonSchema if the value is not a schema."""
    try:
        return plain_schema(given)
    except SchemaProblem as problem:
        raise BadJsonSchema(str(problem)) from problem


def tools_constraint(functions: Sequence[Function], tool_choice: str) -> Constraint:
    """A grammar that allows free text, and in it only valid tool calls.

    Args:
        functions: what the model may call.
        tool_choice: "auto", "none" (no call may begin), "required" (the response begins with a call), or the name of
            a function (the response begins with a call of it, and no other function can be called).

    Raises:
        BadTools: the schema of a function's arguments makes no grammar.
    """
    if tool_choice == "none":
        return Constraint(NO_CALL, {})
    chosen = [function for function in functions if tool_choice in ("auto", "required", function.name)]
    enforced = {function.name: of_parameters(function, enforceable) for function in chosen}
    start = "start: " if tool_choice == "auto" else "start: open call "
    calls = "\n     | ".join(_call(name, arguments) for name, arguments in enforced.items())
    return Constraint(
        f"{start}(text_open call)* text\ntext: TEXT\narguments: {calls}{CALLS}",
        {name: arguments.unenforced for name, arguments in enforced.items()},
    )


def _call(name: str, arguments: Enforceable) -> str:
    schema = dict(arguments.schema)
    return _json(
        {
            "type": "object",
            "properties": {"arguments": schema, "name": {"const": name}},
            "required": ["arguments", "name"],
            "additionalProperties": False,
            "$defs": schema.pop("$defs", {}),  # references count from the root
        }
    )


def _json(schema: Mapping[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': SPACES})}"
