"""What the types and constants in JSON schemas tell: whether a value is of a type, and whether two schemas exclude
each other."""

import json
from collections.abc import Mapping
from typing import Any

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


def is_of(value: Any, name: str) -> bool:
    if name in ("number", "integer"):
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return not isinstance(value, bool) and (whole or (name == "number" and isinstance(value, float)))
    python = {"object": Mapping, "array": list, "string": str, "boolean": bool, "null": type(None)}[name]
    return isinstance(value, python)


def exclusive(one: Any, other: Any) -> bool:
    """Whether it is plain that no value satisfies both."""
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return False
    types, other_types = _plain_types(one), _plain_types(other)
    if types and other_types and not any(_overlap(a, b) for a in types for b in other_types):
        return True
    required = set(one.get("required", [])) & set(other.get("required", []))
    for name in required if types == other_types == ["object"] else ():
        values = [_constants(each.get("properties", {}).get(name)) for each in (one, other)]
        if values[0] and values[1] and not values[0] & values[1]:
            return True
    values = [_constants(one), _constants(other)]
    return bool(values[0] and values[1]) and not values[0] & values[1]


def _plain_types(schema: Mapping[str, Any]) -> list[str]:
    given = schema.get("type", [])
    if values := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return [name for name in TYPES if any(is_of(value, name) for value in values)]
    return [given] if isinstance(given, str) else list(given)


def _overlap(one: str, other: str) -> bool:
    return one == other or {one, other} == {"integer", "number"}


def _constants(schema: Any) -> set[str]:
    """The values that a schema of constants allows, as JSON (1 and 1.0 are one value); empty when it is not one."""
    if not isinstance(schema, Mapping) or not ("const" in schema or "enum" in schema):
        return set()
    values = [schema["const"]] if "const" in schema else schema["enum"]
    return {json.dumps(int(each) if isinstance(each, float) and each.is_integer() else each) for each in values}
