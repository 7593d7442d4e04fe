import json

import pytest
from jsonschema import Draft202012Validator

from hermes.json_schema.negation import conditions
from tests.support.grammars import accepts_open

pytestmark = pytest.mark.xdist_group("vocabulary")  # each process that has the real one takes 250 MB more

VALUES = [None, True, False, 0, 1.5, "", "a", "ab", "abc", "b", "é", "a b", [], ["a"], {}]
VALUES += [{"a": 1}, {"a": "x"}, {"b": 1}, {"a": "x", "b": 1}, {"a": None, "b": "y"}, {"c": {"a": "x"}}]


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"not": {"required": ["a"]}}, id="not required"),
        pytest.param({"not": {"required": ["a", "b"]}}, id="not both required"),
        pytest.param({"not": {"type": "string"}}, id="not a type"),
        pytest.param({"not": {"type": ["null", "number", "object"]}}, id="not of some types"),
        pytest.param({"not": {"const": "ab"}}, id="not a text"),
        pytest.param({"not": {"enum": ["a", "ab", "", None, True]}}, id="none of some values"),
        pytest.param({"not": {"enum": [f"the value {n:09d}" for n in range(20)]}}, id="none of many texts"),
        pytest.param({"not": {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}}, id="not any of"),
        pytest.param({"not": {"allOf": [{"required": ["a"]}, {"type": "object"}]}}, id="not all of"),
        pytest.param({"not": {"not": {"type": "string"}}}, id="not not"),
        pytest.param({"not": {"properties": {"a": {"const": "x"}}}}, id="not of a value, or without it"),
        pytest.param({"not": {"$ref": "#/$defs/x"}, "$defs": {"x": {"type": "array"}}}, id="not what is elsewhere"),
        pytest.param({"not": False}, id="not nothing"),
        pytest.param(
            {"if": {"properties": {"a": {"const": "x"}}, "required": ["a"]}, "then": {"required": ["b"]}}, id="if"
        ),
        pytest.param({"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"type": "object"}}, id="else"),
        pytest.param({"if": {"properties": {"a": {"enum": ["x", None]}}}, "else": {"type": "null"}}, id="only else"),
        pytest.param({"dependentRequired": {"a": ["b"]}}, id="dependentRequired"),
        pytest.param({"dependentSchemas": {"a": {"properties": {"a": {"type": "string"}}}}}, id="dependentSchemas"),
        pytest.param(
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "dependencies": {"a": ["b"], "b": {"required": ["a"]}},
            },
            id="dependencies",
        ),
    ],
)
def test_a_condition_is_the_grammars_as_it_is_the_checkers(schema):
    from jsonschema.validators import validator_for

    checker = validator_for(schema)(schema)
    assert {json.dumps(each): accepts_open(schema, each) for each in VALUES} == {
        json.dumps(each): checker.is_valid(each) for each in VALUES
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"not": {"pattern": "^a"}},
        {"not": {"minimum": 1}},
        {"not": {"enum": [1, 2]}},
        {"not": {"type": "integer"}},
        {"not": {"properties": {"a": {"items": {}}}}},
        {"not": {"enum": [f"value {n}" for n in range(51)]}},
        {"if": {"maximum": 1}, "then": {"const": 0}},
    ],
)
def test_what_no_plain_schema_says_is_none(schema):
    assert [member for _, member in conditions(schema, lambda each: each)] == [None]


def test_what_is_no_condition_makes_none():
    assert Draft202012Validator.check_schema({"if": {}, "then": {}}) is None
    assert list(conditions({"if": {"const": 1}}, lambda each: each)) == []
