"""What a grammar keeps to of the schemas that people have, and what is said of the rest."""

from decimal import Decimal
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, HttpUrl

from hermes.json_schema.grammar import enforceable
from tests.support.grammars import accepts

pytestmark = pytest.mark.xdist_group("vocabulary")  # each process that has the real one takes 250 MB more

TEXT, INTEGER = {"type": "string"}, {"type": "integer"}
INT64 = 2**63 - 1


def thing(**properties):
    return {"type": "object", "properties": properties}


class Invoice(BaseModel):
    total: Decimal
    site: HttpUrl | None = None


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    barks: bool


class Owner(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


ZOD_EMAIL = r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
KINDS = {  # the schema, what its grammar allows, what not, and what is left out
    "zod's email": (
        {"type": "string", "format": "email", "pattern": ZOD_EMAIL},
        ["ada@example.com"],
        ["ada", "a b@example.com"],
        ["$.pattern"],
    ),
    "a long address": (
        {"type": "string", "format": "uri", "minLength": 100, "maxLength": 2_083},
        ["https://example.com/"],
        ["x y"],
        ["$.maxLength", "$.minLength"],
    ),
    "a name that no grammar has, and one that is required": (
        {
            "type": "object",
            "patternProperties": {r"^(a|b)\1$": INTEGER},
            "additionalProperties": False,
            "required": ["aa"],
            "minProperties": 1,
        },
        [{"aa": 1}],
        [{}],
        ["$.patternProperties"],
    ),
    "names that are texts": (
        {"type": "object", "propertyNames": TEXT, "additionalProperties": INTEGER},
        [{}, {"a": 1, "b": 2}],
        [{"a": "x"}],
        [],
    ),
    "names of a pattern": (
        {"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}, "additionalProperties": INTEGER},
        [{"ab": 1}],
        [{"A": 1}, {"ab": "x"}],
        [],
    ),
    "a tuple of draft 7": (
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "array",
            "items": [TEXT, INTEGER],
            "additionalItems": False,
            "minItems": 2,
        },
        [["a", 1]],
        [["a"], [1, "a"], ["a", 1, 2]],
        [],
    ),
    "a tuple of a draft that is not said": (
        {"items": [TEXT], "additionalItems": INTEGER},
        [["a", 1]],
        [["a", "b"]],
        [],
    ),
    "properties beside anyOf of required": (
        thing(a=TEXT, b=TEXT) | {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        [{"a": "x"}, {"b": "x"}, {"a": "x", "b": "y"}],
        [{}, {"c": "x"}, {"a": 1}],
        [],
    ),
    "oneOf by required keys": (
        thing(issue=INTEGER, pull=INTEGER, repo=TEXT)
        | {"required": ["repo"], "oneOf": [{"required": ["issue"]}, {"required": ["pull"]}]},
        [{"repo": "x", "issue": 1}, {"repo": "x", "pull": 1}],
        [{"repo": "x"}, {"repo": "x", "issue": 1, "pull": 1}, {"issue": 1}],
        [],
    ),
    "oneOf by several required keys": (
        thing(a=TEXT, b=TEXT, c=TEXT) | {"oneOf": [{"required": ["a"]}, {"required": ["b", "c"]}]},
        [{"a": "x"}, {"a": "x", "b": "y"}, {"b": "x", "c": "y"}],
        [{}, {"b": "x"}, {"a": "x", "b": "y", "c": "z"}],
        [],
    ),
    "pydantic's Decimal and HttpUrl": (
        Invoice.model_json_schema(),
        [{"total": 12.5}, {"total": "12.50", "site": None}, {"total": 1, "site": "https://example.com/a"}],
        [{"total": None}, {"total": 1, "site": "no"}, {}],
        None,  # pydantic 2.13 writes a look-ahead, 2.14 does not
    ),
    "bounds of int64": (
        {"type": "integer", "minimum": -INT64 - 1, "maximum": INT64},
        [0, 2**53, -(2**53)],
        [2**63, -(2**63) - 1, 1.5],
        [],
    ),
    "a tag with a default": (
        Owner.model_json_schema(),
        [{"pet": {"lives": 9, "kind": "cat"}}, {"pet": {"lives": 9}}, {"pet": {"kind": "dog", "barks": True}}],
        [{"pet": {"barks": True, "kind": "cat"}}, {"pet": {"kind": "cow"}}],
        [],
    ),
    "a type that none of the values has": (
        thing(a=TEXT, unit={"type": "integer", "enum": ["celsius", "fahrenheit"]}) | {"required": ["a"]},
        [{"a": "x"}],
        [{"a": "x", "unit": "celsius"}, {"a": "x", "unit": 1}],
        [],
    ),
    "a root that is a reference": (
        {"$ref": "#/$defs/a", "$defs": {"a": thing(b=INTEGER)}},
        [{}, {"b": 1}],
        [{"b": "x"}, {"c": 1}, 1],
        [],
    ),
    "a root that is allOf of one": (
        {"allOf": [{"$ref": "#/definitions/a"}], "definitions": {"a": thing(b=INTEGER)}},
        [{"b": 1}],
        [{"b": "x"}, {"c": 1}],
        [],
    ),
    "what is inherited": (
        {"allOf": [{"$ref": "#/$defs/base"}, thing(c=TEXT) | {"required": ["c"]}], "$defs": {"base": thing(b=INTEGER)}},
        [{"c": "x"}, {"b": 1, "c": "x"}],
        [{"b": 1}, {"b": "x", "c": "y"}, {"c": "x", "d": 1}],
        [],
    ),
    "a union beside properties": (
        thing(kind=TEXT) | {"anyOf": [thing(a=INTEGER) | {"required": ["a"]}, thing(b=INTEGER) | {"required": ["b"]}]},
        [{"kind": "x", "a": 1}, {"b": 1}],
        [{"kind": "x"}, {"a": 1, "b": 1}, {"a": 1, "c": 1}],
        [],
    ),
    "a bound of draft 4": (
        {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "type": "integer",
            "minimum": 0,
            "exclusiveMinimum": True,
        },
        [1],
        [0],
        [],
    ),
    "free keys of a pattern": (
        thing(a=INTEGER) | {"patternProperties": {"^x-": TEXT}, "additionalProperties": False},
        [{"a": 1, "x-b": "c"}],
        [{"x-b": 1}, {"b": 1}],
        [],
    ),
    "free keys that are asked for": (
        thing(a=INTEGER) | {"additionalProperties": TEXT},
        [{"a": 1, "b": "c"}],
        [{"a": "x"}, {"b": 1}],
        [],
    ),
    "two free keys at least": ({"type": "object", "minProperties": 2}, [{"a": 1, "b": 2}], [{}], ["$.minProperties"]),
    "one property of several": (thing(a=TEXT, b=TEXT) | {"minProperties": 1}, [{"b": "x"}], [{}], []),
    "two properties of several": (
        thing(a=TEXT, b=TEXT, c=TEXT) | {"minProperties": 2, "maxProperties": 2},
        [{"a": "x", "b": "y"}],
        [{"d": 1}],
        ["$.maxProperties", "$.minProperties"],
    ),
    "dependencies": (
        thing(card=TEXT, address=TEXT) | {"dependencies": {"card": ["address"]}},
        [{}, {"address": "x"}, {"card": "y", "address": "x"}],
        [{"card": "y"}],
        [],
    ),
    "if with a constant": (
        thing(kind={"enum": ["a", "b"]}, extra=TEXT)
        | {"required": ["kind"], "if": {"properties": {"kind": {"const": "a"}}}, "then": {"required": ["extra"]}},
        [{"kind": "b"}, {"kind": "a", "extra": "x"}],
        [{"kind": "a"}],
        [],
    ),
    "not of a key": (thing(a=TEXT, b=TEXT) | {"not": {"required": ["b"]}}, [{"a": "x"}], [{"a": "x", "b": "y"}], []),
    "not of a text": (
        thing(a={"type": "string", "not": {"enum": ["x", "xy"]}}),
        [{"a": "xyz"}],
        [{"a": "xy"}],
        [],
    ),
    "what is named only": (
        thing(
            tags={"type": "array", "items": TEXT, "uniqueItems": True, "contains": {"const": "a"}},
            price={"type": "number", "multipleOf": 0.01},
            link={"type": "string", "format": "uri-reference"},
            name={"type": "string", "not": {"pattern": "^x"}},
            value={"oneOf": [{"type": "number"}, {"type": "integer"}]},
            colour={"type": "string", "format": "colour"},
        ),
        [{"tags": ["b", "b"], "price": 0.005, "link": "x", "name": "x", "value": 1, "colour": "x"}],
        [{"tags": [1]}, {"price": "x"}],
        [
            "$.properties.link.format",
            "$.properties.name.not",
            "$.properties.price.multipleOf",
            "$.properties.tags.contains",
            "$.properties.tags.uniqueItems",
            "$.properties.value.oneOf",
        ],
    ),
    "multiples from 0 on": (
        thing(a={"type": "integer", "multipleOf": 5, "minimum": 0}),
        [{"a": 0}, {"a": 25}],
        [{"a": 3}, {"a": -5}],
        [],
    ),
    "multiples that may be negative": (
        thing(a={"type": "integer", "multipleOf": 100, "maximum": -100}, b={"type": "integer", "multipleOf": 5}),
        [{"a": -300, "b": -5}, {"a": -250, "b": 5}],
        [{"a": 100}, {"a": -7}],
        ["$.properties.a.multipleOf", "$.properties.b.multipleOf"],
    ),
    "more items than an answer holds": (
        {"type": "array", "items": {"type": "array", "maxItems": 10**6}, "minItems": 1, "maxItems": 10**6},
        [[[]], [[1, 2]]],
        [[]],
        [],
    ),
    "many items in all": (
        thing(**{f"p{n}": {"maxItems": 4_000} for n in range(6)}),
        [{}],
        [],
        ["$.properties.p5.maxItems"],
    ),
    "words and digits, which are ASCII": (
        {
            "type": "object",
            "patternProperties": {"^[^\\w]$": {"pattern": "^\\w\\d\\W$"}},
            "additionalProperties": False,
        },
        [{"-": "a1+"}, {"é": "b2é"}],
        [{"a": "a1+"}, {"-": "é1+"}, {"-": "a٣+"}, {"-": "a1a"}],
        [],
    ),
    "names of words beside others": (
        {"patternProperties": {"^\\w+$": INTEGER}, "additionalProperties": TEXT},
        [{"a1": 1, "é": "x"}, {"a\n": "x"}],
        [{"a1": "x"}, {"é": 1}],
        [],
    ),
    "names of a pattern that llguidance refuses": (
        {"propertyNames": {"pattern": "^(?!x)"}},
        [{"a": 1}],
        [],
        ["$.propertyNames"],
    ),
    "names that are no texts": ({"propertyNames": {"type": "integer"}}, [{}], [], ["$.propertyNames"]),
    "two patterns of one meaning": (
        {"patternProperties": {"^\\d$": INTEGER, "^[0-9]$": {"minimum": 3}}},
        [{"1": 5}],
        [],
        ["$.patternProperties"],
    ),
    "set operators and a nested class, which are characters": (
        {"items": {"pattern": "^[a-z&&[^b]]$"}},
        [["a]", "b]", "[]", "&]"]],
        [["a"], ["-]"]],
        [],
    ),
    "all but a quote": ({"items": {"pattern": '^[^"]$'}}, [["a", "\n", "\\"]], [['"'], ["ab"]], []),
    "names without a quote, beside others": (
        {"patternProperties": {'^[^"]*$': INTEGER}, "additionalProperties": TEXT},
        [{"a": 1, 'a"': "x"}],
        [{"a": "x"}],
        ["$.patternProperties"],
    ),
    "syntax of Rust and Python only": (
        thing(
            a={"pattern": "^(?i)a$"}, b={"pattern": "^[[:alpha:]]$"}, c={"pattern": "^a++$"}, d={"pattern": "^\\pL$"}
        ),
        [{"a": "A", "b": "b", "c": "aa", "d": "d"}],
        [{"a": "b"}, {"b": "1"}, {"d": "1"}],
        [f"$.properties.{name}.pattern" for name in "abcd"],
    ),
    "a number that llguidance reads inexactly": ({"enum": [1, 2**60]}, [1], [], ["$.enum"]),
    "a reference by an anchor": (
        {"$ref": "#here", "$defs": {"a": {"$anchor": "here", "type": "integer"}}},
        [1],
        ["x"],
        [],
    ),
    "a reference by an id": (
        {"$id": "https://example.com/a", "$ref": "b", "$defs": {"b": {"$id": "b", "type": "integer"}}},
        [1],
        ["x"],
        [],
    ),
    "a tree": (
        {"$ref": "#/$defs/tree", "$defs": {"tree": thing(kids={"type": "array", "items": {"$ref": "#/$defs/tree"}})}},
        [{"kids": [{}, {"kids": []}]}],
        [{"kids": [1]}, {"kids": [{"x": 1}]}],
        [],
    ),
}


@pytest.mark.parametrize(("schema", "good", "bad", "left_out"), KINDS.values(), ids=KINDS)
def test_a_kind_of_schema_that_people_have(schema, good, bad, left_out):
    assert [value for value in good if not accepts(schema, value)] == []
    assert [value for value in bad if accepts(schema, value)] == []
    if left_out is not None:
        assert sorted(enforceable(schema).unenforced) == left_out
