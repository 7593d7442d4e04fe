"""An object that the model wrote is a tool call, or a bad one with its problem. The table has every shape."""

import json

import pytest

from hermes.tool_calls.judge import ToolCall
from hermes.tool_calls.parser import read_tool_calls
from tests.support.tool_texts import CALL, NO_TOOL, OSLO, SCHEMAS, read_shape, shape, tagged

SHAPES = [
    shape("arguments as a string", tagged(r'{"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}'), [OSLO]),
    shape(
        "arguments as a string that is no JSON",
        tagged('{"name": "weather", "arguments": "Oslo"}'),
        ["the string 'arguments' is not JSON: expecting value at 'Oslo'"],
    ),
    shape(
        "arguments encoded twice",
        tagged(json.dumps({"name": "weather", "arguments": json.dumps(json.dumps({"city": "Oslo"}))})),
        ['the arguments have to be an object, not \'{"city": "Oslo"}\''],
    ),
    shape(
        "arguments as a list",
        tagged('{"name": "weather", "arguments": ["Oslo"]}'),
        ['the arguments have to be an object, not ["Oslo"]'],
    ),
    shape("parameters", tagged('{"name": "weather", "parameters": {"city": "Oslo"}}'), [OSLO]),
    shape("no arguments where none are needed", tagged('{"name": "clock"}'), [ToolCall("clock", {})]),
    shape(
        "no arguments where one is needed",
        tagged('{"name": "weather"}'),
        ["it has no arguments, and $: 'city' is missing"],
    ),
    shape(
        "arguments beside the name",
        tagged('{"name": "any", "city": "Oslo"}'),
        ["'city' is no part of a call"],
    ),
    shape(
        "an argument that went astray",
        tagged('{"arguments": {"city": "Oslo"}, "days": 2, "name": "weather"}'),
        ["'days' is no part of a call"],
    ),
    shape(
        "arguments and parameters",
        tagged('{"name": "any", "arguments": {}, "parameters": {"a": 1}}'),
        ["it has both 'arguments' and 'parameters'"],
    ),
    shape(
        "arguments outside of the function",
        tagged('{"function": {"name": "any"}, "arguments": {"a": 1}}'),
        ["'function' is no part of a call"],
    ),
    shape("the name in the arguments", tagged('{"arguments": {"name": "weather", "city": "Oslo"}}'), [OSLO]),
    shape("the call in the arguments", tagged(f'{{"arguments": {CALL}}}'), [OSLO]),
    shape(
        "OpenAI's shape",
        tagged(
            r'{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}}'
        ),
        [OSLO],
    ),
    shape("no name", tagged('{"arguments": {"city": "Oslo"}}'), ["it names no tool"]),
    shape(
        "a name that is none",
        tagged('{"name": ["weather"], "arguments": {}}'),
        ["'name' has to be a string, not [\"weather\"]"],
    ),
    shape("an unknown tool", tagged('{"name": "fly", "arguments": {}}'), [NO_TOOL]),
    shape(
        "arguments that the schema refuses",
        tagged('{"name": "weather", "arguments": {"city": "Oslo", "days": "two"}}'),
        ["$.days: expected integer, got 'two'"],
    ),
    shape(
        "a name that needs escaping",
        tagged('{"name": "a\\n</tool_response>", "arguments": {}}'),
        ["no tool is called 'a\\n</tool_response>'; there are: weather, clock, write, any"],
    ),
]


@pytest.mark.parametrize(("text", "found", "prose"), SHAPES)
def test_an_object_of_any_shape_is_judged(text, found, prose):
    assert read_shape(text) == (found, prose)


def test_a_bad_call_says_which_tool_it_names_where_that_can_be_seen():
    texts = [
        '{"name": "weather", "arguments": {}}',
        '{"arguments": {"name": "Bob", city}, "name": "weather"}',
        '{"name": "fly", "arguments": {}}',
        "weather",
    ]
    assert [bad.name for bad in read_tool_calls(tagged(*texts), SCHEMAS).bad] == ["weather", "weather", "fly", None]


NAMES = ["fs/read file", "ns::f", "öffne", "検索", "f(x)", 'say "a"', "it's", "a\\b", "<x>"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_that_a_tool_may_have_is_read_in_its_calls(name):
    schemas = {name: {"type": "object"}, "other": {}}
    call = json.dumps({"arguments": {"a": 1}, "name": name}, ensure_ascii=False)
    assert read_tool_calls(tagged(call), schemas).found == (ToolCall(name, {"a": 1}),)
    (bad,) = read_tool_calls(tagged(call.replace("1", "[1")), schemas).found
    assert bad.name == (None if {'"', "\\"} & {*name} else name)
    if "<" not in name:
        function = f'<function={name}>{{"a": 1}}</function>'
        assert read_tool_calls(function, schemas).found == (ToolCall(name, {"a": 1}),)


def test_what_is_kept_of_a_bad_call_is_cut():
    (bad,) = read_tool_calls(tagged('{"name": "' + "x" * 999 + '", "arguments": {}}'), SCHEMAS).bad
    assert len(bad.text) < 210
    assert len(bad.problem) < 310
    assert bad.name == "x" * 128
