"""The shapes in which a JSON schema is sent, and the schema that is meant."""

import pytest

from hermes.json_schema.limits import SchemaProblem
from hermes.json_schema.shapes import plain_schema, tidy

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
        pytest.param({"type": "object", "schema": PERSON, "required": ["a"], "properties": {}}, None, id="a keyword"),
        pytest.param({"definitions": {"a": PERSON}, "title": "T"}, None, id="definitions say nothing"),
        pytest.param({"type": "object", "x-form": {"label": "Person"}}, None, id="a note of somebody"),
    ],
)
def test_the_schema_that_is_meant(given, schema):
    assert plain_schema(given) == (given if schema is None else schema)


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
