"""Schemas with values that would never end, or with definitions that no value has."""

import json

import pytest

from hermes.json_schema.grammar import enforceable
from hermes.json_schema.limits import SchemaProblem
from tests.support.grammars import accepts

WHOLE, ITSELF, TEXT = {"$ref": "#"}, {"$ref": "#/$defs/x"}, {"type": "string"}


def of_x(schema, **x):
    return schema | {"$defs": {"x": x}}


def with_a(a, *others, required=("a",)):
    return {"type": "object", "properties": {"a": a, **dict.fromkeys(others, TEXT)}, "required": [*required]}


@pytest.mark.parametrize(
    "schema",
    [
        WHOLE,
        with_a(WHOLE),
        with_a({"anyOf": [WHOLE]}),
        {"type": "array", "items": WHOLE, "minItems": 1},
        {"type": "array", "prefixItems": [TEXT, WHOLE], "minItems": 2},
        with_a(WHOLE) | {"type": ["object"]},
        with_a(WHOLE) | {"type": ["object", "array"], "items": WHOLE, "minItems": 1},
        {"type": "object", "additionalProperties": WHOLE, "minProperties": 1},
        {"type": "object", "additionalProperties": WHOLE, "required": ["a"]},
        of_x(ITSELF, **ITSELF),
        of_x(with_a(ITSELF), **with_a({"type": "array", "items": ITSELF, "minItems": 2})),
        of_x(ITSELF, anyOf=[ITSELF, with_a(ITSELF)]),
        of_x(ITSELF, allOf=[ITSELF]),
        {**ITSELF, "$defs": {"x": {"$ref": "#/$defs/y"}, "y": ITSELF}},
    ],
    ids=json.dumps,
)
def test_a_schema_of_which_no_value_ends_is_refused(schema):
    with pytest.raises(SchemaProblem, match="makes no grammar: no value of it ends"):
        enforceable(schema)


@pytest.mark.parametrize(
    ("schema", "value", "other"),
    [
        (of_x(ITSELF, anyOf=[ITSELF, TEXT]), "b", 1),
        (of_x(with_a(ITSELF, "b", required=["b"]), **ITSELF), {"b": "c"}, {"a": "c", "b": "c"}),
        (of_x({"anyOf": [ITSELF, TEXT]}, **with_a(ITSELF)), "b", {"a": "b"}),
        (of_x({"type": "array", "items": ITSELF}, **with_a(ITSELF)), [], [{}]),
        (of_x(with_a({"anyOf": [ITSELF, TEXT]}), type="integer", enum=["y"]), {"a": "b"}, {"a": 1}),
        (with_a(WHOLE, required=[]), {"a": {"a": {}}}, {"a": 1}),
        ({"type": "array", "items": WHOLE}, [[], [[]]], [1]),
    ],
    ids=json.dumps,
)
def test_what_has_no_value_is_in_nobodys_way(schema, value, other):
    assert accepts(schema, value)
    assert not accepts(schema, other)
