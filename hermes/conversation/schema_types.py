"""What the types and constants in JSON schemas tell: whether a value is of a type, and whether two schemas exclude
each other."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


def is_of(value: Any, name: str) -> bool:
    """Whether a JSON value is of a type of JSON Schema. 1.0 is an integer, and true is no number."""
    if name in ("number", "integer"):
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return not isinstance(value, bool) and (whole or (name == "number" and isinstance(value, float)))
    python = {"object": Mapping, "array": list, "string": str, "boolean": bool, "null": type(None)}[name]
    return isinstance(value, python)


@dataclass(frozen=True)
class Marks:
    """What tells the values of one schema apart from those of another, at a glance."""

    types: frozenset[str]  # empty: any
    constants: frozenset[str]  # as JSON; empty: any
    properties: Mapping[str, frozenset[str]]  # required ones that are constants, where every value is an object

    @classmethod
    def of(cls, schema: Any) -> "Marks":
        """The marks of a schema; of one that has none, such as a boolean, they are empty."""
        if not isinstance(schema, Mapping):
            return cls(frozenset(), frozenset(), {})
        types, declared = _plain_types(schema), schema.get("properties", {})
        constants = {name: _constants(declared.get(name)) for name in schema.get("required", [])}
        properties = {name: values for name, values in constants.items() if values} if types == {"object"} else {}
        return cls(types, _constants(schema), properties)

    def exclude(self, other: "Marks") -> bool:
        """Whether it is plain that no value satisfies both."""
        return (
            _disjoint(self.types, other.types)
            or _disjoint(self.constants, other.constants)
            or any(_disjoint(self.properties[name], other.properties.get(name)) for name in self.properties)
        )


def _disjoint(one: frozenset[str], other: frozenset[str] | None) -> bool:
    return bool(one and other) and one.isdisjoint(other or ())


def _plain_types(schema: Mapping[str, Any]) -> frozenset[str]:
    """The types of its values; an integer is a number, too."""
    given = schema.get("type", [])
    if values := schema.get("enum", [schema["const"]] if "const" in schema else []):
        given = [name for name in TYPES if any(is_of(value, name) for value in values)]
    types = {given} if isinstance(given, str) else set(given)
    return frozenset(types | ({"integer"} if "number" in types else set()))


def _constants(schema: Any) -> frozenset[str]:
    """The values that a schema of constants allows, as JSON (1 and 1.0 are one value); empty when it is not one."""
    if not isinstance(schema, Mapping) or not ("const" in schema or "enum" in schema):
        return frozenset()
    values = [schema["const"]] if "const" in schema else schema["enum"]
    return frozenset(json.dumps(_canonical(each), sort_keys=True) for each in values)


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _canonical(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_canonical(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
