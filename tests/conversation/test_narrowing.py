"""JSON schemas and what becomes of them for the grammar: the tables say which keywords are kept, and in what form."""

import json
import time
from contextlib import suppress

import pytest

from hermes.conversation.pattern import FORMATS, any_string, raw_pattern
from hermes.conversation.schema import narrowed
from hermes.conversation.schema_limits import SchemaProblem

ANY_LIST = {"type": "array", "items": {}, "minItems": 0}
FREE = {"type": "object", "additionalProperties": {}}


def closed(properties, **keywords):
    return {"type": "object", "properties": properties, "additionalProperties": False, **keywords}


def nested(levels, inner=None):
    schema = {} if inner is None else inner
    for _ in range(levels):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "narrow"),
    [
        pytest.param({}, {}, id="anything"),
        pytest.param(
            {"title": "T", "description": "D", "default": 1, "examples": [1], "deprecated": True}, {}, id="notes"
        ),
        pytest.param({"type": "boolean"}, {"type": "boolean"}, id="a type"),
        pytest.param(
            {"type": ["string", "null"]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}, id="several types"
        ),
        pytest.param({"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "x:y"}, {}, id="what it is"),
        # objects
        pytest.param({"type": "object"}, FREE, id="an object"),
        pytest.param(
            {"properties": {"a": {"type": "null"}, "b": True}, "required": ["b", "c"]},
            closed({"a": {"type": "null"}, "b": {}, "c": {}}, required=["b", "c"]),
            id="properties, and a name that is only required",
        ),
        pytest.param(
            {"properties": {"a": {}}, "required": ["b"], "additionalProperties": {"type": "null"}},
            closed({"a": {}, "b": {"type": "null"}}, required=["b"]),
            id="a name that is only required is one of the additional ones",
        ),
        pytest.param({"properties": {}}, closed({}), id="no properties"),
        pytest.param({"properties": {"a": False}}, closed({}), id="a property that may not be"),
        pytest.param({"additionalProperties": False}, closed({}), id="an empty object"),
        pytest.param(
            {"additionalProperties": {"type": "null"}, "minProperties": 1, "maxProperties": 2},
            {**FREE, "additionalProperties": {"type": "null"}, "minProperties": 1, "maxProperties": 2},
            id="free names",
        ),
        pytest.param(
            {"properties": {"a": {}, "b": {}}, "required": ["a"], "minProperties": 1, "maxProperties": 1},
            closed({"a": {}, "b": {}}, required=["a"], maxProperties=1),
            id="counts, and those that are said anyway",
        ),
        # arrays
        pytest.param({"type": "array"}, ANY_LIST, id="an array"),
        pytest.param(
            {"items": {"type": "null"}, "minItems": 1, "maxItems": 3},
            {"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 3},
            id="items",
        ),
        pytest.param({"items": False}, {**ANY_LIST, "items": False, "maxItems": 0}, id="an empty array"),
        pytest.param(
            {"prefixItems": [{"type": "null"}, {}], "minItems": 1},
            {"type": "array", "items": {}, "prefixItems": [{"type": "null"}, {}], "minItems": 2},
            id="the first items are all there",
        ),
        pytest.param(
            {"prefixItems": [{}, {"type": "null"}, {}], "items": {"not": {}}, "maxItems": 2},
            {"type": "array", "items": False, "prefixItems": [{}, {"type": "null"}], "minItems": 2, "maxItems": 2},
            id="as many as may be",
        ),
        # strings
        pytest.param({"type": "string"}, {"type": "string"}, id="a string"),
        pytest.param({"minLength": 2}, {"type": "string", "pattern": any_string(2, None)}, id="minLength"),
        pytest.param({"maxLength": 5.0}, {"type": "string", "pattern": any_string(0, 5)}, id="maxLength"),
        pytest.param({"pattern": "^a"}, {"type": "string", "pattern": raw_pattern("^a")}, id="pattern"),
        pytest.param(
            {"format": "date"},
            {"type": "string", "pattern": raw_pattern(f"^(?:{FORMATS['date']})$")},
            id="format",
        ),
        pytest.param({"type": "string", "format": "colour"}, {"type": "string"}, id="a format that is a note"),
        pytest.param({"type": "integer", "maxLength": 5}, {"type": "integer"}, id="keywords of another type"),
        # numbers
        pytest.param({"minimum": 0.5}, {"type": "number", "minimum": 0.5}, id="a number"),
        pytest.param(
            {"type": "number", "minimum": 1, "exclusiveMaximum": 1.5},
            {"type": "number", "minimum": 1, "exclusiveMaximum": 1.5},
            id="a number's bounds",
        ),
        pytest.param(
            {"type": "integer", "minimum": 0.5, "exclusiveMaximum": 7},
            {"type": "integer", "minimum": 1, "maximum": 6},
            id="an integer's bounds are whole and inclusive",
        ),
        pytest.param(
            {"type": "integer", "minimum": 0, "exclusiveMinimum": -0.5, "maximum": 9.9, "exclusiveMaximum": 9.1},
            {"type": "integer", "minimum": 0, "maximum": 9},
            id="the narrower bound",
        ),
        # values
        pytest.param({"enum": [1, "a", None]}, {"enum": [1, "a", None]}, id="enum"),
        pytest.param({"const": {"a": [1]}}, {"enum": [{"a": [1]}]}, id="const"),
        pytest.param({"type": "integer", "enum": [1, 2.0, 2.5, True, "a"]}, {"enum": [1, 2.0]}, id="enum of a type"),
        pytest.param({"type": ["string", "null"], "enum": [None, 1, "a"]}, {"enum": [None, "a"]}, id="of two types"),
        # combinations
        pytest.param({"anyOf": [{"type": "null"}, True]}, {"anyOf": [{"type": "null"}, {}]}, id="anyOf"),
        pytest.param({"anyOf": [{"type": "null"}]}, {"type": "null"}, id="anyOf one"),
        pytest.param({"allOf": [{"type": "null"}]}, {"type": "null"}, id="allOf one"),
        pytest.param(
            {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}, {"type": "object"}, True]},
            {"anyOf": [closed({"a": {}}, required=["a"]), closed({"b": {}}, required=["b"]), FREE, FREE]},
            id="a type beside anyOf goes into its branches",
        ),
        pytest.param(
            {"oneOf": [{"type": "string"}, {"type": ["integer", "null"]}, {"enum": [True, []]}]},
            {
                "anyOf": [
                    {"type": "string"},
                    {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                    {"enum": [True, []]},
                ]
            },
            id="oneOf whose types differ",
        ),
        pytest.param(
            {"oneOf": [{"const": 1}, {"enum": [2, 3]}]}, {"anyOf": [{"enum": [1]}, {"enum": [2, 3]}]}, id="or values"
        ),
        pytest.param(
            {
                "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
                "$defs": {
                    "a": {"type": "object", "properties": {"kind": {"const": "a"}}, "required": ["kind"]},
                    "b": {"type": "object", "properties": {"kind": {"enum": ["b", "c"]}}, "required": ["kind"]},
                },
            },
            {
                "anyOf": [{"$ref": "#/$defs/d0"}, {"$ref": "#/$defs/d1"}],
                "$defs": {
                    "d0": closed({"kind": {"enum": ["a"]}}, required=["kind"]),
                    "d1": closed({"kind": {"enum": ["b", "c"]}}, required=["kind"]),
                },
            },
            id="or a property",
        ),
        # references
        pytest.param(
            {"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}},
            {"$ref": "#/$defs/d0", "$defs": {"d0": {**ANY_LIST, "items": {"$ref": "#/$defs/d0"}}}},
            id="recursion",
        ),
        pytest.param(
            {"items": {"$ref": "#"}},
            {
                **ANY_LIST,
                "items": {"$ref": "#/$defs/d0"},
                "$defs": {"d0": {**ANY_LIST, "items": {"$ref": "#/$defs/d0"}}},
            },
            id="the root",
        ),
        pytest.param(
            {"items": {"$ref": "#/$defs/a~1b~0%25", "title": "T"}, "$defs": {"a/b~%": {"type": "null"}}},
            {**ANY_LIST, "items": {"$ref": "#/$defs/d0"}, "$defs": {"d0": {"type": "null"}}},
            id="a name that needs escaping",
        ),
        pytest.param(
            {"prefixItems": [{"type": "null"}, {"$ref": "#/prefixItems/0"}]},
            {
                "type": "array",
                "items": {},
                "prefixItems": [{"type": "null"}, {"$ref": "#/$defs/d0"}],
                "minItems": 2,
                "$defs": {"d0": {"type": "null"}},
            },
            id="an item of a list",
        ),
        pytest.param({"$defs": {"unused": {"not": {}}}}, {}, id="what nothing refers to is left out"),
        pytest.param(
            {"prefixItems": [{"$ref": "#/$defs/a"}, {"$ref": "#/%24defs/%61"}], "$defs": {"a": {"type": "null"}}},
            {
                "type": "array",
                "items": {},
                "prefixItems": [{"$ref": "#/$defs/d0"}] * 2,
                "minItems": 2,
                "$defs": {"d0": {"type": "null"}},
            },
            id="one place, written in two ways",
        ),
    ],
)
def test_a_schema_is_narrowed(schema, narrow):
    before = json.dumps(schema)
    assert narrowed(schema) == narrow
    assert json.dumps(schema) == before


def test_properties_come_in_the_order_of_required_and_then_in_their_own():
    schema = {"properties": {"a": {}, "b": {}, "c": {}}, "required": ["z", "b"]}
    assert list(narrowed(schema)["properties"]) == ["z", "b", "a", "c"]


NOT_ENFORCED = "is not enforced by the grammar; leave it out"


@pytest.mark.parametrize(
    "keyword",
    [
        *("not", "if", "then", "else", "contains", "propertyNames", "unevaluatedProperties", "unevaluatedItems"),
        *("dependentRequired", "dependentSchemas", "dependencies", "patternProperties", "additionalItems"),
        *("minContains", "maxContains", "uniqueItems", "multipleOf", "$anchor", "$dynamicRef", "$dynamicAnchor"),
        "$recursiveRef",
    ],
)
def test_a_keyword_that_the_grammar_does_not_keep_to_is_refused(keyword):
    values = {"minContains": 1, "maxContains": 1, "uniqueItems": True, "multipleOf": 2, "$recursiveRef": "#"}
    values |= {"$anchor": "a", "$dynamicRef": "#a", "$dynamicAnchor": "a"}
    with pytest.raises(SchemaProblem) as refused:
        narrowed({"properties": {"a b": {"items": {keyword: values.get(keyword, {})}}}})
    assert str(refused.value) == f"$.properties['a b'].items: {keyword!r} {NOT_ENFORCED}"


NO_NUMBER = "holds NaN, an infinity or a number of thousands of digits"
HALF = "holds a lone surrogate (U+D800) at character 2, which is no text; send valid Unicode"
EMPTY = "is satisfied by no number: its bounds contradict each other"
INSIDE = "is not enforced by the grammar; put it inside"


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        # size
        pytest.param([], "$ has to be an object, not list", id="a list"),
        pytest.param({"title": "x" * 65_530}, "$ is 65543 bytes of JSON; at most 65536", id="too large"),
        pytest.param({"title": "é" * 32_765}, "$ is 65543 bytes of JSON; at most 65536", id="too large in bytes"),
        pytest.param(nested(33), f"${'.items' * 33} is nested more than 32 levels deep", id="too deep"),
        pytest.param({"enum": [0] * 2001}, "$.enum has 2001 entries; at most 2000", id="enum too long"),
        pytest.param(
            {"properties": {f"p{n}": {} for n in range(301)}},
            "$: 'properties' has 301 properties; at most 300 optional ones",
            id="too many properties",
        ),
        pytest.param(
            {"items": {"pattern": "a" * 2_000}, "$defs": {"a": {"pattern": "a" * 2_001}}},
            "$: 'pattern' has 4001 characters in all; at most 4000",
            id="patterns too long",
        ),
        pytest.param(
            {"anyOf": [{}, True] * 999, "$defs": {"a": {"anyOf": [{}] * 1_000}}},
            "$ holds 3001 objects and booleans; at most 3000",
            id="too many schemas",
        ),
        # what json could not have read, or nothing can write
        pytest.param({"default": float("nan")}, f"$ {NO_NUMBER}", id="NaN"),
        pytest.param({"const": 10**5_000}, f"$ {NO_NUMBER}", id="more digits than Python writes"),
        pytest.param({"enum": ["a", "a\ud800"]}, f"$.enum[1] {HALF}", id="half a character in a value"),
        pytest.param({"properties": {"a\ud800": {}}}, f"$.properties {HALF}", id="half a character in a name"),
        # what is quoted of it is short, and on one line
        pytest.param(
            {"properties": {"x" * 60_000: {"not": {}}}},
            f"$.properties.{'x' * 184}...: 'not' is not enforced by the grammar; leave it out",
            id="a long name",
        ),
        pytest.param(
            {"properties": {"a\nb": {"type": 5}}},
            "$.properties['a b'].type is not valid in a JSON schema: 5 is not valid under any of the given schemas",
            id="a name of two lines",
        ),
        pytest.param(
            {"$ref": "#" + "x" * 60_000},
            f"$: '$ref' to '#{'x' * 55}... is no place of a schema; point into '$defs'",
            id="a long reference",
        ),
        pytest.param(
            {"pattern": f"(?P<1{'x' * 2_999}>)"},
            f"$: 'pattern' is not a regular expression: bad character in group name '1{'x' * 238}...",
            id="a long group name",
        ),
        # not a schema
        pytest.param(
            {"properties": {"a": {"type": "int"}}},
            "$.properties.a.type is not valid in a JSON schema: 'int' is not valid under any of the given schemas",
            id="an unknown type",
        ),
        pytest.param(
            {"items": [{}]},
            "$.items is not valid in a JSON schema: [{}] is not of type 'object', 'boolean'",
            id="an older draft",
        ),
        pytest.param({"pattern": "("}, "$: 'pattern' is not a regular expression: missing ), ", id="not a pattern"),
        # nothing satisfies it
        pytest.param({"items": {"anyOf": [False]}}, "$.items.anyOf[0] is false, which no value satisfies", id="false"),
        pytest.param(
            {"properties": {"a": False}, "required": ["a"]},
            "$.properties.a is false, which no value satisfies",
            id="required and false",
        ),
        pytest.param({"enum": []}, "$: 'enum' has no value of the type that it has to be", id="an empty enum"),
        pytest.param(
            {"type": "string", "const": 5},
            "$: 'const' has no value of the type that it has to be",
            id="const of no type",
        ),
        pytest.param({"minimum": 2, "maximum": 1}, f"$ {EMPTY}", id="minimum above maximum"),
        pytest.param({"minimum": 1, "exclusiveMaximum": 1}, f"$ {EMPTY}", id="nothing between"),
        pytest.param(
            {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}, f"$ {EMPTY}", id="no integer between"
        ),
        pytest.param(
            {"minimum": 1e16}, "$: 'minimum' is 1e+16; at most 9007199254740992 either way", id="a huge bound"
        ),
        pytest.param(
            {"type": "integer", "minimum": 10**400},
            f"$: 'minimum' is 1{'0' * 56}...; at most 9007199254740992 either way",
            id="a bound of many digits",
        ),
        pytest.param({"minLength": 2, "maxLength": 1}, "$: 'maxLength' is 1 and 'minLength' is 2", id="lengths"),
        pytest.param({"minItems": 2, "maxItems": 1}, "$: 'maxItems' is 1 and 'minItems' is 2", id="counts of items"),
        pytest.param(
            {"minProperties": 2, "maxProperties": 1}, "$: 'maxProperties' is 1 and 'minProperties' is 2", id="counts"
        ),
        pytest.param(
            {"prefixItems": [{}], "items": False, "minItems": 2},
            "$: 'minItems' is 2, and 'items' is false after 1 prefixItems",
            id="fewer items than there have to be",
        ),
        pytest.param(
            {"properties": {"a": {}}, "minProperties": 2},
            "$ is satisfied by no object: its counts and its properties contradict",
            id="fewer properties than there have to be",
        ),
        pytest.param(
            {"required": ["a", "b"], "maxProperties": 1},
            "$ is satisfied by no object: its counts and its properties contradict",
            id="more required than there may be",
        ),
        # what the grammar would drop
        pytest.param(
            {"items": {"$id": "x:y"}},
            "$.items: '$id' changes what references mean from here on; leave it out",
            id="$id inside",
        ),
        pytest.param(
            {"minProperties": 2},
            "$: 'minProperties' needs 'properties': free names may repeat in what is written",
            id="free names",
        ),
        pytest.param({"enum": [1], "minimum": 0}, f"$: 'minimum' beside 'enum' {INSIDE}", id="beside enum"),
        pytest.param({"anyOf": [{}], "properties": {}}, f"$: 'properties' beside 'anyOf' {INSIDE}", id="beside anyOf"),
        pytest.param({"anyOf": [{}], "allOf": [{}]}, f"$: 'allOf' beside 'anyOf' {INSIDE}", id="allOf beside anyOf"),
        pytest.param(
            {"items": {"$ref": "#", "minItems": 1}}, f"$.items: 'minItems' beside '$ref' {INSIDE}", id="beside $ref"
        ),
        pytest.param(
            {"items": {"$ref": "#", "type": "array"}},
            f"$.items: 'type' beside '$ref' {NOT_ENFORCED}",
            id="a type beside $ref",
        ),
        pytest.param(
            {"type": "object", "anyOf": [{}, {"type": "null"}]},
            "$.anyOf[1] has to be of type 'object', which is said beside it; say it inside",
            id="a branch of another type",
        ),
        pytest.param(
            {"allOf": [{}, {}]},
            "$: 'allOf' of several is not enforced by the grammar; merge them into one",
            id="allOf of two",
        ),
        pytest.param(
            {"minLength": 1, "minimum": 1},
            "$ has keywords for string and number and no 'type'; say which it is",
            id="keywords of two types",
        ),
        pytest.param(
            {"pattern": "a", "format": "date"},
            "$: 'format' beside 'pattern' is not enforced by the grammar; keep one of them",
            id="pattern and format",
        ),
        pytest.param(
            {"format": "date", "maxLength": 9},
            "$: 'maxLength' beside 'pattern' or 'format' is not enforced by the grammar; "
            "write it into the pattern, as in {2,8}",
            id="format and length",
        ),
        pytest.param(
            {"properties": {"a": {"pattern": "a(?=b)"}}},
            "$.properties.a: 'pattern' has a look-around, a back-reference or a possessive part, "
            "which no grammar can keep to",
            id="look-ahead",
        ),
        # references
        pytest.param(
            {"properties": {"minimum": {}, "x": {"$ref": "#/properties"}}},
            "$.properties.x: '$ref' to '#/properties' is no place of a schema; point into '$defs'",
            id="a place that is no schema",
        ),
        pytest.param(
            {"default": {"minimum": "x"}, "items": {"$ref": "#/default"}},
            "$.items: '$ref' to '#/default' is no place of a schema; point into '$defs'",
            id="a default",
        ),
        pytest.param(
            {"items": {"$ref": "#/prefixItems/00"}, "prefixItems": [{}]},
            "$.items: '$ref' to '#/prefixItems/00' points to nothing",
            id="an index that is none",
        ),
        pytest.param(
            {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/%24defs/a"}}},
            "#/$defs/a: '$ref' to '#/%24defs/a' leads back to itself with nothing between",
            id="a circle, written in two ways",
        ),
        pytest.param({"oneOf": [True] * 257}, "$: 'oneOf' has 257 branches; at most 256", id="many branches"),
        pytest.param(
            {
                "$ref": "#/$defs/0",
                "$defs": {f"{n}": {"items": {"$ref": f"#/$defs/{n + 1}"}} for n in range(999)} | {"999": {}},
            },
            "$: '$ref' leads through too many others",
            id="a long way",
        ),
        pytest.param(
            {"$ref": "https://example.com/a.json"},
            "$: '$ref' to 'https://example.com/a.json' leaves the schema, and nothing is fetched; copy it in",
            id="a remote reference",
        ),
        pytest.param({"$ref": "#"}, "#: '$ref' to '#' leads back to itself with nothing between", id="a circle"),
        pytest.param(
            {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}},
            "#/$defs/b: '$ref' to '#/$defs/a' leads back to itself with nothing between",
            id="a larger circle",
        ),
        pytest.param({"$ref": "#/$defs/a"}, "$: '$ref' to '#/$defs/a' points to nothing", id="no such place"),
        pytest.param(
            {"anyOf": [{"$ref": "#/anyOf/1"}]}, "$.anyOf[0]: '$ref' to '#/anyOf/1' points to nothing", id="past the end"
        ),
        pytest.param(
            {"items": {"$ref": "#/title"}, "title": "T"},
            "$.items: '$ref' to '#/title' is no place of a schema; point into '$defs'",
            id="not a schema",
        ),
        pytest.param({"$ref": "#a"}, "$: '$ref' to '#a' is no place of a schema; point into '$defs'", id="an anchor"),
    ],
)
def test_a_schema_that_no_grammar_keeps_to_is_refused_with_path_and_keyword(schema, problem):
    with pytest.raises(SchemaProblem) as refused:
        narrowed(schema)
    assert str(refused.value) == problem or (problem.endswith(", ") and str(refused.value).startswith(problem))


@pytest.mark.parametrize(
    "branches",
    [
        pytest.param([{"type": "integer"}, {"type": "number"}], id="an integer is a number"),
        pytest.param([{"type": "string"}, {}], id="anything is a string, too"),
        pytest.param([{"const": 1}, {"enum": [1.0, 2]}], id="1 is 1.0"),
        pytest.param([{"const": [{"a": 1}]}, {"const": [{"a": 1.0}]}], id="also inside of a value"),
        pytest.param([{"const": {"a": 1, "b": 2}}, {"const": {"b": 2, "a": 1}}], id="in any order"),
        pytest.param([{"properties": {"a": {}}}, {"properties": {"b": {}}}], id="objects"),
        pytest.param(
            [{"type": "object", "properties": {"a": {"const": n}}} for n in range(2)],
            id="a property that may be absent",
        ),
        pytest.param([{"type": "string"}, {"$ref": "#/$defs/text"}], id="behind a reference"),
    ],
)
def test_one_of_branches_that_a_value_may_both_satisfy_is_refused(branches):
    with pytest.raises(SchemaProblem) as refused:
        narrowed({"oneOf": branches, "$defs": {"text": {"type": "string"}}})
    assert str(refused.value) == (
        "$: 'oneOf' is enforced only where types or a constant property tell its branches apart; use anyOf"
    )


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(
            {"properties": {f"p{n}": {"type": "string", "description": "x" * 150} for n in range(300)}}, id="60 KB"
        ),
        pytest.param({"properties": {f"p{n}": {} for n in range(10_000)}}, id="10,000 optional properties"),
        pytest.param({"enum": [f"value {n}" for n in range(50_000)]}, id="a long enum"),
        pytest.param(nested(20_000), id="very deep"),
        pytest.param({"properties": {f"p{n}": {"anyOf": [{}] * 1_990} for n in range(8)}}, id="60 KB of {}"),
        pytest.param({"x" * 1_000_000: {"enum": list(range(2_000))}}, id="a long name that is part of many paths"),
        pytest.param({"oneOf": [{"enum": list(range(n, n + 30))} for n in range(0, 7_650, 30)]}, id="a oneOf"),
        pytest.param({"oneOf": [{"const": n} for n in range(2_000)]}, id="a long oneOf"),
        pytest.param({"pattern": f"[^{''.join(map(chr, range(256, 40_000, 2)))}]"}, id="a pattern of many characters"),
        pytest.param({"pattern": "." * 60_000}, id="a long pattern"),
        pytest.param({"pattern": "(" * 60_000}, id="a pattern that nests"),
        pytest.param({"pattern": "(a{1000}){1000}"}, id="a pattern that repeats"),
        pytest.param({"maxLength": 10**9}, id="a long string"),
    ],
)
def test_a_schema_that_was_meant_to_hang_the_server_takes_less_than_half_a_second(schema):
    before = time.process_time()
    with suppress(SchemaProblem):
        narrowed(schema)
    assert time.process_time() - before < 0.5
