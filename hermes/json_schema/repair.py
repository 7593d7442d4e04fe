"""The schemas of tools, of which as much is enforced as can be: one bad tool must not affect the others.

What is not valid in a schema, references that lead nowhere, and limits that exclude each other are left out and listed.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from operator import getitem
from typing import TYPE_CHECKING, Any, NamedTuple

from hermes.json_schema.grammar import MAX_FREE, Enforceable, enforceable
from hermes.json_schema.keywords import MAX_COUNT, contradiction
from hermes.json_schema.limits import SchemaProblem, check_schema, draft_of, faults, written
from hermes.json_schema.places import Place, path_of
from hermes.json_schema.shapes import BY_NAME, LISTS, WITHIN

if TYPE_CHECKING:
    from jsonschema.protocols import Validator as Checker

ROUNDS = 3  # of leaving out: what is not valid may hide more of it
REPAIR_SECONDS = 1.0  # of processor time, for all tools of a request
REMEMBERED = 256  # repaired schemas
FREE = Enforceable({"type": "object", "maxProperties": MAX_FREE}, ("$",))
STRICT = {"not": (), "if": ("then", "else"), "oneOf": (), "contains": ()}  # to allow more inside can allow less here
REFERENCE = re.compile(r'"\$ref": "#/?([^/"]*)')  # its first step; none in one to the whole schema

Steps = tuple[str | int, ...]

_known: "dict[bytes, tuple[bytes, type[Checker], tuple[str, ...]]]" = {}  # what was left of schemas, by digest
_lock = threading.Lock()


@dataclass
class Budget:
    """The processor time that is left for repairs. The schemas of one request share it."""

    seconds: float = REPAIR_SECONDS


class Repaired(NamedTuple):
    """A valid schema, its draft, and the paths of what was left out of it."""

    schema: dict[str, Any]
    draft: "type[Checker]"
    dropped: tuple[str, ...]


def enforceable_part(schema: Mapping[str, Any], budget: Budget) -> Enforceable:
    """Rewrite the schema of arguments for llguidance: what can be used of it, or else any object."""
    try:
        usable, draft, dropped = repaired(schema, budget)
        enforced = enforceable(usable, draft)
    except SchemaProblem:
        return FREE
    return replace(enforced, unenforced=(*dropped, *enforced.unenforced))


def repaired(schema: Mapping[str, Any], budget: Budget) -> Repaired:
    """Leave out what cannot be used. What was repaired lately costs nothing.

    Raises SchemaProblem if the schema is too large, is not valid even so, or takes longer than the budget.
    """
    digest = hashlib.sha256(text := written(schema)).digest()
    if known := _known.get(digest):
        return Repaired(json.loads(known[0]), *known[1:])
    repair = _Repair(json.loads(text), budget)
    draft = repair.draft()
    repair.leave_out(_contradictions(repair.schema))
    if '"$ref"' in json.dumps(repair.schema):
        repair.leave_out(_dangling(Place.of_root(repair.schema, draft)))
    if repair.dropped:
        changed = {"", *(re.split(r"[.\[]", path)[1] for path in repair.dropped)}
        leads = {name: {*REFERENCE.findall(json.dumps(each))} for name, each in repair.schema.items()}
        while more := {name for name, to in leads.items() if to & changed} - changed:
            changed |= more
        repair.leave_out(_strict_references(repair.schema, changed))
        with _lock:
            _known[digest] = (json.dumps(repair.schema).encode(), draft, (*repair.dropped,))
            if len(_known) > REMEMBERED:
                del _known[next(iter(_known))]
    return Repaired(repair.schema, draft, (*repair.dropped,))


class _Repair:
    def __init__(self, schema: dict[str, Any], budget: Budget):
        """Change a schema, as long as the budget allows."""
        self.schema, self._budget = schema, budget
        self.dropped: dict[str, None] = {}  # an ordered set

    def draft(self) -> "type[Checker]":
        """Leave out what is not valid, and what would not be in a later draft that has the keyword."""
        for _ in range(ROUNDS):
            draft = draft_of(self.schema)
            self.check(is_fine=draft is not None)
            if draft and ("$schema" in self.schema or "$vocabulary" in draft.META_SCHEMA):
                return draft
            if not self.leave_out(faults(self.schema), draft.META_SCHEMA["properties"] if draft else ()) and draft:
                return draft
        return check_schema(self.schema)

    def check(self, *, is_fine: bool = False) -> None:
        """Raise SchemaProblem if there is something to repair and no time for it."""
        if self._budget.seconds <= 0 and not is_fine:
            raise SchemaProblem("$", None, "takes too long to repair")

    def leave_out(self, paths: Iterable[Steps], allowed: Collection[str] = ()) -> int:
        """Drop what the paths lead into, but for some keywords. Return how much was dropped."""
        before, found, began = len(self.dropped), set[Steps](), time.thread_time()
        for path in paths:
            found.add(path)
            if time.thread_time() - began > self._budget.seconds:
                break
        if found:
            self._budget.seconds -= time.thread_time() - began
            self.check()
        for path in sorted(found, key=lambda path: path_of(*path)):
            with suppress(LookupError, TypeError, AttributeError):  # an earlier one has taken it along
                self.dropped |= dict.fromkeys(_drop(self.schema, path, allowed))
        return len(self.dropped) - before


def _steps(keyword: str, value: Any) -> int:
    """Count the steps from a keyword to a schema in it; 0 if it has none."""
    if (keyword in BY_NAME and isinstance(value, Mapping)) or (keyword in WITHIN and isinstance(value, list)):
        return 2
    return int(keyword in WITHIN - LISTS)


def _subschemas(schema: Mapping[str, Any]) -> Iterator[Steps]:
    """Yield the way to each schema within a schema."""
    for keyword, value in schema.items():
        steps = _steps(keyword, value)
        if steps == 2:
            yield from ((keyword, step) for step in (value if isinstance(value, Mapping) else range(len(value))))
        elif steps:
            yield (keyword,)


def _drop(schema: Any, path: Steps, allowed: Collection[str], at: str = "$") -> list[str]:
    """Drop the keyword that a path leads into. What stands in the place of a schema becomes one of anything."""
    keyword = str(path[0])
    count = _steps(keyword, schema[keyword])
    if len(path) <= max(count, 1) and keyword in allowed:
        return []
    if 0 < count <= len(path) and keyword not in STRICT:
        steps = path[:count]
        holder, at = reduce(getitem, steps[:-1], schema), at + path_of(*steps)
        if len(path) > count and isinstance(inside := holder[steps[-1]], dict):
            return _drop(inside, path[count:], allowed if keyword in allowed else (), at)
        holder[steps[-1]] = {}
        return [at]
    if keyword in allowed:
        return []
    with_it = STRICT.get(keyword, ())
    if keyword in ("properties", "patternProperties"):  # any name may be one that they declare
        with_it = ("additionalProperties",)
    keywords = [keyword, *(each for each in with_it if each in schema)]
    for keyword in keywords:
        del schema[keyword]
    return [at + path_of(keyword) for keyword in keywords]


def _contradictions(schema: Any, steps: Steps = (), *, alone: bool = True) -> Iterator[Steps]:
    """Yield limits that exclude each other, unless in one branch of several, and numbers that no response reaches."""
    if not isinstance(schema, dict):
        return
    with suppress(TypeError):  # in a keyword that its draft does not know
        yield from ((*steps, keyword) for keyword in (alone and contradiction(schema)) or ())
        yield from ((*steps, each) for each in ("minItems", "minProperties") if schema.get(each, 0) > MAX_COUNT)
    for inner in _subschemas(schema):
        is_alone = alone and inner[0] not in {*STRICT, "anyOf"}
        yield from _contradictions(reduce(getitem, inner, schema), (*steps, *inner), alone=is_alone)


def _dangling(place: Place, steps: Steps = ()) -> Iterator[Steps]:
    """Yield each reference that leads nowhere."""
    if not isinstance(schema := place.schema, dict):
        return
    place = place.entered()
    if "$ref" in schema:
        try:
            place.target(schema["$ref"])
        except SchemaProblem:
            yield (*steps, "$ref")
    for inner in _subschemas(schema):
        yield from _dangling(place.within(reduce(getitem, inner, schema), *map(str, inner)), (*steps, *inner))


def _strict_references(schema: Any, changed: Set[str], steps: Steps = ()) -> Iterator[Steps]:
    """Yield the strict keywords with a reference into what was changed, as `$defs`."""
    if not isinstance(schema, dict):
        return
    for keyword in STRICT.keys() & schema.keys():
        if changed & {*REFERENCE.findall(json.dumps(schema[keyword]))}:
            yield (*steps, keyword)
    for inner in _subschemas(schema):
        yield from _strict_references(reduce(getitem, inner, schema), changed, (*steps, *inner))
