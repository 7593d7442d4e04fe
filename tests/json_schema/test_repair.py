"""What is left of a schema that nobody can use as it is."""

import pytest

from hermes.json_schema.limits import SchemaProblem
from hermes.json_schema.repair import repaired
from hermes.json_schema.validate import Validator

DRAFT_7 = "http://json-schema.org/draft-07/schema#"
TEXT = {"type": "string"}


def of(**properties):
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "left", "dropped"),
    [
        pytest.param(of(a=TEXT), of(a=TEXT), [], id="all of it"),
        pytest.param(
            of(a={"type": "file", "minLength": 1}), of(a={"minLength": 1}), ["$.properties.a.type"], id="a type"
        ),
        pytest.param(of(a={**TEXT, "minLength": "1"}), of(a=TEXT), ["$.properties.a.minLength"], id="a limit"),
        pytest.param({**of(a=TEXT), "required": "a"}, of(a=TEXT), ["$.required"], id="a name in place of a list"),
        pytest.param({**of(a=TEXT), "required": ["a", 5]}, of(a=TEXT), ["$.required"], id="what is no name"),
        pytest.param(of(a="my city", b=TEXT), of(a={}, b=TEXT), ["$.properties.a"], id="a text in place of a schema"),
        pytest.param(of(a={"anyOf": []}), of(a={}), ["$.properties.a.anyOf"], id="no branches"),
        pytest.param(
            of(a={"anyOf": [{"type": "file"}, TEXT]}),
            of(a={"anyOf": [{}, TEXT]}),
            ["$.properties.a.anyOf[0].type"],
            id="a branch",
        ),
        pytest.param(
            {"$schema": DRAFT_7, "items": {"items": {"type": "file"}}},
            {"$schema": DRAFT_7, "items": {"items": {}}},
            ["$.items.items.type"],
            id="deep within an earlier draft",
        ),
        pytest.param(
            {"properties": [{"name": "a"}], "additionalProperties": False},
            {},
            ["$.properties", "$.additionalProperties"],
            id="a list of properties, and what forbids all others",
        ),
        pytest.param(
            {"patternProperties": {"(": TEXT}, "additionalProperties": False, "type": "object"},
            {"type": "object"},
            ["$.patternProperties", "$.additionalProperties"],
            id="a pattern of names",
        ),
        pytest.param(of(a={"pattern": "a" * 5_000}), of(a={}), ["$.properties.a.pattern"], id="a long pattern"),
        pytest.param(of(a={"$ref": "#/$defs/a"}), of(a={}), ["$.properties.a.$ref"], id="a reference to nothing"),
        pytest.param(
            {"$defs": {"a": {"items": {"$ref": "other.json#/b"}}}, "$ref": "#/$defs/a"},
            {"$defs": {"a": {"items": {}}}, "$ref": "#/$defs/a"},
            ["$.$defs.a.items.$ref"],
            id="a reference to another document",
        ),
        pytest.param(
            {**of(a={"$ref": "#/components/a"}), "components": {"a": {"type": "file"}}},
            {**of(a={}), "components": {"a": {"type": "file"}}},
            ["$.properties.a.$ref"],
            id="a reference to no schema",
        ),
        pytest.param(of(**{"$ref": TEXT}), of(**{"$ref": TEXT}), [], id="a property called $ref"),
    ],
)
def test_what_can_not_be_used_is_left_out_and_listed(schema, left, dropped):
    found = repaired(schema)
    assert (found.schema, [*found.dropped]) == (left, dropped)


@pytest.mark.parametrize("schema", [{"enum": [*range(2_500)]}, {"title": "x" * 70_000}, {"a": {"const": [[]] * 2_001}}])
def test_what_is_too_large_is_not_repaired(schema):
    with pytest.raises(SchemaProblem):
        repaired(schema)


@pytest.mark.parametrize(
    ("schema", "value", "problem"),
    [
        (of(a={"type": "file"}, b=TEXT), {"a": 5, "b": "x"}, None),
        (of(a={"type": "file"}, b=TEXT), {"a": 5, "b": 5}, "$.b: expected string, got 5"),
        ({**of(a={"$ref": "#/x"}), "required": ["a"]}, {}, "$: 'a' is missing"),
        (of(a={"enum": [*range(2_500)]}), {"a": -1}, "$.a: -1 is not one of 0, 1, 2"),
        (of(a={"title": "x" * 70_000, **TEXT}), {"a": 1}, "$.a: expected string, got 1"),
    ],
    ids=lambda each: str(each)[:40],
)
def test_the_rest_is_checked(schema, value, problem):
    found = Validator(schema, in_part=True).problem(value)
    assert found == problem or found.startswith(problem)
