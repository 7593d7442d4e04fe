"""Documents with numbers, drawn from the grammar by a model that would rather not end, and what else the rules hold."""

import json
import random

import pytest

from hermes.json_schema.grammar import enforceable
from hermes.json_schema.lark import MAX_RANGES
from hermes.json_schema.validate import Validator
from tests.support.grammars import BYTES, accepts, allowed, grammar_of, lark_allows, matcher_of

pytestmark = pytest.mark.xdist_group("vocabulary")  # each process that has the real one takes 250 MB more

NUMBER, INTEGER, TEXT = {"type": "number"}, {"type": "integer"}, {"type": "string"}
SHORT = {"type": "string", "maxLength": 5}
TREE, LIST = {"$ref": "#/$defs/t"}, {"type": "array"}
MOST = 1_024  # tokens, each a byte


def thing(*required, **properties):
    return {"type": "object", "properties": properties, "required": list(required)}


ENDING = [
    NUMBER,
    INTEGER,
    {"type": ["number", "null"]},
    {"type": "number", "minimum": 0},
    {"type": "number", "minimum": -90, "maximum": 90},
    {"type": "integer", "minimum": 1},
    {"type": "integer", "minimum": 0, "multipleOf": 5},
    thing("a", a={"type": "number", "exclusiveMinimum": 0, "multipleOf": 7}),
    {"type": "string", "format": "duration"},
    {"type": "string", "format": "date-time"},
    {"anyOf": [NUMBER, SHORT, {"type": "null"}]},
    {"oneOf": [NUMBER, {"type": "boolean"}]},
    {"allOf": [NUMBER]},
    {"$ref": "#/$defs/price", "$defs": {"price": NUMBER}},
    thing("lat", "lon", lat=NUMBER, lon=NUMBER, height=NUMBER),
    thing("x", x={"$ref": "#/$defs/a"}) | {"$defs": {"a": thing("y", y=NUMBER)}},
    thing(a={"type": "number", "multipleOf": 0.01}, b={"type": "number", "exclusiveMinimum": 0}),
    {"type": "array", "items": NUMBER, "minItems": 3, "maxItems": 3},
    {"type": "array", "items": NUMBER, "maxItems": 1},
    {"type": "array", "items": INTEGER, "minItems": 1, "maxItems": 1},
    {"type": "object", "additionalProperties": NUMBER, "maxProperties": 1},
    thing(a={"enum": []}, b=NUMBER, c={"type": "array", "items": SHORT, "maxItems": 1}),
    {"type": "array", "prefixItems": [NUMBER, INTEGER], "items": False, "minItems": 1},
    {"type": "array", "prefixItems": [SHORT, NUMBER], "items": NUMBER, "maxItems": 4},
    {"type": "object", "additionalProperties": NUMBER, "propertyNames": {"type": "string"}, "maxProperties": 2},
    thing("p", p={"enum": [1, 2.5, "x"]}, q=thing("r", r=INTEGER, s={"anyOf": [thing("t", t=NUMBER), NUMBER]})),
]


def most_digits(able, draw):
    """The token of a model that writes digits wherever it may, and ends last."""
    digits = [token for token in able if chr(token) in "0123456789.eE-"]
    closing = [token for token in able if chr(token) in '"}]']
    in_text = len(able) > 60
    return draw.choice((closing if in_text else digits) or closing or able)


def any_token(able, draw):
    return draw.choice(able)


@pytest.mark.parametrize("choose", [most_digits, any_token])
@pytest.mark.parametrize("schema", ENDING, ids=json.dumps)
def test_every_document_ends(schema, choose):
    enforced = enforceable(schema)
    for seed in range(3):
        matcher, draw, written = matcher_of(enforced), random.Random(seed), []
        while able := [token for token in allowed(matcher) if token != BYTES.engine.eos_token]:
            written.append(choose(able, draw))
            assert matcher.consume_token(written[-1])
            assert len(written) < MOST, bytes(written)
        text = bytes(written).decode()
        assert Validator(schema).problem(json.loads(text)) is None or enforced.unenforced, text


@pytest.mark.parametrize("schema", [{}, {"type": "object"}, {"type": "array"}, thing(a={})], ids=json.dumps)
def test_numbers_in_free_values_end(schema):
    for value in ({"a": [1.5, {"b": -2e-7}]}, {}, {"a": None}, {"a": {"a": "x"}}):
        value = [value] if schema == {"type": "array"} else value
        assert accepts(schema, value)
    assert not lark_allows(grammar_of(enforceable(schema)), json.dumps({"a": 1}).replace("1", "1" * 21))


KINDS = {  # the schema, what its grammar allows, and what not
    "branches that begin alike": (
        {"anyOf": [thing("a", a=NUMBER), thing("a", a=TEXT), {"type": "array", "items": TEXT}]},
        [{"a": 1.5}, {"a": "x"}, ["x", "y"]],
        [{"a": None}, [1], {"a": "x", "b": 1}],
    ),
    "a branch that no value has": (
        {"anyOf": [NUMBER, {"type": "integer", "enum": ["x"]}, {"type": "number", "minimum": 3, "maximum": 2}]},
        [1.5],
        ["x"],
    ),
    "a property that no value has": (thing(a=False, b=NUMBER, c=NUMBER), [{"b": 1}, {"c": 2}, {}], [{"a": 1}]),
    "an item that no value has": (
        {"type": "array", "prefixItems": [NUMBER, False, NUMBER]},
        [[], [1]],
        [[1, 2], [1, 2, 3]],
    ),
    "names like rules": (
        thing("response", "COMMA", "any", response=NUMBER, COMMA=INTEGER, any={}, start=NUMBER),
        [{"response": 1, "COMMA": 2, "any": 3}, {"response": 1, "COMMA": 2, "any": 3, "start": 4}],
        [{"response": 1}],
    ),
    "names of any characters": (
        thing("日本", **{"日本": NUMBER, 'q"\n': NUMBER, "a\\b": NUMBER, "𝔘": NUMBER, "": NUMBER, "%json {}": NUMBER}),
        [{"日本": 1}, {"日本": 1, 'q"\n': 2, "a\\b": 3, "𝔘": 4, "": 5, "%json {}": 6}],
        [{"": 1}],
    ),
    "required ones among others": (
        thing("b", "d", **dict.fromkeys("ebcda", NUMBER)),
        [dict.fromkeys(names, 1) for names in ("bd", "ebd", "bcd", "bda", "ebcda")],
        [dict.fromkeys(names, 1) for names in ("", "b", "ed", "be", "dba")],
    ),
    "a count of items": (
        {"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 3},
        [[1, 2], [1, 2, 3]],
        [[], [1], [1, 2, 3, 4]],
    ),
    "a tuple": (
        {"type": "array", "prefixItems": [NUMBER, TEXT], "items": INTEGER, "minItems": 1, "maxItems": 3},
        [[1], [1, "a"], [1, "a", 2]],
        [[], ["a"], [1, "a", 1.5], [1, "a", 2, 3]],
    ),
    "a tree": (
        {
            "$ref": "#/$defs/t",
            "$defs": {"t": thing("v", v=NUMBER, kids={"type": "array", "items": {"$ref": "#/$defs/t"}})},
        },
        [{"v": 1}, {"v": 1, "kids": [{"v": 2, "kids": []}]}],
        [{}, {"v": 1, "kids": [{}]}],
    ),
    "other names beside those that are declared": (
        thing("z", "b", b=NUMBER, a=TEXT) | {"additionalProperties": NUMBER},
        [{"b": 1, "z": 2}, {"b": 1, "a": "x", "z": 2}, {"b": 1, "z": 2, "c": 3, "日": 4, 'q"': 5, "": 6}],
        [{"b": 1}, {"b": 1, "z": "x"}, {"b": 1, "z": 2, "c": "x"}, {"b": 1, "z": 2, "a": 3}],
    ),
    "any other names": (
        thing(a=NUMBER) | {"additionalProperties": True},
        [{}, {"a": 1}, {"b": "x"}, {"a": 1, "b": [1]}, {f"p{n}": n for n in range(64)}],
        [{"a": "x"}, {f"p{n}": n for n in range(66)}],
    ),
    "no item at all": ({"type": "array", "items": NUMBER, "maxItems": 0}, [[]], [[1]]),
    "a map of numbers": (
        {"type": "object", "additionalProperties": NUMBER, "minProperties": 1},
        [{"a": 1}, {"a": 1, "b": 2.5}],
        [{}, {"a": "x"}],
    ),
}


@pytest.mark.parametrize(("schema", "good", "bad"), KINDS.values(), ids=KINDS)
def test_rules_hold_what_the_schema_says(schema, good, bad):
    assert [value for value in good if not accepts(schema, value)] == []
    assert [value for value in bad if accepts(schema, value)] == []
    assert "COMMA" in grammar_of(enforceable(schema))


def test_a_definition_that_no_value_has_is_in_nobodys_way():
    nothing = {"type": "integer", "enum": ["x"]}
    schema = {"anyOf": [{"$ref": "#/$defs/nothing"}, NUMBER], "$defs": {"nothing": nothing}}
    assert accepts(schema, 1.5)
    assert not accepts(schema, "x")


@pytest.mark.parametrize("schema", [TEXT, thing(a=TEXT), thing(a={"type": "integer", "minimum": 1, "maximum": 9})])
def test_a_schema_of_which_no_digits_go_on_is_one_json(schema):
    assert grammar_of(enforceable(schema)).startswith("start: %json")


def test_white_space_is_that_of_json_elsewhere():
    grammar = grammar_of(enforceable(thing(a=NUMBER, b={"type": "array", "items": NUMBER})))
    assert lark_allows(grammar, '{"a": 1,\n"b":[1, 2,\n3]}')
    for text in ['{ "a": 1}', '{"a" : 1}', '{"a":  1}', '{"a": 1 }', '{"a": 1}\n', '{"b": [1,  2]}']:
        assert not lark_allows(grammar, text)


def test_only_so_many_ranges_are_compared_digit_by_digit():
    ranges = {f"p{n}": {"type": "number", "minimum": n + 0.5, "maximum": 10 * n + 1} for n in range(MAX_RANGES + 9)}
    schema = thing(**ranges)
    assert grammar_of(enforceable(schema)).count("\nN") == MAX_RANGES
    for n in (0, MAX_RANGES + 8):
        assert accepts(schema, {f"p{n}": 10 * n + 1})
        assert not accepts(schema, {f"p{n}": 10 * n + 1.5})


def test_a_wide_and_deep_schema_is_no_deep_grammar():
    """llguidance follows a grammar on its stack: a process dies of some 1,500 rules in a row."""
    schema = NUMBER
    for level in range(10):
        schema = thing(*["z"][level % 2 :], **{f"p{n}": NUMBER for n in range(150)}, z=schema)
    assert matcher_of(enforceable(schema))
