"""Which definitions of a schema have a value that ends. A model would write one of the others without end.

They are found as the productive symbols of a grammar are, as a least fixed point.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from hermes.json_schema.keywords import refused
from hermes.json_schema.limits import SchemaProblem

DEFINITION = "#/$defs/"
CULPRIT = re.compile(r"#/\$defs/(\w+)$")  # at the end of what llguidance says
MOST = 16  # definitions that llguidance is asked to name, one after the other
BY_NAME, LISTS, SINGLE = (
    ("properties", "patternProperties", "$defs"),
    ("anyOf", "allOf", "prefixItems"),
    ("items", "additionalProperties"),
)


def possible(schema: dict[str, Any], problem: str | None) -> dict[str, Any]:
    """Forbid the definitions that have no value, as in one branch of an anyOf, so that the others can be chosen.

    Args:
        schema: as it is written for llguidance.
        problem: why llguidance refuses it; None if it accepts it.

    Raises:
        SchemaProblem: llguidance refuses even that, or no value of it ends.
    """
    known = _finite(schema["$defs"])
    if not _is_finite(schema, known):
        raise _no_grammar(problem or "no value of it ends")
    if endless := schema["$defs"].keys() - known:
        schema = _without(schema, endless)
        problem = refused(schema)
    for _ in range(MOST):
        if not problem or not (found := CULPRIT.search(problem)) or (left := _without(schema, {found[1]})) is False:
            break
        schema, problem = left, refused(left)
    if problem:
        raise _no_grammar(problem)
    return schema


def _no_grammar(problem: str) -> SchemaProblem:
    return SchemaProblem("$", None, f"makes no grammar: {problem}")


def _finite(definitions: Mapping[str, Any]) -> set[str]:
    known: set[str] = set()
    while found := {name for name, each in definitions.items() if name not in known and _is_finite(each, known)}:
        known |= found
    return known


def _is_finite(schema: Any, known: Collection[str]) -> bool:
    """Whether a value exists, if those of the known definitions do."""
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema and schema["$ref"].removeprefix(DEFINITION) not in known:
        return False
    if "anyOf" in schema and not any(_is_finite(each, known) for each in schema["anyOf"]):
        return False
    if not all(_is_finite(each, known) for each in schema.get("allOf", ())):
        return False
    types = schema.get("type", "any")
    kinds = [types] if isinstance(types, str) else types
    return any(all(_is_finite(each, known) for each in _needed(schema, kind)) for kind in kinds)


def _needed(schema: Mapping[str, Any], kind: str) -> list[Any]:
    """The schemas of what a value of this type has at least."""
    if kind == "object":
        named = schema.get("properties", {})
        other = "patternProperties" in schema or schema.get("additionalProperties", True)
        needed = [named.get(name, other) for name in schema.get("required", ())]
        return needed + [{"anyOf": [*named.values(), other]}] * (schema.get("minProperties", 0) > 0)
    if kind == "array":
        first, least = schema.get("prefixItems", []), schema.get("minItems", 0)
        return [*first[:least], *[schema.get("items", True)] * (least > len(first))]
    return []


def _without(schema: Any, names: Collection[str]) -> Any:
    """The schema, with False in the place of each reference to one of these definitions."""
    if isinstance(schema, bool):
        return schema
    if schema.get("$ref", "").removeprefix(DEFINITION) in names:
        return False
    inside: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in BY_NAME:
            inside[keyword] = {name: _without(each, names) for name, each in value.items()}
        elif keyword in LISTS:
            inside[keyword] = [_without(each, names) for each in value]
        elif keyword in SINGLE:
            inside[keyword] = _without(value, names)
    return {**schema, **inside}
