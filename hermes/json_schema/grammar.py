"""JSON schemas for a grammar: what llguidance keeps to, and the places of what it does not.

Source: JSON Schema 2020-12 (https://json-schema.org/draft/2020-12), and what llguidance 1.7 says of itself
(https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hermes.json_schema.limits import SchemaProblem, check_size, dialect
from hermes.json_schema.negation import conditions, without
from hermes.json_schema.validate import pattern_problem
from hermes.text import shown

MAX_NESTED = 50  # schemas within schemas, references followed
MAX_CONDITIONS = 8  # at one place: each doubles what the grammar may be
MAX_BRANCHES, MAX_PAIRED = 256, 8  # of a oneOf that llguidance compares, and that are compared pair by pair
MAX_NUMBER = 2**53  # llguidance reads larger ones inexactly
MAX_FREE = 64  # names in a map: a small model writes the same one without end, and JSON keeps the last
MAX_COUNT, MAX_COUNTED = 4_096, 20_000  # items or properties, at one place and in all; each is a part of the grammar

DEFINITION = re.compile(r"#(?:/(?:\$defs|definitions)/[^/]+)?")
FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
OTHER_FORMATS = re.compile(r"idn-\w+|uri-\w+|iri(-\w+)?|(relative-)?json-pointer|regex")  # that some draft defines
LENGTHS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
SAYING_NOTHING = {"uniqueItems": False, "unevaluatedProperties": True, "unevaluatedItems": True}
LEFT_OUT = (*SAYING_NOTHING, "contains", "$dynamicRef", "$recursiveRef")
# Some of these are refused, alone or together.
TRIED = (
    ("minLength", "maxLength"),
    ("pattern",),
    ("format",),
    ("minProperties", "maxProperties"),
    ("patternProperties",),
)
OPENING = ("additionalProperties", "patternProperties", "propertyNames", "unevaluatedProperties")
IN_PLACE = ("allOf", "anyOf", "oneOf")


@dataclass(frozen=True)
class Enforceable:
    """A schema for llguidance, and the places in the one that was sent of keywords that it leaves out.

    Every text that the grammar allows is valid but for those.
    """

    schema: Mapping[str, Any]
    unenforced: tuple[str, ...]


def enforceable(schema: Any) -> Enforceable:
    """What of a schema a grammar keeps to.

    Raises:
        SchemaProblem: it is no JSON schema, too large, refers to what is not in it, or no value satisfies it.
    """
    check_size(schema)
    return Rewriting(schema, dialect(schema)).enforceable()


def refused(plain: dict[str, Any]) -> str | None:
    """What llguidance has against a schema."""
    from llguidance import LLMatcher

    try:
        failed, said = LLMatcher.validate_grammar_with_warnings(LLMatcher.grammar_from_json_schema(plain))
    except ValueError as error:
        return str(error)
    return " ".join(said[0].split())[:300] if failed else None


class Rewriting:
    """One walk over one schema. What references point to becomes entries of $defs, each rewritten once."""

    def __init__(self, root: Mapping[str, Any], draft: Any, *, closes: bool = True):
        """Args:
        root: the schema.
        draft: jsonschema's validator of it.
        closes: objects that have `properties` and say nothing of others: a model wanders off into free keys.
        """
        from jsonschema_specifications import REGISTRY
        from referencing.jsonschema import specification_with

        self._root, self._draft, self._closes = root, draft, closes
        self._specification = specification_with(draft.META_SCHEMA["$schema"])
        self._resolver = REGISTRY.resolver_with_root(self._specification.create_resource(root))
        self._unenforced: dict[str, None] = {}  # in their order
        self._defs: dict[str, Any] = {}
        self._def_names: dict[tuple[int, frozenset[str] | None], str] = {}
        self._at, self._depth = "$", 0  # of what is being rewritten
        self._counted = 0  # items and properties
        self._to_try: list[tuple[str, dict[str, Any]]] = []  # places that may be too much, inner ones first

    def enforceable(self) -> Enforceable:
        plain = self._node(self._root, "$", self._resolver, frozenset())
        plain["$defs"] = self._defs
        if problem := refused(plain):
            for at, node in self._to_try:
                self._drop_what_is_refused(at, node)
            problem = refused(plain)
        if problem:
            raise SchemaProblem("$", None, f"makes no grammar: {problem}")
        return Enforceable(plain, tuple(self._unenforced))

    def _drop_what_is_refused(self, at: str, node: dict[str, Any]) -> None:
        for keywords in TRIED:
            if node.keys() & {*keywords} and (problem := refused({**node, "$defs": self._defs})):
                rest = {keyword: said for keyword, said in node.items() if keyword not in keywords}
                if problem != refused({**rest, "$defs": self._defs}):
                    for keyword in node.keys() & {*keywords}:
                        del node[keyword]
                        self._leave_out(at, keyword)

    def _leave_out(self, at: str, keyword: str) -> None:
        self._unenforced[f"{at}.{keyword}"] = None

    def _node(self, schema: Any, at: str, resolver: Any, closing: frozenset[str] | None) -> Any:
        """One schema, rewritten.

        Args:
            schema: the schema.
            at: its place.
            resolver: of its references.
            closing: what else is declared of the object that it speaks of; None if it must not be closed here.
        """
        if isinstance(schema, bool):
            return schema
        if self._depth > MAX_NESTED:
            raise SchemaProblem(at, None, "leads through too many others")
        self._at, self._depth = at, self._depth + 1
        resolver = resolver.in_subresource(self._specification.create_resource(schema))
        plain = self._value(schema, at)
        members: list[tuple[str, Any]] = []
        for keyword, member in conditions(schema, lambda each: self._seen_through(each, resolver)[0]):
            if member is None or len(members) > MAX_CONDITIONS:
                self._leave_out(at, keyword)
            else:
                members.append((f"{at}.{keyword}", member))
        branches = schema.keys() & {"anyOf", "oneOf"}
        inner = shut = None  # what is declared beside the part or the branches that are to be closed, and here
        if closing is not None and self._closes:
            own, _, own_open = self._names(schema, resolver, ("allOf",))
            every, declares, is_open = self._names(schema, resolver, IN_PLACE)
            if len(branches) == 1 and not own_open:
                inner = closing | own
            elif len([*schema.get("allOf", ()), *schema.keys() & {"$ref", *branches, "properties"}, *members]) == 1:
                inner = None if own_open or "properties" in schema else closing
            if inner is None and not is_open and (closing or declares):
                shut = closing | every
        self._inside(plain, schema, at, resolver)
        is_map = schema.get("type") == "object" or schema.keys() & {*OPENING}
        if is_map and shut is None and closing == frozenset() and not schema.keys() & {"properties", "$ref", *IN_PLACE}:
            plain["maxProperties"] = plain.get("maxProperties", max(MAX_FREE, plain.get("minProperties", 0)))
        if "$ref" in schema:
            plain["$ref"] = self._reference(schema["$ref"], resolver, None if branches else inner)
        parts: dict[str, list[Any]] = {}
        for keyword in (each for each in IN_PLACE if each in schema):
            closes = None if branches and keyword == "allOf" else inner
            parts[keyword] = [
                self._node(each, f"{at}.{keyword}[{n}]", resolver, closes) for n, each in enumerate(schema[keyword])
            ]
        every_of = [*parts.get("allOf", ()), *(self._node(member, place, resolver, None) for place, member in members)]
        if "oneOf" in parts:
            every_of.append({"anyOf": self._told_apart(schema["oneOf"], parts["oneOf"], at, resolver)})
        if shut is not None:
            closed = {"properties": dict.fromkeys(sorted(shut), True), "additionalProperties": False}
            if shut <= plain.get("properties", {}).keys():
                plain["additionalProperties"] = False
            else:
                every_of.append(closed)
            if not schema.keys() & {"type", "enum", "const", "$ref", *IN_PLACE}:
                plain["type"] = "object"
        plain |= {"anyOf": parts["anyOf"]} if "anyOf" in parts else {}
        plain |= {"allOf": every_of} if every_of else {}
        self._to_try.append((at, plain))
        self._depth -= 1
        return plain

    def _value(self, schema: Mapping[str, Any], at: str) -> dict[str, Any]:
        """What a schema says without others inside it."""
        for pattern in (schema.get("pattern", ""), *schema.get("patternProperties", ())):
            if problem := pattern_problem(pattern):
                raise SchemaProblem(at, "pattern", f"{shown(pattern)} is refused: {problem}")
        plain = {keyword: schema[keyword] for keyword in ("type", "required", "pattern") if keyword in schema}
        plain |= {keyword: min(int(schema[keyword]), MAX_NUMBER) for keyword in LENGTHS if keyword in schema}
        left_out = [each for each in LEFT_OUT if each in schema and schema[each] is not SAYING_NOTHING.get(each)]
        for keyword in (each for each in LENGTHS[2:] if each in plain):
            plain[keyword] = min(plain[keyword], MAX_COUNT) if keyword.startswith("max") else plain[keyword]
            self._counted += plain[keyword]
            if plain[keyword] > MAX_COUNT:
                raise SchemaProblem(at, keyword, f"is {plain[keyword]}; no answer holds more than {MAX_COUNT}")
            if self._counted > MAX_COUNTED:
                del plain[keyword]
                left_out.append(keyword)
        for keyword, is_known in (
            ("format", schema.get("format") in FORMATS),
            ("enum", _is_exact(schema.get("enum"))),
            ("const", _is_exact(schema.get("const"))),
            ("multipleOf", schema.get("multipleOf", 1) % 1 == 0),  # 0.07 is none of 0.01, to a checker
        ):
            if keyword in schema and is_known:
                plain[keyword] = schema[keyword]
            elif keyword in schema and (keyword != "format" or OTHER_FORMATS.fullmatch(schema["format"])):
                left_out.append(keyword)
        for keyword in (each for each in BOUNDS if each in schema):
            if abs(schema[keyword]) <= MAX_NUMBER:
                plain[keyword] = schema[keyword]
            elif (schema[keyword] > 0) == keyword.endswith("aximum"):  # then this is less
                plain[keyword] = MAX_NUMBER if schema[keyword] > 0 else -MAX_NUMBER
            else:
                left_out.append(keyword)
        is_free = "properties" not in schema or any(schema.get(keyword) for keyword in OPENING)
        if plain.get("minProperties", 0) > 1 and is_free:
            left_out.append("minProperties")  # a free name may be written twice, and counts once
        for keyword in left_out:
            self._leave_out(at, keyword)
        return plain

    def _inside(self, plain: dict[str, Any], schema: Mapping[str, Any], at: str, resolver: Any) -> None:
        """Put in the schemas of the values within an object or array."""

        def node(each: Any, *steps: str) -> Any:
            return self._node(each, at + "".join(map(_step, steps)), resolver, frozenset())

        for keyword in ("properties", "patternProperties"):
            names = list(schema.get(keyword, ()))
            if names == sorted(names):  # as coglet sorts them; else their order is somebody's
                order = {name: n for n, name in enumerate(schema.get("required", ()))}  # a list keeps its own
                names.sort(key=lambda name: order.get(name, len(order)))
            if names:
                plain[keyword] = {name: node(schema[keyword][name], keyword, name) for name in names}
        if "additionalProperties" in schema:
            plain["additionalProperties"] = node(schema["additionalProperties"], "additionalProperties")
        key, _ = self._seen_through(schema.get("propertyNames", True), resolver)
        said = {} if isinstance(key, bool) else {each: key[each] for each in key if each not in ("type", "description")}
        if [*said] == ["pattern"] and not plain.keys() & {"properties", "patternProperties", "required"}:
            plain["patternProperties"] = {said["pattern"]: plain.get("additionalProperties", True)}
            plain["additionalProperties"] = False
        elif said or key is False:
            self._leave_out(at, "propertyNames")
        items, rest, after = schema.get("prefixItems"), schema.get("items"), "items"
        if isinstance(rest, list):  # before 2020-12
            items, rest, after = rest, schema.get("additionalItems"), "additionalItems"
        if items:
            plain["prefixItems"] = [node(each, "prefixItems", str(n)) for n, each in enumerate(items)]
        if rest is not None:
            plain["items"] = node(rest, after)

    def _told_apart(self, branches: Sequence[Any], plain: list[Any], at: str, resolver: Any) -> list[Any]:
        """The branches of a oneOf for an anyOf: so that no value is valid in two of them, or that is left out."""
        if all(isinstance(each, Mapping) and each.keys() == {"required"} for each in branches):
            needed = [{*each["required"]} for each in branches]
            others = [[_lacking(each - mine) for each in needed if each is not mine] for mine in needed]
            return [{**one, "allOf": lacking} for one, lacking in zip(plain, others, strict=True)]
        if self._closes:
            whole = Rewriting(self._root, self._draft, closes=False)  # what closing leaves out is still valid
            targets = (self._seen_through(each, resolver) for each in branches[:MAX_BRANCHES])
            sent = [whole._node(target, at, there, None) for target, there in targets]
            defs = {"$defs": {**self._defs, **whole._defs}}
            pairs = [(one, other) for n, one in enumerate(plain) for m, other in enumerate(sent) if n != m]
            empty = ((refused({"allOf": pair, **defs}) or "").startswith("Unsatisfiable") for pair in pairs)
            compared = len(branches) <= MAX_BRANCHES and not refused({"oneOf": sent, **defs})
            if not compared and (len(branches) > MAX_PAIRED or not all(empty)):
                self._leave_out(at, "oneOf")
        return plain

    def _reference(self, reference: str, resolver: Any, closing: frozenset[str] | None) -> str:
        target, there = self._target(reference, resolver)
        key = (id(target), closing)
        if key not in self._def_names:
            name = self._def_names[key] = f"{'d' if self._closes else 'o'}{len(self._def_names)}"
            self._defs[name] = self._node(target, reference[:200], there, closing)
        return f"#/$defs/{self._def_names[key]}"

    def _target(self, reference: str, resolver: Any) -> tuple[Any, Any]:
        """What a reference points to, and the resolver of references there."""
        from referencing.exceptions import Unresolvable

        try:
            found = resolver.lookup(reference)
        except Unresolvable as error:
            why = f"to {shown(reference)} is not in the schema; copy it in"
            raise SchemaProblem(self._at, "$ref", why) from error
        checked = DEFINITION.fullmatch(reference)  # with the whole, to be a schema
        if not checked and not self._draft(self._draft.META_SCHEMA).is_valid(found.contents):
            raise SchemaProblem(self._at, "$ref", f"to {shown(reference)} is no place of a schema")
        return found.contents, found.resolver

    def _seen_through(self, schema: Any, resolver: Any) -> tuple[Any, Any]:
        """The schema, or what it is but a reference to, and the resolver of references there."""
        for _ in range(MAX_NESTED):
            if isinstance(schema, Mapping) and schema.keys() - {"title", "description"} == {"$ref"}:
                schema, resolver = self._target(schema["$ref"], resolver)
        return schema, resolver

    def _names(
        self, schema: Any, resolver: Any, of: Sequence[str], seen: frozenset[int] = frozenset()
    ) -> tuple[frozenset[str], bool, bool]:
        """What is declared or required of an object, whether it has `properties`, and whether others are asked for."""
        if isinstance(schema, bool) or id(schema) in seen:
            return frozenset(), False, False
        if len(seen) > MAX_NESTED:
            raise SchemaProblem(self._at, "$ref", "leads through too many others")
        inside = [(each, resolver) for keyword in of for each in schema.get(keyword, ())]
        inside += [(schema[keyword], resolver) for keyword in ("then", "else") if keyword in schema]
        needed = [*schema.get("dependentSchemas", {}).values(), *schema.get("dependencies", {}).values()]
        inside += [(each, resolver) for each in needed if isinstance(each, Mapping)]
        inside += [self._target(schema["$ref"], resolver)] if "$ref" in schema else []
        parts = [self._names(*each, IN_PLACE, seen | {id(schema)}) for each in inside]
        names = frozenset(schema.get("properties", ())).union(
            schema.get("required", ()), *(each for each, _, _ in parts)
        )
        declares = "properties" in schema or any(each for _, each, _ in parts)
        is_open = any(schema.get(keyword) not in (None, False) for keyword in OPENING)
        return names, declares, is_open or any(each for _, _, each in parts)


def _lacking(names: set[str]) -> dict[str, Any]:
    """An object without one of the properties."""
    return {"anyOf": [*map(without, sorted(names))] or [False]}


def _is_exact(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(map(_is_exact, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int | float) or abs(value) <= MAX_NUMBER


def _step(name: str) -> str:
    return f".{name}" if name.isidentifier() else f"[{name if name.isdecimal() else shown(name)}]"
