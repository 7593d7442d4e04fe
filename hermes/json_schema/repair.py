"""The schemas of tools, of which as much is enforced as can be: one bad tool must not cost the others.

What is not valid in a schema, and references that lead nowhere, are left out and listed.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from operator import getitem
from typing import TYPE_CHECKING, Any, NamedTuple

from hermes.json_schema.grammar import MAX_FREE, Enforceable, enforceable
from hermes.json_schema.limits import SchemaProblem, check_schema, check_size, faults
from hermes.json_schema.places import Place, path_of
from hermes.json_schema.shapes import BY_NAME, LISTS, WITHIN

if TYPE_CHECKING:
    from jsonschema.protocols import Validator as Checker

ROUNDS = 3  # of leaving out: what is not valid may hide more of it
FREE = Enforceable({"type": "object", "maxProperties": MAX_FREE}, ("$",))
NAMING = ("properties", "patternProperties")

Steps = tuple[str | int, ...]


class Repaired(NamedTuple):
    """A valid schema, its draft, and the paths of what was left out of it."""

    schema: dict[str, Any]
    draft: "type[Checker]"
    dropped: tuple[str, ...]


def enforceable_part(schema: Mapping[str, Any]) -> Enforceable:
    """Rewrite the schema of arguments for llguidance: what can be used of it, or else any object."""
    try:
        usable, draft, dropped = repaired(schema)
        enforced = enforceable(usable, draft)
    except SchemaProblem:
        return FREE
    return replace(enforced, unenforced=(*dropped, *enforced.unenforced))


def repaired(schema: Mapping[str, Any]) -> Repaired:
    """Leave out what cannot be used. Raises SchemaProblem if the schema is too large, or not valid even so."""
    check_size(schema)
    left: dict[str, Any] = json.loads(json.dumps(schema))
    dropped: dict[str, None] = {}  # an ordered set
    for rounds_left in reversed(range(ROUNDS + 1)):
        try:
            draft = check_schema(left)
            break
        except SchemaProblem:
            if not rounds_left:
                raise
        for path in [*faults(left)]:
            with suppress(LookupError, TypeError, AttributeError):  # an earlier one has taken it along
                dropped |= dict.fromkeys(_drop(left, path))
    if '"$ref"' in json.dumps(left):
        dropped |= dict.fromkeys(_drop_dangling(Place.of_root(left, draft)))
    return Repaired(left, draft, (*dropped,))


def _subschemas(schema: Mapping[str, Any]) -> Iterator[Steps]:
    """Yield the way to each schema within a schema."""
    for keyword, value in schema.items():
        if keyword in BY_NAME and isinstance(value, Mapping):
            yield from ((keyword, name) for name in value)
        elif keyword in WITHIN and isinstance(value, list):
            yield from ((keyword, number) for number in range(len(value)))
        elif keyword in WITHIN - LISTS:
            yield (keyword,)


def _drop(schema: Any, path: Steps, at: str = "$") -> list[str]:
    """Drop the keyword that a path leads into. What stands in the place of a schema becomes one of anything."""
    for steps in _subschemas(schema):
        if path[: len(steps)] == steps:
            holder, at = reduce(getitem, steps[:-1], schema), at + path_of(*steps)
            if len(path) > len(steps):
                return _drop(holder[steps[-1]], path[len(steps) :], at)
            holder[steps[-1]] = {}
            return [at]
    keywords = [str(path[0])]
    if keywords[0] in NAMING and "additionalProperties" in schema:  # any name may be one that they declare
        keywords.append("additionalProperties")
    for keyword in keywords:
        del schema[keyword]
    return [at + path_of(keyword) for keyword in keywords]


def _drop_dangling(place: Place) -> Iterator[str]:
    """Drop each reference that leads nowhere."""
    if not isinstance(schema := place.schema, dict):
        return
    place = place.entered()
    if "$ref" in schema:
        try:
            place.target(schema["$ref"])
        except SchemaProblem:
            del schema["$ref"]
            yield place.at + path_of("$ref")
    for steps in [*_subschemas(schema)]:
        inside: Any = reduce(getitem, steps, schema)
        yield from _drop_dangling(place.within(inside, *map(str, steps)))
