"""Function calling as the model was trained on it: definitions of functions, and the texts of calls and results.

Source: the model card of NousResearch/Hermes-2-Theta-Llama-3-70B. The schema of a call in TOOLS_PROMPT is part of the
training data. So is the order of the keys in a call: arguments first.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hermes.errors import BadTools
from hermes.json_schema.limits import MAX_BYTES
from hermes.json_schema.shapes import DEFINITIONS, arguments_schema, stray_schema
from hermes.text import shown

TAG_NAMES = ("tools", "tool_call", "tool_response", "schema", "scratch_pad")
TAGS = tuple(tag for name in TAG_NAMES for tag in (f"<{name}>", f"</{name}>"))

TOOLS_PROMPT = """\
You are a function calling AI model. You are provided with function signatures within <tools></tools> XML tags. You may call one or more functions to assist with the user query. Don't make assumptions about what values to plug into functions. Here are the available tools:
<tools>
{TOOLS}
</tools>
Use the following pydantic model json schema for each tool call you will make:
{"properties": {"arguments": {"title": "Arguments", "type": "object"}, "name": {"title": "Name", "type": "string"}}, "required": ["arguments", "name"], "title": "FunctionCall", "type": "object"}
For each function call return a json object with function name and arguments within <tool_call></tool_call> XML tags as follows:
<tool_call>
{"arguments": <args-dict>, "name": <function-name>}
</tool_call>"""  # noqa: E501  the trained text, letter for letter

MAX_FUNCTIONS = 128
MAX_BYTES_TOGETHER = 4 * MAX_BYTES  # of the schemas of all functions
NO_ARGUMENTS = {"type": "object", "properties": {}}
ANY_ARGUMENTS = {"type": "object"}  # where nobody can read the schema
NAME = re.compile(r"(?=.*\S)[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,128}")
NAMES = "1 to 128 characters, without control characters and tags"
MAX_KEY = 60  # characters of a key in a message
PARAMETERS = ("parameters", "input_schema", "inputSchema")  # OpenAI's word for them, Anthropic's, and MCP's
# What others call them, which is not read; and the schema of a result, which the model was not trained to see.
OTHER_NAMES = ("arguments", "args", "params", "schema", "input", "inputs", "properties")
RESULTS = frozenset({"return", "returns", "response", "output", "outputs", "output_schema", "outputSchema", "result"})
AROUND = (*DEFINITIONS, "components")  # what references in the schema may lead to


@dataclass(frozen=True)
class Function:
    """A function that the model may call."""

    name: str
    parameters: Mapping[str, Any]  # the JSON schema of its arguments, an object's
    description: str | None = None
    unread: tuple[str, ...] = ()  # paths in what was sent, and keys beside the schema, that are left out

    def signature(self) -> str:
        """The function on one line of the <tools> block."""
        described = {} if self.description is None else {"description": self.description}
        function = {"name": self.name, **described, "parameters": self.parameters}
        return json_within_tags({"type": "function", "function": function})


def parse_functions(tools: Sequence[Any]) -> tuple[Function, ...]:
    """The functions of OpenAI's `tools`, or of a list of bare function objects.

    Raises BadTools if a function cannot be read. The error names the place, such as tools[0].function.name.
    """
    if len(tools) > MAX_FUNCTIONS:
        raise BadTools("tools", f"has {len(tools)} functions; at most {MAX_FUNCTIONS}")
    functions: dict[str, Function] = {}
    for index, tool in enumerate(tools):
        function = _parse(tool, f"tools[{index}]")
        if functions.setdefault(function.name, function) != function:
            raise BadTools(f"tools[{index}]", f"is a second function called {function.name!r}; give each its own name")
    if (size := sum(_size(function.parameters) for function in functions.values())) > MAX_BYTES_TOGETHER:
        raise BadTools("the parameters of all tools", f"are {size} bytes of JSON; at most {MAX_BYTES_TOGETHER}")
    return (*functions.values(),)


def _parse(tool: Any, at: str) -> Function:
    if not isinstance(tool, Mapping):
        raise BadTools(at, f"has to be an object, not {type(tool).__name__}")
    kind = tool.get("type")
    if kind not in (None, "function") and not (kind == "custom" and "input_schema" in tool):  # as Anthropic has it
        raise BadTools(f"{at}.type", f"is {shown(kind)}; only 'function' is known")
    if "function" in tool:
        around, tool = tool, tool["function"]
        if not isinstance(tool, Mapping):
            raise BadTools(f"{at}.function", "has to be an object with name, description and parameters")
        if all(map(_is_empty, _given(tool).values())) and (stray := _stray(around, PARAMETERS)):
            raise BadTools(f"{at}.{stray}", "looks like a schema; put it into 'function', as 'parameters'")
        at = f"{at}.function"
    name, description = tool.get("name"), tool.get("description")
    if not isinstance(name, str) or not NAME.fullmatch(name) or any(tag in name for tag in TAGS):
        raise BadTools(f"{at}.name", f"is {shown(name)}; it has to be {NAMES}")
    parameters, unread = _parameters(tool, at)
    if description is not None and not isinstance(description, str):
        description, unread = None, ("description", *unread)
    elif description:  # the model reads U+FFFD in place of half a character
        description = description.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Function(name, parameters, description, unread)


def _given(tool: Mapping[str, Any]) -> dict[str, Any]:
    """What stands where the schema of the arguments belongs, by key."""
    return {key: _read(tool[key]) for key in PARAMETERS if tool.get(key) not in (None, [], {}, "")}


def _is_empty(schema: Any) -> bool:
    """Whether a schema names no arguments."""
    return schema in (None, []) or (isinstance(schema, Mapping) and schema.keys() <= {"type"})


def _read(value: Any) -> Any:
    """A schema, which may be the text of JSON."""
    with suppress(ValueError, RecursionError):
        return json.loads(value) if isinstance(value, str) else value
    return value


def _stray(tool: Mapping[str, Any], names: Iterable[str] = ()) -> str | None:
    """What may be meant as the arguments of a function that has none."""
    named = (key for key in (*names, *OTHER_NAMES) if isinstance(tool.get(key), Mapping | list) and tool[key])
    found = next(named, None) or stray_schema(tool, {*RESULTS, *PARAMETERS, "function"})
    return found and found[:MAX_KEY]


def _parameters(tool: Mapping[str, Any], at: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The schema of the arguments, under any of the three names, and what was left out of it."""
    given = _given(tool)
    told = {key: each for key, each in given.items() if not _is_empty(each)}
    if not told and (stray := _stray(tool)):
        raise BadTools(f"{at}.{stray}", "looks like a schema; that of the arguments goes into 'parameters'")
    parameters = next(filter(None, (told or given).values()), NO_ARGUMENTS)
    try:
        others = tuple(key for key, other in told.items() if other != parameters)
        around = {each: tool[each] for each in AROUND if isinstance(tool.get(each), Mapping) and each not in parameters}
        schema = arguments_schema(_finite({**parameters, **around}))
        is_free = _size(schema) > MAX_BYTES_TOGETHER
    except (RecursionError, TypeError, ValueError):  # no mapping, nested too deeply, or no JSON
        return ANY_ARGUMENTS, ("$",)
    if is_free:
        return ANY_ARGUMENTS, ("$",)
    kind = schema.pop("type", "object")
    unread = () if kind == "object" or (isinstance(kind, list) and "object" in kind) else ("$.type",)
    return {"type": "object", **schema}, (*unread, *others)


def _finite(schema: Mapping[str, Any]) -> Any:
    """The schema with null for NaN and infinities, which are no JSON."""
    with suppress(ValueError):
        json_within_tags(schema)
        return schema
    return json.loads(json.dumps(schema), parse_constant=lambda _: None)


def _size(schema: Mapping[str, Any]) -> int:
    """The bytes of a schema as JSON. Raises ValueError if it is not JSON."""
    return len(json_within_tags(schema).encode())


def tools_prompt(functions: Iterable[Function]) -> str:
    """The system turn that offers the functions."""
    return TOOLS_PROMPT.replace("{TOOLS}", "\n".join(function.signature() for function in functions))


def call_block(name: str, arguments: Mapping[str, Any] | str) -> str:
    """A call as the model writes it. Arguments in text that is not a JSON object stay as they are: a model wrote them.

    Raises ValueError if the arguments hold a value that JSON has no form for.
    """
    if isinstance(arguments, str):
        arguments = _object_in(arguments)
    if isinstance(arguments, str):
        call = f'{{"arguments": {_within_tags(arguments)}, "name": {json_within_tags(name)}}}'
    else:
        call = json_within_tags({"arguments": arguments, "name": name})
    return f"<tool_call>\n{call}\n</tool_call>"


def _object_in(text: str) -> dict[str, Any] | str:
    """The JSON object in the text, or the text itself."""
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
        json_within_tags(value)  # Python reads NaN, and more levels than it can write
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def result_block(name: str, content: Any) -> str:
    """The result of a call as the model reads it. Text that is a JSON object or array becomes one."""
    return f"<tool_response>\n{json_within_tags({'name': name, 'content': _as_json(content)})}\n</tool_response>\n"


def json_within_tags(value: Any) -> str:
    """The value as JSON in which no text can open or close a tag of the format.

    Raises ValueError if the value cannot be written as JSON.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:
        raise ValueError("it holds NaN, an infinity or a number of thousands of digits") from error
    return _within_tags(text)


def _within_tags(text: str) -> str:
    """JSON with escapes in place of tags and of half characters, which no tokenizer takes."""
    text = text.encode(errors="backslashreplace").decode()  # as JSON writes half a character, too
    for tag in TAGS:
        text = text.replace(tag, rf"\u003c{tag[1:]}")  # only strings hold "<", and there it is the same character
    return text


def _as_json(content: Any) -> Any:
    if isinstance(content, str) and content.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(content)
            # Python reads NaN and Infinity, which are no JSON, and more levels than it can write one level deeper.
            json.dumps([value], allow_nan=False)
            return value
        except (ValueError, RecursionError):
            return content
    return content
