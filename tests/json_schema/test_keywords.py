"""What is said of a schema at once, before its grammar is made."""

import pytest

from hermes.json_schema.grammar import enforceable
from hermes.json_schema.keywords import is_surely_enforced

TEXT = {"type": "string"}


def of(**schema):
    """An object with a property of this schema."""
    return {"type": "object", "properties": {"a": schema}}


@pytest.mark.parametrize(
    "schema",
    [
        *(of(), of(**TEXT, minLength=1, maxLength=9), of(type="array", items=TEXT), of(type=["string", "null"])),
        *(of(enum=["a", 1]), of(anyOf=[TEXT, {"type": "null"}]), of(const=1.5, minimum=1)),
        {"$defs": {"t": TEXT}, "properties": {"a": {"$ref": "#/$defs/t"}}, "additionalProperties": False},
    ],
)
def test_a_schema_of_usual_keywords_is_surely_enforced(schema):
    assert is_surely_enforced(schema)
    assert not enforceable(schema).unenforced


@pytest.mark.parametrize("name", ["enum", "const", "minimum", "maximum", "minLength", "maxLength"])
def test_a_number_too_large_for_llguidance_is_not_surely_enforced(name):
    assert not is_surely_enforced(of(**{name: [10**30] if name == "enum" else 10**30}))


@pytest.mark.parametrize("name", ["properties", "$defs", "definitions", "anyOf", "enum", "items"])
@pytest.mark.parametrize("value", [5, "ab", None])
def test_what_is_no_schema_is_not_surely_enforced(name, value):
    assert not is_surely_enforced(of(**{name: value}))


@pytest.mark.parametrize(("name", "value"), [("properties", []), ("$defs", []), ("anyOf", {}), ("enum", {})])
def test_what_holds_schemas_and_is_of_another_kind_is_not_surely_enforced(name, value):
    assert not is_surely_enforced(of(**{name: value}))
