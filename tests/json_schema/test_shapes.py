"""The shapes in which a JSON schema is sent, and the schema that is meant."""

import json

import pytest

from hermes.json_schema.limits import SchemaProblem
from hermes.json_schema.shapes import arguments_schema, plain_schema, tidy, unrestricted

PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
OPENAI = {"name": "person", "strict": True, "schema": PERSON}


@pytest.mark.parametrize(
    ("given", "schema"),
    [
        pytest.param(PERSON, PERSON, id="plain"),
        pytest.param({}, {}, id="anything"),
        pytest.param(OPENAI, PERSON, id="OpenAI's json_schema"),
        pytest.param({"schema": PERSON}, PERSON, id="the schema alone in it"),
        pytest.param({"type": "json_schema", "json_schema": OPENAI}, PERSON, id="Chat Completions' response_format"),
        pytest.param({"type": "json_schema", **OPENAI}, PERSON, id="the format of Responses"),
        pytest.param({"type": "json_object"}, {"type": "object"}, id="any object"),
        pytest.param({"type": "json_object", "schema": PERSON}, PERSON, id="an object, and its schema"),
        pytest.param({"type": "object", "schema": PERSON, "required": ["a"], "properties": {}}, None, id="a keyword"),
        pytest.param({"definitions": {"a": PERSON}, "title": "T"}, None, id="definitions say nothing"),
        pytest.param({"type": "object", "x-form": {"label": "Person"}}, None, id="a note of somebody"),
    ],
)
def test_the_schema_that_is_meant(given, schema):
    assert plain_schema(given) == (given if schema is None else schema)


def of(**properties):
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("given", "schema"),
    [
        pytest.param({"type": "object", "properties": []}, of(), id="no properties, as PHP writes them"),
        pytest.param(
            of(a={"properties": [], "patternProperties": [], "$defs": [], "definitions": [], "items": []}),
            of(a={"properties": {}, "patternProperties": {}, "$defs": {}, "definitions": {}, "items": {}}),
            id="PHP's empty objects within",
        ),
        pytest.param(of(a=[], b={"additionalProperties": []}), of(a={}, b={"additionalProperties": {}}), id="a schema"),
        pytest.param({"enum": [[]], "default": [], "required": []}, None, id="but not lists"),
        pytest.param(
            of(a={"type": "string", "required": True}, b={"required": False}),
            {**of(a={"type": "string"}, b={}), "required": ["a"]},
            id="required of draft 3",
        ),
        pytest.param(
            {**of(a={"required": True}, b={"required": True}), "required": ["b"]},
            {**of(a={}, b={}), "required": ["b", "a"]},
            id="both ways of required",
        ),
        pytest.param(
            of(a={**of(b={"required": True}), "required": True}),
            {**of(a={**of(b={}), "required": ["b"]}), "required": ["a"]},
            id="required at two levels",
        ),
        pytest.param({**of(a={}), "required": "a"}, {**of(a={}), "required": ["a"]}, id="required as a text"),
        pytest.param({**of(a={}), "required": ["a", None, "a"]}, {**of(a={}), "required": ["a"]}, id="required twice"),
        pytest.param({**of(a={}), "required": {"0": "a"}}, {**of(a={}), "required": ["a"]}, id="required of PHP"),
        pytest.param({"enum": {"2": "x", "5": "y"}}, {"enum": ["x", "y"]}, id="an enum of PHP"),
        pytest.param({"anyOf": {"1": {"type": "str"}}}, {"anyOf": [{"type": "string"}]}, id="branches of PHP"),
        pytest.param({"enum": {"a": "x"}, "required": [1]}, None, id="but no object and no number"),
        pytest.param(of(required={"type": "boolean"}), None, id="a property that is called required"),
        *(
            pytest.param(of(a={"type": given}), of(a={"type": meant}), id=f"the type {given}")
            for given, meant in {
                "float": "number",
                "str": "string",
                "int": "integer",
                "bool": "boolean",
                "dict": "object",
                "list": "array",
                "STRING": "string",
                "OBJECT": "object",
                "Integer": "integer",
                "None": "null",
            }.items()
        ),
        pytest.param({"type": ["STRING", "str", "NoneType"]}, {"type": ["string", "null"]}, id="a list of types"),
        pytest.param(of(a={"type": "any", "title": "A"}), of(a={"title": "A"}), id="any type"),
        pytest.param({"type": ["any", "null"]}, {}, id="any type or null"),
        pytest.param({"type": "file"}, None, id="a type that may mean anything"),
        pytest.param({"type": ["string", "file"]}, None, id="such a type in a list"),
        pytest.param(of(a="string", b="my city"), of(a={"type": "string"}, b="my city"), id="a type alone"),
        pytest.param({"dependencies": {"a": "string"}}, None, id="a name that looks like a type"),
        *(
            pytest.param(
                {"$ref": "#/components/schemas/A", "components": {"schemas": {"A": given}, "x": {"A": given}}},
                {"$ref": "#/components/schemas/A", "components": {"schemas": {"A": meant}, "x": {"A": given}}},
                id=f"components: {given}",
            )
            for given, meant in [
                ({"type": "int"}, {"type": "integer"}),
                ("str", {"type": "string"}),
                ({"properties": []}, {"properties": {}}),
            ]
        ),
        *(
            pytest.param({**rest, "items": {"$ref": given}}, {**rest, "items": {"$ref": meant}}, id=given)
            for given, meant, rest in [
                ("#/$defs/a/b", "#/$defs/a~1b", {"$defs": {"a/b": {}}}),
                ("#/definitions/a%2Fb~c", "#/definitions/a~1b~0c", {"definitions": {"a/b~c": {}}}),
                ("#/definitions/a", "#/$defs/a", {"$defs": {"a": {}}}),
                ("#/parameters/$defs/a", "#/$defs/a", {"$defs": {"a": {}}}),
                ("#/function/parameters/properties/a", "#/properties/a", {"properties": {"a": {}}}),
                ("#/$defs/a/b", "#/$defs/a/b", {"$defs": {"a/b": {}, "a": {"b": {}}}}),
                ("#/$defs/c", "#/$defs/c", {"$defs": {"a": {}}}),
            ]
        ),
    ],
)
def test_what_can_mean_one_thing_only_is_read_so(given, schema):
    assert tidy(given) == (given if schema is None else schema)


@pytest.mark.parametrize(
    ("given", "schema"),
    [
        ({"city": {"type": "string"}}, {"properties": {"city": {"type": "string"}}}),
        (
            {"type": "object", "city": {"type": "string", "required": True}},
            {**of(city={"type": "string"}), "required": ["city"]},
        ),
        ({"format": {"enum": ["a"], "type": "string"}}, {"properties": {"format": {"enum": ["a"], "type": "string"}}}),
        (
            {"city": {"description": "the city"}, "n": {"type": "int"}},
            {"properties": {"city": {"description": "the city"}, "n": {"type": "integer"}}},
        ),
        ({"type": "dict", "city": "str", "n": "int"}, of(city={"type": "string"}, n={"type": "integer"})),
        (
            {"title": "Integer", "city": "String", "of": {"anyOf": [{"type": "int"}]}, "on": {}},
            {
                "title": "Integer",
                "properties": {"city": {"type": "string"}, "of": {"anyOf": [{"type": "integer"}]}, "on": {}},
            },
        ),
        ({**of(), "city": {"type": "string"}}, None),
        ({"type": "object", "description": "map", "x-form": {"label": "City"}}, None),
        ({"type": "object", "default": {"type": "string"}}, None),
    ],
)
def test_arguments_without_the_word_properties(given, schema):
    assert json.dumps(arguments_schema(given)) == json.dumps(given if schema is None else schema)


@pytest.mark.parametrize(
    "schema",
    [{"name": "John", "age": 3}, {"title": "Dune"}, {"nullable": True}, {"$defs": {"a": PERSON}}, {"$comment": "any"}],
)
def test_a_schema_in_which_nothing_restricts_is_described(schema):
    assert unrestricted(schema).startswith("$: no keyword of the schema restricts the response")


@pytest.mark.parametrize("schema", [{}, {"type": "object"}, PERSON, {"minLength": 1, "name": "John"}, {"not": {}}])
def test_any_other_schema_is_not(schema):
    assert unrestricted(schema) is None


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"name": "person", "schema": None}, "$: 'schema' must be an object"),
        ({"name": "person", "schema": "{}"}, "$: 'schema' must be an object"),
        ({"type": "json_schema", "json_schema": [1]}, "$: 'schema' must be an object"),
        ({"type": "json_schema"}, "$: 'schema' must be an object"),
        ({"type": "json_schema", "json_schema": {}}, "$: 'schema' must be an object"),
        (
            {"Person": PERSON},
            "$: 'Person' looks like a schema but is not a keyword; put it under 'properties'",
        ),
        (
            {"type": "object", "name": {"type": "string"}},
            "$: 'name' looks like a schema but is not a keyword; put it under 'properties'",
        ),
        (
            {"title": "T", "json_schema": {"$ref": "#/$defs/a"}},
            "$: 'json_schema' looks like a schema but is not a keyword; put it under 'properties'",
        ),
        ([], "$ must be an object, not list"),
    ],
)
def test_what_would_enforce_nothing_is_refused(given, problem):
    with pytest.raises(SchemaProblem) as refused:
        plain_schema(given)
    assert str(refused.value) == problem


@pytest.mark.parametrize(
    ("schema", "without"),
    [
        pytest.param({"type": "string", "description": None, "title": None}, {"type": "string"}, id="notes"),
        pytest.param(
            {"properties": {"a": {"enum": None, "items": {"format": None}}}},
            {"properties": {"a": {"items": {}}}},
            id="deep",
        ),
        pytest.param(
            {"anyOf": [{"minimum": None}, {"const": None}], "default": None},
            {"anyOf": [{}, {"const": None}], "default": None},
            id="but for those that may be null",
        ),
        pytest.param(
            {"enum": [None], "examples": [{"description": None}], "properties": {"description": {"type": "null"}}},
            None,
            id="but for values and names",
        ),
        pytest.param(
            {"$defs": {"a": {"not": {"type": None}}}, "items": [{"pattern": None}]},
            {"$defs": {"a": {"not": {}}}, "items": [{}]},
            id="in every place of a schema",
        ),
    ],
)
def test_a_keyword_that_is_null_is_none(schema, without):
    assert tidy(schema) == (schema if without is None else without)
