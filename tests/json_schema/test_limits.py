import json
import time
from contextlib import suppress

import pytest
from jsonschema import Draft202012Validator

from hermes.json_schema import limits
from hermes.json_schema.grammar import enforceable
from hermes.json_schema.limits import REMEMBERED, SchemaProblem, check_schema, check_size

enforceable({})  # the first one imports jsonschema


@pytest.fixture
def passes(monkeypatch):
    """The drafts whose metaschema was passed over, each time."""
    found = []

    original = Draft202012Validator.iter_errors

    def counted(self, instance, *args):
        if self.schema is self.META_SCHEMA:
            found.append(instance)
        return original(self, instance, *args)

    monkeypatch.setattr(Draft202012Validator, "iter_errors", counted)
    monkeypatch.setattr(limits, "_drafts", {})
    return found


def test_a_schema_is_checked_in_one_pass_and_not_again(passes):
    for schema in ({"properties": {"a": {"pattern": "^a$"}}}, {"patternProperties": {"a+": {}}}, {}):
        for _ in range(3):
            assert check_schema(schema) is Draft202012Validator
        assert passes == [schema]
        passes.clear()


def test_what_is_not_checked_again_is_what_came_last(passes):
    check_schema({"title": "first"})
    for number in range(REMEMBERED - 1):
        check_schema({"const": number})
        check_schema({"title": "first"})
    assert len(passes) == REMEMBERED
    check_schema({"title": "new"})
    check_schema({"title": "first"})
    assert len(passes) == REMEMBERED + 1
    check_schema({"const": 0})
    assert len(passes) == REMEMBERED + 2
    assert len(limits._drafts) == REMEMBERED


@pytest.mark.parametrize("schema", [{"pattern": "("}, {"type": 3}, {"items": {"patternProperties": {"[": {}}}}])
def test_a_schema_that_is_refused_is_refused_again(schema):
    for _ in range(2):
        with pytest.raises(SchemaProblem):
            check_schema(schema)


def test_values_that_are_equal_in_python_only_are_two_schemas():
    check_schema({"minItems": 1, "uniqueItems": True})
    with pytest.raises(SchemaProblem):
        check_schema({"minItems": True, "uniqueItems": 1})


def seconds_of(schema):
    """What it takes of the CPU until the schema is refused, or known to be enforceable."""
    before = time.process_time()
    with suppress(SchemaProblem):
        enforceable(schema)
    return time.process_time() - before


@pytest.fixture(scope="module")
def plain_seconds():
    """What a schema takes that asks for nothing unusual and is about as long as one may be."""
    return seconds_of({"properties": {f"p{n}": {"type": "string"} for n in range(1_400)}})


def nested(levels):
    schema = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def doubling(levels, keyword):
    definitions = {f"d{n}": {keyword: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"anyOf": [{"$ref": "#/$defs/d0"}], "$defs": {**definitions, f"d{levels}": {"const": "no"}}}


def growing(levels):
    """Each branch declares a name of its own before the next level, which is then closed with another set of names."""
    definitions = {
        f"d{n}": {"anyOf": [{"properties": {f"{x}{n}": {}}, "anyOf": [{"$ref": f"#/$defs/d{n + 1}"}]} for x in "ab"]}
        for n in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{levels}": {"properties": {"z": {}}}}}


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        pytest.param([], "$ must be an object, not list", id="a list"),
        pytest.param(nested(33), f"${'.items' * 33} is nested more than 32 levels deep", id="33 levels"),
        pytest.param(nested(20_000), "$ is nested more than 32 levels deep", id="20,000 levels"),
        pytest.param({"enum": [1] * 2_001}, "$.enum has 2001 entries; at most 2000", id="a long list"),
        pytest.param({"title": "x" * 65_536}, "$ is 65549 bytes of JSON; at most 65536", id="much"),
        pytest.param({"title": "é" * 33_000}, "$ is 66013 bytes of JSON; at most 65536", id="much, in UTF-8"),
        pytest.param(
            {"properties": {f"p{n}": {"anyOf": [{}] * 1_990} for n in range(2)}},
            "$ holds 3984 objects and booleans; at most 3000",
            id="many schemas",
        ),
        pytest.param({"a": float("nan")}, "$ holds NaN, an infinity or a number of thousands of digits", id="NaN"),
        pytest.param({"a": 10**5_000}, "$ holds NaN, an infinity or a number of thousands of digits", id="digits"),
        pytest.param(
            {"enum": ["\ud800"]},
            "$.enum holds a lone surrogate (U+D800) at character 1, which is not text; send valid Unicode",
            id="half a character",
        ),
        pytest.param(
            {"properties": {"\udc00": {}}},
            "$.properties holds a lone surrogate (U+DC00) at character 1, which is not text; send valid Unicode",
            id="half a character in a name",
        ),
    ],
)
def test_what_is_too_large_or_no_json_is_refused(schema, problem):
    with pytest.raises(SchemaProblem) as refused:
        check_size(schema)
    assert str(refused.value) == problem


def test_what_is_within_the_limits_is_measured_in_bytes():
    assert check_size(nested(32)) == len('{"items": }') * 32 + 2
    assert check_size({"title": "é", "enum": [1] * 2_000}) > 2_000


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(
            {"properties": {f"p{n}": {"type": "string", "description": "x" * 150} for n in range(300)}}, id="60 KB"
        ),
        pytest.param({"properties": {f"p{n}": {} for n in range(2_000)}}, id="2,000 optional properties"),
        pytest.param({"enum": [f"value {n}" for n in range(2_000)]}, id="a long enum"),
        pytest.param({"x" * 1_000_000: {"enum": list(range(2_000))}}, id="a long name that is part of many paths"),
        pytest.param({"oneOf": [{"enum": list(range(n, n + 30))} for n in range(0, 7_650, 30)]}, id="a oneOf"),
        pytest.param({"oneOf": [{"const": n} for n in range(2_000)]}, id="a long oneOf"),
        pytest.param({"pattern": f"[^{''.join(map(chr, range(256, 40_000, 2)))}]"}, id="a pattern of many characters"),
        pytest.param({"pattern": "." * 60_000}, id="a long pattern"),
        pytest.param({"pattern": "(" * 60_000}, id="a pattern that nests"),
        pytest.param({"pattern": "((a{1,1000}){1,1000}b){1,1000}"}, id="a pattern that repeats"),
        pytest.param({"maxLength": 10**9}, id="a long string"),
        pytest.param({"minItems": 2**53}, id="many items"),
        pytest.param({"maxItems": 10**6}, id="many items at most"),
        pytest.param({"items": [{"minItems": 4_000}] * 1_000}, id="many items at many places"),
        pytest.param({"properties": {f"p{n}": {"maxItems": 10**5} for n in range(1_000)}}, id="many items of many"),
        pytest.param(
            {"allOf": [{"anyOf": [{"properties": {f"a{i}{j}": {}}} for j in range(6)]} for i in range(8)]},
            id="unions that multiply",
        ),
        pytest.param(
            {
                "$ref": "#/$defs/0",
                "$defs": {f"{n}": {"items": {"$ref": f"#/$defs/{n + 1}"}} for n in range(999)} | {"999": {}},
            },
            id="a long way",
        ),
        pytest.param({"not": {"allOf": [{"not": {"required": ["a", "b"]}}] * 1_000}}, id="a condition of many"),
        pytest.param(doubling(48, "anyOf"), id="a union of unions that doubles at each level"),
        pytest.param(doubling(48, "allOf"), id="an allOf that doubles at each level"),
        pytest.param(doubling(48, "oneOf"), id="a oneOf that doubles at each level"),
        pytest.param(
            {"not": {"$ref": "#/$defs/d0"}} | doubling(20, "anyOf"), id="a condition that doubles at each level"
        ),
        pytest.param(
            {"properties": {f"p{n}": {"not": {"$ref": "#/$defs/d0"}} for n in range(300)}} | doubling(6, "anyOf"),
            id="many conditions that double",
        ),
        pytest.param(growing(14), id="an object that is closed in another way on each path"),
        pytest.param(
            {
                "properties": {f"p{n}": {"oneOf": [{"$ref": "#/$defs/a"}, {"type": "string"}]} for n in range(100)},
                "$defs": {"a": {"type": "object", "properties": {f"q{n}": {} for n in range(600)}}},
            },
            id="a large branch that is compared at many places",
        ),
        pytest.param(
            {
                "properties": {f"p{n}": {"$ref": "#/$defs/a"} for n in range(1_400)},
                "$defs": {"a": {"anyOf": [{}] * 1_400}},
            },
            id="a large union at many places",
        ),
        pytest.param(
            {"dependentRequired": {f"p{n}": [f"p{m}" for m in range(40)] for n in range(40)}}, id="many dependencies"
        ),
    ],
)
def test_a_schema_that_was_meant_to_hang_the_server_takes_as_long_as_a_few_plain_ones(schema, plain_seconds):
    schema = json.loads(json.dumps(schema))  # with no object that stands in several places
    assert seconds_of(schema) < 8 * plain_seconds
