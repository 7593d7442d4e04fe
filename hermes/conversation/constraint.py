"""What an answer may be, as a structural tag for the engine's grammar: a valid tool call, or JSON of a schema.

Source of the format: xgrammar 0.2 (https://xgrammar.mlc.ai/docs/tutorials/structural_tag.html).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hermes.conversation.functions import Function
from hermes.conversation.schema import narrowed
from hermes.conversation.schema_limits import SchemaProblem
from hermes.conversation.schema_shapes import plain_schema
from hermes.errors import BadJsonSchema, BadTools, CallerError

WHITE_SPACE = 1  # most in a row between two parts of JSON; a small model writes it without end


@dataclass(frozen=True)
class Constraint:
    """A grammar for the answer, and which input asked for it."""

    structural_tag: str
    source: Literal["tools", "json_schema"]

    def refused(self, problem: str) -> CallerError:
        """The error of the input that asked for this grammar."""
        return BadJsonSchema(problem) if self.source == "json_schema" else BadTools("tools", problem)


def json_constraint(schema: Mapping[str, Any]) -> Constraint:
    """Only JSON that satisfies the schema.

    Raises:
        BadJsonSchema: no grammar can make sure of it.
    """
    try:
        return _constraint("json_schema", _json(narrowed(schema)))
    except SchemaProblem as problem:
        raise BadJsonSchema(str(problem)) from problem


def parse_json_schema(given: Any) -> dict[str, Any]:
    """The schema that a caller means, see `plain_schema`.

    Raises:
        BadJsonSchema: it is none.
    """
    try:
        return plain_schema(given)
    except SchemaProblem as problem:
        raise BadJsonSchema(str(problem)) from problem


def tools_constraint(functions: Sequence[Function], tool_choice: str) -> Constraint:
    """Free text in which a tool call, where one begins, is valid.

    Args:
        tool_choice: "auto", "none" (no call may begin), "required" (begins with a call) or the name of the function
            to call (begins with a call of that function, the only one that can be called).

    Raises:
        BadTools: no grammar can make sure that arguments satisfy the schema of a function.
    """
    if tool_choice == "none":
        return _constraint("tools", {"type": "any_text", "excludes": ["<tool_call>"]})
    tags = [_call_tag(function) for function in functions if tool_choice in ("auto", "required", function.name)]
    return _constraint(
        "tools",
        {
            "type": "triggered_tags",
            "triggers": ["<tool_call>"],
            "tags": tags,
            "at_least_one": tool_choice != "auto",
        },
    )


def _call_tag(function: Function) -> dict[str, Any]:
    try:
        arguments = narrowed(function.parameters)
    except SchemaProblem as problem:
        raise BadTools(f"the parameters of {function.name!r},", str(problem)) from problem
    call = {
        "type": "object",
        "properties": {"arguments": arguments, "name": {"enum": [function.name]}},
        "required": ["arguments", "name"],
        "additionalProperties": False,
        "$defs": arguments.pop("$defs", {}),  # references count from the root
    }
    return {"type": "tag", "begin": "<tool_call>\n", "content": _json(call), "end": "\n</tool_call>"}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": WHITE_SPACE}


def _constraint(source: Literal["tools", "json_schema"], content: dict[str, Any]) -> Constraint:
    return Constraint(json.dumps({"type": "structural_tag", "format": content}), source)
