"""What is left of a schema that nobody can use as it is."""

import pytest

from hermes.json_schema import repair, validate
from hermes.json_schema.limits import SchemaProblem, faults
from hermes.json_schema.repair import Budget, enforceable_part, repaired
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
        *(
            pytest.param(of(a={**TEXT, "not": inner}), of(a=TEXT), ["$.properties.a.not"], id=f"not {inner}")
            for inner in [
                {"enum": "x"},
                {"pattern": "(x"},
                {"type": "undefined"},
                {"properties": {"b": {"items": {"type": "file"}}}},
                {"$ref": "#/nope"},
                {"anyOf": [TEXT, {"$ref": "#/nope"}]},
                "x",
            ]
        ),
        pytest.param(
            of(a={"oneOf": [{"type": "foo"}, {"type": "number"}]}),
            of(a={}),
            ["$.properties.a.oneOf"],
            id="one branch of a oneOf",
        ),
        pytest.param(
            of(a={**TEXT, "if": {"type": "foo"}, "then": {"minLength": 1}, "else": False}),
            of(a=TEXT),
            ["$.properties.a.if", "$.properties.a.then", "$.properties.a.else"],
            id="a condition",
        ),
        pytest.param(
            of(a={"if": TEXT, "then": {"minLength": "1"}}),
            of(a={"if": TEXT, "then": {}}),
            ["$.properties.a.then.minLength"],
            id="what follows from a condition",
        ),
        pytest.param(of(a={"contains": {"type": "foo"}}), of(a={}), ["$.properties.a.contains"], id="contains"),
        pytest.param(
            {"$defs": {"b": {"type": "foo"}, "c": TEXT}, **of(a={"not": {"$ref": "#/$defs/b"}})},
            {"$defs": {"b": {}, "c": TEXT}, **of(a={})},
            ["$.$defs.b.type", "$.properties.a.not"],
            id="not what a reference leads to",
        ),
        pytest.param(
            {"$defs": {"b": {"items": {"$ref": "#/properties/q"}}}, **of(a={"not": {"$ref": "#/$defs/b"}}, q="x")},
            {"$defs": {"b": {"items": {"$ref": "#/properties/q"}}}, **of(a={}, q={})},
            ["$.properties.q", "$.properties.a.not"],
            id="not what a reference leads to by another one",
        ),
        pytest.param(
            of(a={"type": "foo"}, b={"oneOf": [{"$ref": "#"}, TEXT]}),
            of(a={}, b={}),
            ["$.properties.a.type", "$.properties.b.oneOf"],
            id="one of the whole",
        ),
        pytest.param(
            {**of(a={"type": "foo"}, b={"oneOf": [{"$ref": "#/$defs/b"}, TEXT]}), "$defs": {"b": {"type": "number"}}},
            {**of(a={}, b={"oneOf": [{"$ref": "#/$defs/b"}, TEXT]}), "$defs": {"b": {"type": "number"}}},
            ["$.properties.a.type"],
            id="one of what is as it was",
        ),
        *(
            pytest.param(
                of(a=limits, q=TEXT), of(a={}, q=TEXT), [f"$.properties.a.{each}" for each in limits], id=f"{limits}"
            )
            for limits in [
                {"maxLength": 2, "minLength": 5},
                {"maximum": 1, "minimum": 2},
                {"exclusiveMinimum": 1, "maximum": 1},
                {"minItems": 99_999},
                {"minProperties": 2**60},
                {"dependentRequired": 3},
                {"if": "x"},
            ]
        ),
        pytest.param(
            of(a={"dependentSchemas": {"a": 3}, "exclusiveMinimum": True, "minimum": 3}),
            of(a={"dependentSchemas": {"a": {}}, "exclusiveMinimum": True, "minimum": 3}),
            ["$.properties.a.dependentSchemas.a"],
            id="of a later draft, in an earlier one",
        ),
        *(
            pytest.param(of(a={name: "x"}, q=TEXT), of(a={name: {}}, q=TEXT), [f"$.properties.a.{name}"], id=name)
            for name in ("propertyNames", "unevaluatedProperties")
        ),
        pytest.param(
            of(
                a={"anyOf": [{"minLength": 5, "maxLength": 2}, {"type": "null"}], "not": {"minItems": 3, "maxItems": 2}}
            ),
            None,
            [],
            id="limits that exclude each other in one branch",
        ),
        pytest.param(
            of(**{f"p{n}": {"type": "foo"} for n in range(12)}),
            of(**{f"p{n}": {} for n in range(12)}),
            [f"$.properties.p{n}.type" for n in [0, 1, 10, 11, *range(2, 10)]],
            id="in one order",
        ),
    ],
)
def test_what_can_not_be_used_is_left_out_and_listed(schema, left, dropped):
    found = repaired(schema, Budget())
    assert (found.schema, [*found.dropped]) == (schema if left is None else left, dropped)


def test_what_was_repaired_lately_costs_nothing(monkeypatch):
    schema, once = of(a={"type": "foo", "title": "remembered"}), []
    monkeypatch.setattr(repair, "faults", lambda schema: (once.append(1), faults(schema))[1])
    assert [repaired(schema, budget) for budget in (Budget(), Budget(0), Budget(-1))] == [
        repaired(schema, Budget())
    ] * 3
    assert len(once) == 1


def test_a_repair_takes_no_longer_than_its_budget():
    bad, good = of(a={"type": "foo", "title": "not remembered"}), of(a=TEXT)
    with pytest.raises(SchemaProblem, match="takes too long"):
        repaired(bad, Budget(0))
    assert repaired(good, Budget(0)).schema == good
    shared = Budget()
    enforceable_part(good, shared)
    assert shared == Budget()
    enforceable_part(bad, shared)
    assert shared.seconds < Budget().seconds


def test_what_is_too_faulty_to_be_repaired_in_time_is_not_checked(monkeypatch):
    monkeypatch.setattr(validate, "REPAIR_SECONDS", 0)
    assert Validator(of(a={"type": "foo", "title": "late"}, b=TEXT), in_part=True).problem({"b": 5}) is None


@pytest.mark.parametrize("schema", [{"enum": [*range(2_500)]}, {"title": "x" * 70_000}, {"a": {"const": [[]] * 2_001}}])
def test_what_is_too_large_is_not_repaired(schema):
    with pytest.raises(SchemaProblem):
        repaired(schema, Budget())


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
