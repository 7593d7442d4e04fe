"""The tables of tests/tool_calls are rows of a text that a model wrote and of what the reader finds in it."""

import pytest

from hermes.tool_calls.judge import BadToolCall, ToolCall
from hermes.tool_calls.parser import read_tool_calls

SCHEMAS = {
    "weather": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "clock": {"type": "object", "properties": {}},
    "write": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    "any": {},
}
OSLO = ToolCall("weather", {"city": "Oslo"})
ROME = ToolCall("weather", {"city": "Rome"})
CALL = '{"arguments": {"city": "Oslo"}, "name": "weather"}'
OTHER = '{"name": "weather", "arguments": {"city": "Rome"}}'
NO_TOOL = "no tool is called 'fly'; there are: weather, clock, write, any"


def wrote(text):
    return ToolCall("write", {"text": text})


def tagged(*contents):
    return "\n".join(f"<tool_call>\n{content}\n</tool_call>" for content in contents)


def shape(name, text, found, prose=""):
    """A row: what is found (a string is the problem of a bad call), and the prose without the space around it."""
    return pytest.param(text, found, prose, id=name)


def answer(name, text):
    return shape(name, text, [], text)


def read(text, cut=False):
    """All that is found, in its order, and the prose."""
    reading = read_tool_calls(text, SCHEMAS, cut)
    return list(reading.found), reading.text


def read_shape(text):
    """What a row of a table holds: all that is found, a bad call as its problem, and the prose."""
    found, prose = read(text)
    return [each.problem if isinstance(each, BadToolCall) else each for each in found], prose.strip()
