"""What an answer may be: text, calls of tools, or JSON of a schema. As inputs of predict.py."""

from collections.abc import Sequence
from typing import Any

from hermes.client.cog import Json
from hermes.gateway.problems import Problem, unsupported

WORDS = ("auto", "none", "required")


def form_of(
    tools: Sequence[Json],
    choice: str | Json,
    response_format: Any,
    *,
    parallel: bool = True,
    format_field: str = "response_format",
) -> Json:
    """Returns the inputs that say what an answer is. Raises Problem if the choice is none.

    Args:
        tools: that can be called.
        choice: tool_choice, as chat completions or responses have it.
        response_format: as either has it.
        parallel: whether one answer may have several calls.
        format_field: where the client sent response_format.
    """
    schema = schema_of(response_format, format_field)
    tools, chosen = _allowed_of(tools, choice)
    if chosen not in WORDS and chosen not in map(_name_of, tools):
        raise Problem(400, f"tool_choice: there is no tool {chosen!r}", param="tool_choice")
    if chosen == "required" and not tools:
        raise Problem(400, "tool_choice: asks for a call, and there are no tools to call", param="tool_choice")
    if not tools:
        return schema
    schema = schema if chosen in ("auto", "none") else {}  # what a forced call leaves no room for
    return {
        "tools": list(tools),
        "tool_choice": chosen,
        **({} if parallel else {"parallel_tool_calls": False}),
        **schema,
    }


def _allowed_of(tools: Sequence[Json], choice: str | Json) -> tuple[Sequence[Json], str]:
    """Returns the tools that a choice leaves, and the choice as a word or a name. Raises Problem if it is none."""
    if isinstance(choice, str) or choice.get("type") != "allowed_tools":
        return tools, _choice_of(choice)
    allowed = choice.get("allowed_tools", choice)
    listed = allowed.get("tools") if isinstance(allowed, dict) else None
    if not isinstance(listed, list) or (mode := allowed.get("mode", "auto")) not in ("auto", "required"):
        raise Problem(400, "tool_choice: allowed_tools has a mode, auto or required, and tools", param="tool_choice")
    names, known = set(map(_name_of, listed)), set(map(_name_of, tools)) - {None}
    if unknown := names - known:
        raise Problem(400, f"tool_choice: there is no tool {unknown.pop()!r}", param="tool_choice")
    return [tool for tool in tools if _name_of(tool) in names], mode


def _choice_of(choice: str | Json) -> str:
    """The input tool_choice: a word, or the name of the tool."""
    if isinstance(choice, str):
        return choice
    name = _name_of(choice)
    if not isinstance(name, str):
        raise unsupported("tool_choice", "has to be auto, none, required, or name one function")
    if name in WORDS:
        raise unsupported("tool_choice", f"cannot name a function {name!r}, which is a choice; give it another name")
    return name


def _name_of(tool: Any) -> str | None:
    """The name of a function as chat completions write it, or as responses do."""
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def schema_of(response_format: Any, name: str = "response_format") -> Json:
    """The input json_schema of a response_format, which the client sent as the field `name`."""
    if not isinstance(response_format, dict):
        raise unsupported(name, "has to be an object")
    match response_format.get("type") if response_format else "text":
        case "text":
            return {}
        case "json_object":
            return {"json_schema": response_format.get("schema", {"type": "object"})}
        case "json_schema":
            holder = response_format.get("json_schema", response_format)
            schema = holder.get("schema") if isinstance(holder, dict) else None
            if not isinstance(schema, dict):
                raise Problem(400, f"{name}: has no JSON schema", param=name)
            return {"json_schema": schema}
        case other:
            raise unsupported(name, f"is {other!r}; it has to be text, json_object or json_schema")
