"""Whether an object that the model wrote is a tool call that can be run.

A good call names one of the tools and has arguments that satisfy its schema. Any other call is a bad one.
"""

import re
from collections.abc import Mapping
from typing import Any

from hermes.json_schema.validate import Validator
from hermes.text import shortened, shown
from hermes.tool_calls.call import BadToolCall, Found, ToolCall
from hermes.tool_calls.literal import parse

MAX_TEXT = 200  # characters of a bad call that are kept
MAX_NAME = 128
MAX_PROBLEM = 300


Tools = Mapping[str, Validator]

NAME = re.compile(r"""["']name["']\s*+:\s*+(?:"([^"]{1,128})"|'([^']{1,128})')""")
CALL_BEGINS = re.compile(r"""\{\s*+["'](?:name|arguments|parameters|type|function)["']""")


def judged(
    text: str, written: str, tools: Tools, *, function: str | None, in_tag: bool, in_trained_tag: bool
) -> Found | None:
    """What an object is: a call, a bad call, or None if it is not meant as a call.

    Args:
        text: the object.
        written: the object as the model wrote it, for a bad call.
        tools: a validator of arguments for the name of each tool.
        function: NAME of the tag <function=NAME>.
        in_tag: whether it stands in a tag for calls.
        in_trained_tag: whether that tag is <tool_call>. The others occur in prose, too.
    """
    try:
        value = _parse(text, "this")
        if function and (value.get("name") != function or "arguments" not in value):
            value = {"name": function, "arguments": value}
        call = _unwrapped(value, tools)
        if _is_signature(call) and not in_trained_tag:
            return None
        name, arguments = _name_and_arguments(call, tools)
    except ValueError as error:
        return bad(written, str(error), seen_name(written, tools)) if in_tag else None
    if not in_tag and (name not in tools or arguments is None):
        return None
    problem = _problem(name, arguments, tools)
    return bad(written, problem, name) if problem else ToolCall(name, {} if arguments is None else arguments)


def seen_name(text: str, tools: Tools) -> str | None:
    """The first tool that a text names. The text may be broken JSON."""
    names = (name[1] or name[2] for name in NAME.finditer(text))
    return next((name for name in names if name in tools), None)


def bad(text: str, problem: str, name: str | None = None) -> BadToolCall:
    """A bad call. Its texts are cut to their limits."""
    kept = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."
    return BadToolCall(kept, shortened(problem, MAX_PROBLEM), name and name[:MAX_NAME])


def _parse(text: str, what: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{what} is not JSON: {error}") from error


def is_json(text: str) -> bool:
    """Whether `literal.parse` can read the text."""
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _unwrapped(value: dict[str, Any], tools: Tools) -> dict[str, Any]:
    """The object that names the tool. OpenAI's calls have it in `function`; some models write it in `arguments`."""
    function, arguments = value.get("function"), value.get("arguments")
    if isinstance(function, dict) and not value.keys() & {"name", "arguments", "parameters"}:
        return function
    if "name" not in value and isinstance(arguments, dict) and "arguments" in arguments:
        return arguments if _is_tool(arguments.get("name"), tools) else value
    return value


def _is_tool(name: Any, tools: Tools) -> bool:
    return isinstance(name, str) and name in tools


def _is_signature(call: dict[str, Any]) -> bool:
    """Whether the model repeated the definition of the tool. Its schema is not meant as arguments."""
    schema = call.get("parameters")
    return isinstance(schema, dict) and schema.get("type") == "object" and "arguments" not in call


def _name_and_arguments(call: dict[str, Any], tools: Tools) -> tuple[str, Any]:
    """The tool's name and the arguments; None if there are none."""
    if _is_signature(call):
        raise ValueError("this describes a tool and does not call it")
    if unknown := call.keys() - {"name", "arguments", "parameters", "type", "id"}:
        raise ValueError(f"{shown(min(unknown))} is no part of a call")  # it may be an argument in the wrong place
    given = [call[key] for key in ("arguments", "parameters") if call.get(key) is not None]
    if len(given) > 1:
        raise ValueError("it has both 'arguments' and 'parameters'")
    name, arguments = call.get("name"), given[0] if given else None
    if isinstance(arguments, str):
        arguments = _parse(arguments, "the string 'arguments'") if arguments.strip() else None
    if name is None and isinstance(arguments, dict) and _is_tool(arguments.get("name"), tools):
        name = arguments["name"]
        arguments = {key: value for key, value in arguments.items() if key != "name"}
    if not isinstance(name, str):
        raise ValueError("it names no tool" if name is None else f"'name' has to be a string, not {shown(name)}")  # noqa: TRY004
    return name, arguments


def _problem(name: str, arguments: Any, tools: Tools) -> str | None:
    if name not in tools:
        return f"no tool is called {shown(name)}; there are: {', '.join(tools) or 'none'}"
    if arguments is None:
        problem = tools[name].problem({})
        return problem and f"it has no arguments, and {problem}"
    if not isinstance(arguments, dict):
        return f"the arguments have to be an object, not {shown(arguments)}"
    return tools[name].problem(arguments)
