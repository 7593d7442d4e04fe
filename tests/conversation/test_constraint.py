"""The structural tags for the engine's grammar, as whole values."""

import json

import pytest

from hermes.conversation.constraint import Constraint, json_constraint, tools_constraint
from hermes.conversation.functions import parse_functions
from hermes.errors import BadJsonSchema, BadTools

CLOCK = {"name": "clock"}
WEATHER = {
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer"}},
        "required": ["city"],
        "$defs": {"city": {"enum": ["Oslo", "Rome"]}},
    },
}
FUNCTIONS = parse_functions([CLOCK, WEATHER])


def tag(name, arguments, defs):
    call = {
        "type": "object",
        "properties": {"arguments": arguments, "name": {"enum": [name]}},
        "required": ["arguments", "name"],
        "additionalProperties": False,
        "$defs": defs,
    }
    return {
        "type": "tag",
        "begin": "<tool_call>\n",
        "content": {"type": "json_schema", "json_schema": call, "max_whitespace_cnt": 1},
        "end": "\n</tool_call>",
    }


CLOCK_TAG = tag("clock", {"type": "object", "properties": {}, "additionalProperties": False}, {})
WEATHER_TAG = tag(  # references count from the root of the call, so $defs stand there
    "weather",
    {
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/d0"}, "days": {"type": "integer"}},
        "additionalProperties": False,
        "required": ["city"],
    },
    {"d0": {"enum": ["Oslo", "Rome"]}},
)


def read(constraint):
    return constraint.source, json.loads(constraint.structural_tag)


@pytest.mark.parametrize(
    ("tool_choice", "tags", "at_least_one"),
    [
        ("auto", [CLOCK_TAG, WEATHER_TAG], False),
        ("required", [CLOCK_TAG, WEATHER_TAG], True),
        ("clock", [CLOCK_TAG], True),
        ("weather", [WEATHER_TAG], True),
    ],
)
def test_a_call_that_begins_is_valid(tool_choice, tags, at_least_one):
    assert read(tools_constraint(FUNCTIONS, tool_choice)) == (
        "tools",
        {
            "type": "structural_tag",
            "format": {
                "type": "triggered_tags",
                "triggers": ["<tool_call>"],
                "tags": tags,
                "at_least_one": at_least_one,
            },
        },
    )


def test_no_call_begins_where_none_is_wanted():
    assert read(tools_constraint(FUNCTIONS, "none")) == (
        "tools",
        {"type": "structural_tag", "format": {"type": "any_text", "excludes": ["<tool_call>"]}},
    )


def test_json_satisfies_its_schema():
    schema = {"type": "array", "items": {"$ref": "#/$defs/city"}, "$defs": {"city": {"type": "string"}}}
    narrow = {
        "type": "array",
        "items": {"$ref": "#/$defs/d0"},
        "minItems": 0,
        "$defs": {"d0": {"type": "string"}},
    }
    assert read(json_constraint(schema)) == (
        "json_schema",
        {
            "type": "structural_tag",
            "format": {"type": "json_schema", "json_schema": narrow, "max_whitespace_cnt": 1},
        },
    )


def test_parameters_that_no_grammar_keeps_to_are_refused_with_function_path_and_keyword():
    (function,) = parse_functions([{"name": "f", "parameters": {"properties": {"a": {"not": {}}}}}])
    with pytest.raises(BadTools) as refused:
        tools_constraint([function], "auto")
    assert str(refused.value) == (
        "E1006 BadTools: the parameters of 'f', $.properties.a: 'not' is not enforced by the grammar; leave it out"
    )


def test_a_schema_that_no_grammar_keeps_to_is_refused_with_path_and_keyword():
    with pytest.raises(BadJsonSchema) as refused:
        json_constraint({"items": {"contains": {}}})
    assert str(refused.value) == (
        "E1007 BadJsonSchema: json_schema: $.items: 'contains' is not enforced by the grammar; leave it out"
    )


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("tools", "E1006 BadTools: tools is too large"),
        ("json_schema", "E1007 BadJsonSchema: json_schema: is too large"),
    ],
)
def test_what_the_engine_refuses_is_the_error_of_the_input_that_asked_for_it(source, error):
    assert str(Constraint("{}", source).refused("is too large")) == error
