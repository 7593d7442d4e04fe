"""The shapes in which clients send JSON schemas: plain, wrapped for an API, or with null for an absent keyword."""

from collections.abc import Mapping
from typing import Any

from hermes.json_schema.limits import SchemaProblem, check_size

TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}

# Keywords that hold schemas by name, and those that hold one or a list of them (drafts 4 to 2020-12).
BY_NAME = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
WITHIN = {
    *("items", "additionalItems", "prefixItems", "contains", "unevaluatedItems"),
    *("additionalProperties", "propertyNames", "unevaluatedProperties"),
    *("allOf", "anyOf", "oneOf", "not", "if", "then", "else"),
}
MAY_BE_NULL = {"const", "default"}
STRUCTURING = {"properties", "$ref", "anyOf", "allOf", "oneOf"}
# Keywords that restrict a value. `type` is not one of them: alone it says little.
TELLING = {*BY_NAME - {"$defs", "definitions"}, *WITHIN, "$ref", "$dynamicRef", "$recursiveRef", "enum", "const"}


def without_nulls(schema: Any) -> Any:
    """Drop the keywords that are null: programs write null for an absent keyword."""
    if not isinstance(schema, Mapping):
        return schema
    said = {key: value for key, value in schema.items() if value is not None or key in MAY_BE_NULL}
    return {key: _without_nulls_within(key, value) for key, value in said.items()}


def _without_nulls_within(keyword: str, value: Any) -> Any:
    if keyword in BY_NAME and isinstance(value, Mapping):
        return {name: without_nulls(each) for name, each in value.items()}
    if keyword in WITHIN:
        return [without_nulls(each) for each in value] if isinstance(value, list) else without_nulls(value)
    return value


def plain_schema(given: Any) -> dict[str, Any]:
    """Find the schema in what a client sent: it may be inside OpenAI's `response_format` or its `json_schema`.

    Raises SchemaProblem if the schema is too large, not an object, or restricts nothing and has a misplaced schema.
    """
    check_size(given)
    if given.get("type") == "json_object":
        return {"type": "object"}
    if given.get("type") == "json_schema":
        holder = given.get("json_schema", given)
        given = holder.get("schema") if isinstance(holder, Mapping) else None
    elif "schema" in given and not given.keys() & {"type", *TELLING}:
        given = given["schema"]
    if not isinstance(given, Mapping):
        raise SchemaProblem("$", "schema", "must be an object")
    return tidy(given)


def tidy(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Drop null keywords. Raise SchemaProblem if none restricts a value, and an unknown one looks like a schema."""
    plain: dict[str, Any] = without_nulls(schema)
    if not plain.keys() & TELLING and (stray := stray_schema(plain)):
        raise SchemaProblem("$", stray, "looks like a schema but is not a keyword; put it under 'properties'")
    return plain


def stray_schema(holder: Mapping[str, Any], known: frozenset[str] = frozenset({"$defs", "definitions"})) -> str | None:
    """Find the first key, except the known ones, whose value looks like a JSON schema."""
    return next((str(key) for key, value in holder.items() if key not in known and _looks_like_schema(value)), None)


def _looks_like_schema(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    kind = value.get("type")
    return (isinstance(kind, str) and kind in TYPES) or not STRUCTURING.isdisjoint(value)
