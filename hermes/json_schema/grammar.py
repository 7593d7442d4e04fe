"""Rewrite a JSON schema as one that llguidance enforces, and list the keywords that it does not enforce.

Source: JSON Schema 2020-12 (https://json-schema.org/draft/2020-12), and the documentation of llguidance 1.7
(https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hermes.json_schema.keywords import OPENING, Contradiction, Own, are_enforced, refused
from hermes.json_schema.limits import SchemaProblem, check_schema
from hermes.json_schema.negation import conditions, without
from hermes.json_schema.patterns import for_llguidance
from hermes.json_schema.places import IN_PLACE, Place
from hermes.json_schema.possible import possible

MAX_CONDITIONS = 8  # at one place: each can double the grammar
MAX_BRANCHES, MAX_PAIRED = 256, 8  # of a oneOf: compared by llguidance, compared pair by pair
MAX_WORK, MAX_COMPARED = 5_000, 12_000  # schemas walked, and in comparisons of branches: references can multiply them
MAX_FREE = 64  # names in a map: a small model repeats one without end
TRIED = (  # keywords that llguidance may refuse, alone or together
    ("minLength", "maxLength"),
    ("pattern",),
    ("format",),
    ("minProperties", "maxProperties"),
    ("patternProperties",),
)

Names = frozenset[str]


@dataclass(frozen=True)
class Enforceable:
    """A schema for llguidance. Its grammar allows what satisfies the sent schema, but for the unenforced keywords."""

    schema: Mapping[str, Any]
    unenforced: tuple[str, ...]  # the paths of keywords in the schema that was sent


def enforceable(schema: Any, draft: Any = None) -> Enforceable:
    """Rewrite a schema for llguidance. `draft`: as check_schema found it, if it has checked the schema.

    Raises SchemaProblem if the schema is not valid, too large, refers to something outside, or allows no value.
    """
    try:
        return Rewriting(schema, draft or check_schema(schema)).enforceable()
    except (AttributeError, TypeError) as error:  # what its draft does not know is not checked
        raise SchemaProblem("$", None, "has a wrong value for a keyword of a later draft; set $schema") from error


class Rewriting:
    """One walk over one schema. Each target of a reference is rewritten once, as an entry of $defs."""

    def __init__(self, root: Mapping[str, Any], draft: Any, *, closes: bool = True):
        """Prepare the walk.

        Args:
            root: the schema.
            draft: jsonschema's validator class for it.
            closes: forbid other keys if an object has `properties` and the schema does not mention others. If
                allowed, a small model writes free keys without end.
        """
        self._root, self._closes = Place.of_root(root, draft), closes
        self._own, self._work, self._compared = Own(), 0, 0
        self._unenforced: dict[str, None] = {}  # an ordered set
        self._defs: dict[str, Any] = {}
        self._def_names: dict[tuple[int, Names | None], str] = {}
        self._nothing: dict[tuple[int, Names | None], Contradiction] = {}  # definitions that allow no value
        self._to_try: list[tuple[str, dict[str, Any]]] = []  # all places, inner ones first

    def enforceable(self) -> Enforceable:
        """Rewrite the schema."""
        plain = self._node(self._root, frozenset())
        plain["$defs"] = self._defs
        if problem := refused(plain):
            for at, node in self._to_try:
                self._drop_what_is_refused(at, node)
            problem = refused(plain)
        return Enforceable(possible(plain, problem), tuple(self._unenforced))

    def _drop_what_is_refused(self, at: str, node: dict[str, Any]) -> None:
        for keywords in TRIED:
            dropped = [keyword for keyword in keywords if keyword in node]
            problem = self._refused(node) if dropped else None
            if problem and problem != self._refused({each: said for each, said in node.items() if each not in dropped}):
                for keyword in dropped:
                    del node[keyword]
                if "patternProperties" in dropped:  # any name may be one that they declare
                    node.pop("additionalProperties", None)
                self._leave_out(at, dropped)

    def _refused(self, node: dict[str, Any]) -> str | None:
        return refused({**node, "$defs": self._defs})

    def _leave_out(self, at: str, keywords: Iterable[str]) -> None:
        self._unenforced |= dict.fromkeys(f"{at}.{keyword}" for keyword in keywords)

    def _spend(self, schemas: int, place: Place) -> None:
        self._work += schemas
        if self._work > MAX_WORK:
            raise SchemaProblem(place.at, None, f"makes more than {MAX_WORK} schemas; each use of a $ref counts")

    def _node(self, place: Place, closing: Names | None) -> Any:
        """Rewrite one schema.

        Args:
            place: its place.
            closing: names that other schemas declare for the same object; None if it must not be closed here.
        """
        if isinstance(place.schema, bool):
            return place.schema
        self._spend(1, place)
        place = place.entered()
        plain, left_out = self._own.keywords(place.schema, place.at)
        self._leave_out(place.at, left_out)
        members = self._conditions(place)
        inner, shut = self._where_to_close(place, closing, members)
        self._add_properties(plain, place)
        self._add_items(plain, place)
        if shut is None and closing == frozenset() and _is_map(place.schema):
            plain["maxProperties"] = plain.get("maxProperties", max(MAX_FREE, plain.get("minProperties", 0)))
        parts = self._add_parts(plain, place, members, inner)
        if shut is not None:
            parts["allOf"] += _close(plain, place.schema, shut)
        plain |= {keyword: several for keyword, several in parts.items() if several}
        self._to_try.append((place.at, plain))
        return plain

    def _conditions(self, place: Place) -> list[Place]:
        members: list[Place] = []
        for keyword, member in conditions(place.schema, lambda each: replace(place, schema=each).seen_through().schema):
            if member is None or len(members) > MAX_CONDITIONS:
                self._leave_out(place.at, [keyword])
            else:
                members.append(place.within(member, keyword))
        return members

    def _where_to_close(
        self, place: Place, closing: Names | None, members: Sequence[Place]
    ) -> tuple[Names | None, Names | None]:
        """Decide where to close an object: inside a part of the schema, here, or nowhere.

        Returns the names that other schemas declare: for the part, and for here. At most one is not None.
        """
        if closing is None or not self._closes:
            return None, None
        schema, here, every = place.schema, place.applying(("allOf",)), place.applying()
        self._spend((len(here) + len(every)) // 5, place)  # looking is cheap
        unions = schema.keys() & {"anyOf", "oneOf"}
        parts = [*schema.get("allOf", ()), *schema.keys() & {"$ref", *unions, "properties"}, *members]
        if len(unions) == 1 and not _is_open(here):
            return closing | _names(here), None
        if len(parts) == 1 and "properties" not in schema and not _is_open(here):
            return closing, None
        closes = (closing or any("properties" in each for each in every)) and not _is_open(every)
        return None, closing | _names(every) if closes else None

    def _add_properties(self, plain: dict[str, Any], place: Place) -> None:
        schema = place.schema
        for keyword in ("properties", "patternProperties"):
            if names := _ordered(schema.get(keyword, ()), schema.get("required", ())):
                plain[keyword] = {name: self._value(place, schema[keyword][name], keyword, name) for name in names}
        if named := plain.get("patternProperties"):
            plain["patternProperties"] = {for_llguidance(name): each for name, each in named.items()}
        if "additionalProperties" in schema:
            plain["additionalProperties"] = self._value(place, schema["additionalProperties"], "additionalProperties")
        if "propertyNames" in schema and not self._add_names(plain, place.within(schema["propertyNames"])):
            self._leave_out(place.at, ["propertyNames"])

    def _add_names(self, plain: dict[str, Any], place: Place) -> bool:
        """Restrict the names of properties. Return whether llguidance enforces all that the schema says of them."""
        key = place.seen_through().schema
        if isinstance(key, bool):
            return key
        given = [key["pattern"]] if "pattern" in key else []
        same = are_enforced(given, place.at, "propertyNames")
        pattern = "".join(map(for_llguidance, given))
        said = key.keys() - {"description"} - ({"type"} if "string" in key.get("type", ()) else set())
        declares = plain.keys() & {"properties", "patternProperties", "required"}
        if said != {"pattern"} or declares or refused({"pattern": pattern}):
            return not said
        plain["patternProperties"] = {pattern: plain.get("additionalProperties", True)}
        plain["additionalProperties"] = False
        return same

    def _add_items(self, plain: dict[str, Any], place: Place) -> None:
        items, rest, after = place.schema.get("prefixItems"), place.schema.get("items"), "items"
        if isinstance(rest, list):  # before 2020-12
            items, rest, after = rest, place.schema.get("additionalItems"), "additionalItems"
        if items:
            plain["prefixItems"] = [self._value(place, each, "prefixItems", str(n)) for n, each in enumerate(items)]
        if rest is not None:
            plain["items"] = self._value(place, rest, after)

    def _value(self, place: Place, schema: Any, *steps: str) -> Any:
        return self._node(place.within(schema, *steps), frozenset())

    def _add_parts(
        self, plain: dict[str, Any], place: Place, members: Iterable[Place], inner: Names | None
    ) -> dict[str, list[Any]]:
        """Rewrite the schemas that apply to the same value. Return those for anyOf and allOf."""
        schema = place.schema
        beside = None if schema.keys() & {"anyOf", "oneOf"} else inner
        if "$ref" in schema:
            plain["$ref"] = self._reference(place.target(schema["$ref"]), beside)
        every = [self._node(each, beside) for each in place.each("allOf")]
        some, one = (self._branches(place.each(keyword), inner) for keyword in ("anyOf", "oneOf"))
        every += [self._node(member, None) for member in members]
        return {"anyOf": some, "allOf": every + ([{"anyOf": self._told_apart(place, one)}] if one else [])}

    def _branches(self, places: Iterable[Place], closing: Names | None) -> list[Any]:
        """Rewrite the branches of a union. One that allows nothing is False, unless all are so."""
        branches: list[Any] = []
        for place in places:
            try:
                branches.append(self._node(place, closing))
            except Contradiction as error:
                branches.append(error)
        if branches and all(isinstance(each, Contradiction) for each in branches):
            raise branches[0]
        return [False if isinstance(each, Contradiction) else each for each in branches]

    def _reference(self, target: Place, closing: Names | None) -> str:
        key = (id(target.schema), closing)
        if key in self._nothing:
            raise self._nothing[key]
        if key not in self._def_names:
            name = self._def_names[key] = f"{'d' if self._closes else 'o'}{len(self._def_names)}"
            try:
                self._defs[name] = self._node(target, closing)
            except Contradiction as problem:
                self._nothing[key] = problem
                raise
        return f"#/$defs/{self._def_names[key]}"

    def _told_apart(self, place: Place, plain: list[Any]) -> list[Any]:
        """Turn the branches of a oneOf into those of an anyOf. Leave out the oneOf if a value may be valid in two."""
        branches = place.schema["oneOf"]
        if all(isinstance(each, Mapping) and each.keys() == {"required"} for each in branches):
            needed = [{*each["required"]} for each in branches]
            others = [[_lacking(each - mine) for each in needed if each is not mine] for mine in needed]
            return [{**one, "allOf": lacking} for one, lacking in zip(plain, others, strict=True)]
        if self._closes and self._may_overlap(place, plain):
            self._leave_out(place.at, ["oneOf"])
        return plain

    def _may_overlap(self, place: Place, plain: list[Any]) -> bool:
        """Whether a value that one branch allows may be valid in another branch as it was sent."""
        if self._compared > MAX_COMPARED:
            return True
        whole = Rewriting(self._root.schema, self._root.draft, closes=False)
        branches = [replace(each.seen_through(), depth=0) for each in place.each("oneOf")[:MAX_BRANCHES]]
        sent = whole._branches(branches, None)
        defs = {"$defs": {**self._defs, **whole._defs}}
        self._compared += 2 * whole._work  # walked here, then by llguidance
        if len(plain) <= MAX_BRANCHES and not refused({"oneOf": sent, **defs}):
            return False
        self._compared += whole._work * len(plain) * (len(plain) - 1)
        if len(plain) > MAX_PAIRED or self._compared > MAX_COMPARED:
            return True
        pairs = [(one, other) for n, one in enumerate(plain) for m, other in enumerate(sent) if n != m]
        return not all((refused({"allOf": pair, **defs}) or "").startswith("Unsatisfiable") for pair in pairs)


def _ordered(names: Iterable[str], required: Sequence[str]) -> list[str]:
    """Keep an order that a person chose. coglet sorts the keys of an object but not a list such as `required`."""
    names = list(names)
    if names != sorted(names):
        return names
    order = {name: n for n, name in enumerate(required)}
    return sorted(names, key=lambda name: order.get(name, len(order)))


def _names(schemas: Iterable[Mapping[str, Any]]) -> Names:
    """Collect the properties that are declared or required."""
    return Names().union(*(schema.get(each, ()) for schema in schemas for each in ("properties", "required")))


def _is_open(schemas: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a schema asks for properties that are not declared."""
    return any(schema.get(keyword) not in (None, False) for schema in schemas for keyword in OPENING)


def _is_map(schema: Mapping[str, Any]) -> bool:
    is_object = schema.get("type") == "object" or schema.keys() & {*OPENING}
    return bool(is_object) and not schema.keys() & {"properties", "$ref", *IN_PLACE}


def _close(plain: dict[str, Any], schema: Mapping[str, Any], names: Names) -> list[Any]:
    """Allow an object no other names. Return a schema for allOf if `plain` does not declare all names."""
    declared = plain.get("properties", {}).keys() >= names
    plain |= {"additionalProperties": False} if declared else {}
    plain |= {} if schema.keys() & {"type", "enum", "const", "$ref", *IN_PLACE} else {"type": "object"}
    return [] if declared else [{"properties": dict.fromkeys(sorted(names), True), "additionalProperties": False}]


def _lacking(names: set[str]) -> dict[str, Any]:
    """Write a schema for an object that lacks one of the properties."""
    return {"anyOf": [*map(without, sorted(names))] or [False]}
