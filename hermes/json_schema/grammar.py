"""JSON schemas for a grammar: what llguidance keeps to, and the places of what it does not.

Source: JSON Schema 2020-12 (https://json-schema.org/draft/2020-12), and what llguidance 1.7 says of itself
(https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md).
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hermes.json_schema.limits import SchemaProblem, check_size, dialect
from hermes.json_schema.negation import conditions
from hermes.json_schema.validate import pattern_problem
from hermes.text import shown

MAX_NESTED = 100  # schemas within schemas, references followed
MAX_SEEN = 100  # schemas within a condition
MAX_BRANCHES, MAX_PAIRED = 256, 8  # of a oneOf that llguidance compares, and that are compared pair by pair
MAX_CONDITIONS = 8  # at one place: each doubles what the grammar may be
MAX_INTEGER, MAX_NUMBER = 2**63 - 1, 2**53  # larger bounds are drawn in to these
DEFINITION = re.compile(r"#(?:/(?:\$defs|definitions)/[^/]+)?")

AS_THEY_ARE = ("type", "required", "pattern")
FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
OTHER_FORMATS = re.compile(r"idn-\w+|uri-\w+|iri(-\w+)?|(relative-)?json-pointer|regex")  # that some draft defines
LENGTHS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
SAYING_NOTHING = {"uniqueItems": False, "unevaluatedProperties": True, "unevaluatedItems": True}
LEFT_OUT = (*SAYING_NOTHING, "contains", "$dynamicRef", "$recursiveRef")
TRIED = (("pattern",), ("minProperties", "maxProperties"), ("patternProperties",))  # some are refused
OPENING = ("additionalProperties", "patternProperties", "propertyNames", "unevaluatedProperties")


@dataclass(frozen=True)
class Enforceable:
    """A schema for llguidance, and the places in the one that was sent of what it leaves out.

    Every text that the grammar allows is valid but for those keywords.
    """

    schema: Mapping[str, Any]
    unenforced: tuple[str, ...]


def enforceable(schema: Any) -> Enforceable:
    """What of a schema a grammar keeps to.

    Raises:
        SchemaProblem: it is no JSON schema, too large, refers to what is not in it, or no value satisfies it.
    """
    check_size(schema)
    return _Rewriting(schema, dialect(schema)).enforceable()


def _refused(plain: dict[str, Any]) -> str | None:
    """What llguidance has against a schema."""
    from llguidance import LLMatcher

    try:
        failed, said = LLMatcher.validate_grammar_with_warnings(LLMatcher.grammar_from_json_schema(plain))
    except ValueError as error:
        return str(error)
    return " ".join(said[0].split())[:300] if failed else None


def _is_empty(plain: dict[str, Any]) -> bool:
    return (_refused(plain) or "").startswith("Unsatisfiable schema")


class Names(NamedTuple):
    """What a schema, and all that applies to the same object, say of its properties."""

    names: frozenset[str]
    declares: bool  # whether there are `properties`
    is_open: bool  # whether others are asked for


class _Rewriting:
    """One walk over one schema. What references point to becomes entries of $defs, each rewritten once."""

    def __init__(self, root: Mapping[str, Any], draft: Any, *, closes: bool = True):
        from jsonschema_specifications import REGISTRY
        from referencing.jsonschema import specification_with

        self._unenforced: dict[str, None] = {}  # in their order
        self._draft = draft
        self._specification = specification_with(draft.META_SCHEMA["$schema"])
        self._root = root
        self._closes = closes
        self._resolver = REGISTRY.resolver_with_root(self._specification.create_resource(root))
        self._defs: dict[str, Any] = {}
        self._def_names: dict[tuple[int, frozenset[str] | None], str] = {}
        self._nested: list[int] = []  # what is being rewritten, 0 where an object or array is entered
        self._at = "$"  # the place that was entered last
        self._to_try: list[tuple[str, dict[str, Any]]] = []  # places that may be too much, inner ones first

    def enforceable(self) -> Enforceable:
        plain = self._node(self._root, "$", self._resolver, frozenset())
        plain["$defs"] = self._defs
        if _refused(plain):
            for at, node in self._to_try:
                self._drop_what_is_refused(at, node)
        if problem := _refused(plain):
            raise SchemaProblem("$", None, f"makes no grammar: {problem}")
        return Enforceable(plain, tuple(self._unenforced))

    def _drop_what_is_refused(self, at: str, node: dict[str, Any]) -> None:
        for keywords in TRIED:
            if node.keys() & {*keywords} and (problem := _refused({**node, "$defs": self._defs})):
                without = {keyword: said for keyword, said in node.items() if keyword not in keywords}
                if problem != _refused({**without, "$defs": self._defs}):
                    for keyword in node.keys() & {*keywords}:
                        del node[keyword]
                        self._leave_out(at, keyword)

    def _leave_out(self, at: str, keyword: str) -> None:
        self._unenforced[f"{at}.{keyword}"] = None

    def _node(self, schema: Any, at: str, resolver: Any, closing: frozenset[str] | None) -> Any:
        """One schema, rewritten.

        An object that has `properties` and says nothing of others is closed: a model wanders off into free keys.

        Args:
            schema: the schema.
            at: its place.
            resolver: of its references.
            closing: what else is declared of the object that it speaks of; None if it must not be closed here.
        """
        if isinstance(schema, bool):
            return schema
        if len(self._nested) > MAX_NESTED:
            raise SchemaProblem(at, None, "leads through too many others")
        self._nested.append(id(schema))
        self._at = at
        resolver = resolver.in_subresource(self._specification.create_resource(schema))
        plain = self._value(schema, at)
        members = [(f"{at}.{keyword}", member) for keyword, member in self._conditions(schema, at, resolver)]
        branches = [keyword for keyword in ("anyOf", "oneOf") if keyword in schema]
        parts = [*schema.get("allOf", ()), *schema.keys() & {"$ref"}, *members]
        inner = shut = None  # what is declared beside a part that is to be closed, and here
        if closing is not None and self._closes:
            own, every = (self._names(schema, resolver, each) for each in (("allOf",), ("allOf", "anyOf", "oneOf")))
            if len(branches) == 1 and not own.is_open:
                inner = closing | own.names
            elif not branches and len(parts) == 1 and not members and "properties" not in schema:
                inner = None if own.is_open else closing
            elif not every.is_open and (closing or every.declares):
                shut = closing | every.names
        self._inside(plain, schema, at, resolver)
        if "$ref" in schema:
            plain["$ref"] = self._reference(schema["$ref"], at, resolver, None if branches else inner)
        for keyword in branches:
            plain[keyword] = [
                self._node(each, f"{at}.{keyword}[{n}]", resolver, inner) for n, each in enumerate(schema[keyword])
            ]
        every_of = [
            self._node(each, f"{at}.allOf[{n}]", resolver, None if branches else inner)
            for n, each in enumerate(schema.get("allOf", ()))
        ]
        every_of += [self._node(member, place, resolver, None) for place, member in members]
        if shut is not None and shut <= plain.get("properties", {}).keys():
            plain["additionalProperties"] = False
        elif shut is not None:
            every_of.append({"properties": dict.fromkeys(sorted(shut), True), "additionalProperties": False})
        if shut is not None and not plain.keys() & {"type", "$ref", "anyOf", "oneOf", "enum"} and "allOf" not in schema:
            plain["type"] = "object"
        if "oneOf" in plain:
            every_of.append({"anyOf": self._told_apart(schema["oneOf"], plain.pop("oneOf"), at, resolver)})
        plain |= {"allOf": every_of} if every_of else {}
        if plain.keys() & {keyword for keywords in TRIED for keyword in keywords}:
            self._to_try.append((at, plain))
        self._nested.pop()
        return plain

    def _value(self, schema: Mapping[str, Any], at: str) -> dict[str, Any]:
        """What a schema says without others inside it."""
        for pattern in (schema.get("pattern", ""), *schema.get("patternProperties", ())):
            if problem := pattern_problem(pattern):
                raise SchemaProblem(at, "pattern", f"{shown(pattern)} is refused: {problem}")
        plain = {keyword: schema[keyword] for keyword in AS_THEY_ARE if keyword in schema}
        plain |= {keyword: int(schema[keyword]) for keyword in LENGTHS if keyword in schema}
        left_out = [each for each in LEFT_OUT if each in schema and schema[each] is not SAYING_NOTHING.get(each)]
        if (named := schema.get("format")) in FORMATS:
            plain["format"] = named
        elif named and OTHER_FORMATS.fullmatch(named):
            left_out.append("format")
        for keyword in ("enum", "const"):
            if keyword in schema:
                plain |= {keyword: schema[keyword]} if _is_exact(schema[keyword]) else {}
                left_out += [] if keyword in plain else [keyword]
        for keyword in BOUNDS:
            bound, largest = schema.get(keyword, 0), MAX_INTEGER if schema.get("type") == "integer" else MAX_NUMBER
            if abs(bound) > MAX_NUMBER and (bound > 0) == keyword.endswith("aximum"):
                plain[keyword] = int(math.copysign(min(abs(bound), largest), bound))
            elif abs(bound) > MAX_NUMBER:
                left_out.append(keyword)
            elif keyword in schema:
                plain[keyword] = bound
        if float(schema.get("multipleOf", 1)).is_integer():
            plain |= {"multipleOf": int(schema["multipleOf"])} if "multipleOf" in schema else {}
        else:  # to a checker, 0.07 is no multiple of 0.01
            left_out.append("multipleOf")
        if plain.get("minProperties", 0) > 1 and any(schema.get(keyword) for keyword in OPENING):
            left_out.append("minProperties")  # a free name may be written twice, and counts once
        for keyword in left_out:
            self._leave_out(at, keyword)
        return plain

    def _inside(self, plain: dict[str, Any], schema: Mapping[str, Any], at: str, resolver: Any) -> None:
        """Put in the schemas of the values within an object or array."""

        def node(each: Any, *steps: str) -> Any:
            self._nested.append(0)
            plain = self._node(each, at + "".join(map(_step, steps)), resolver, frozenset())
            self._nested.pop()
            return plain

        names = list(schema.get("properties", ()))
        if names == sorted(names):  # as coglet sorts them; else their order is somebody's
            names.sort(key=lambda name: name not in schema.get("required", ()))
        if names:
            plain["properties"] = {name: node(schema["properties"][name], "properties", name) for name in names}
        if patterns := schema.get("patternProperties"):
            plain["patternProperties"] = {
                pattern: node(each, "patternProperties", pattern) for pattern, each in patterns.items()
            }
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

    def _conditions(self, schema: Mapping[str, Any], at: str, resolver: Any) -> Iterator[tuple[str, Any]]:
        followed: list[Any] = []

        def see(each: Any) -> Any:
            followed.append(self._seen_through(each, resolver)[0])
            if len(followed) > MAX_SEEN:
                raise SchemaProblem(at, None, "has a condition that leads through too many schemas")
            return followed[-1]

        found = list(conditions(schema, see))
        for keyword, member in found:
            if member is None or len(found) > MAX_CONDITIONS:
                self._leave_out(at, keyword)
            else:
                yield keyword, member

    def _told_apart(self, branches: Sequence[Any], plain: list[Any], at: str, resolver: Any) -> list[Any]:
        """The branches of a oneOf for an anyOf: so that no value is valid in two of them, or that is left out."""
        if all(isinstance(each, Mapping) and each.keys() == {"required"} for each in branches):
            needed = [set(each["required"]) for each in branches]
            return [
                {**one, "allOf": [_without_one_of(each - mine) for each in needed if each is not mine]}
                for one, mine in zip(plain, needed, strict=True)
            ]
        if self._closes and len(branches) > MAX_BRANCHES:
            self._leave_out(at, "oneOf")
        elif self._closes:
            whole = _Rewriting(self._root, self._draft, closes=False)  # what closing leaves out is still valid
            targets = [self._seen_through(each, resolver) for each in branches]
            sent = [whole._node(target, at, there, None) for target, there in targets]
            defs = {"$defs": {**self._defs, **whole._defs}}
            pairs = [(one, other) for n, one in enumerate(plain) for m, other in enumerate(sent) if n != m]
            if _refused({"oneOf": sent, **defs}) and (
                len(branches) > MAX_PAIRED or any(not _is_empty({"allOf": pair, **defs}) for pair in pairs)
            ):
                self._leave_out(at, "oneOf")
        return plain

    def _reference(self, reference: str, at: str, resolver: Any, closing: frozenset[str] | None) -> str:
        target, there = self._target(reference, resolver)
        in_place = self._nested[len(self._nested) - [*reversed(self._nested), 0].index(0) :]
        if id(target) in in_place:
            raise SchemaProblem(at, "$ref", f"to {shown(reference)} leads back to itself with nothing between")
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
            raise SchemaProblem(self._at, "$ref", f"to {shown(reference)} is not in the schema; copy it in") from error
        checked = DEFINITION.fullmatch(reference)  # with the whole, to be a schema
        if not checked and not self._draft(self._draft.META_SCHEMA).is_valid(found.contents):
            raise SchemaProblem(self._at, "$ref", f"to {shown(reference)} is no place of a schema")
        return found.contents, found.resolver

    def _seen_through(self, schema: Any, resolver: Any) -> tuple[Any, Any]:
        """The schema, or what it is but a reference to, and the resolver of references there."""
        for _ in range(MAX_NESTED):
            if not isinstance(schema, Mapping) or schema.keys() - {"title", "description"} != {"$ref"}:
                break
            schema, resolver = self._target(schema["$ref"], resolver)
        return schema, resolver

    def _names(self, schema: Any, resolver: Any, of: tuple[str, ...], seen: frozenset[int] = frozenset()) -> Names:
        if len(seen) > MAX_NESTED:
            raise SchemaProblem(self._at, "$ref", "leads through too many others")
        if isinstance(schema, bool) or id(schema) in seen:
            return Names(frozenset(), declares=False, is_open=False)
        inside = [(each, resolver) for keyword in of for each in schema.get(keyword, ())]
        inside += [(schema[keyword], resolver) for keyword in ("then", "else") if keyword in schema]
        needed = [*schema.get("dependentSchemas", {}).values(), *schema.get("dependencies", {}).values()]
        inside += [(each, resolver) for each in needed if isinstance(each, Mapping)]
        inside += [self._target(schema["$ref"], resolver)] if "$ref" in schema else []
        parts = [self._names(*each, ("allOf", "anyOf", "oneOf"), seen | {id(schema)}) for each in inside]
        return Names(
            frozenset(schema.get("properties", ())).union(schema.get("required", ()), *(each.names for each in parts)),
            "properties" in schema or any(each.declares for each in parts),
            any(schema.get(keyword) not in (None, False) for keyword in OPENING) or any(each.is_open for each in parts),
        )


def _without_one_of(names: set[str]) -> Any:
    return {"anyOf": [{"properties": {name: False}} for name in sorted(names)]} if names else False


def _is_exact(value: Any) -> bool:
    """Whether every number in it is one that llguidance reads as it is."""
    if isinstance(value, dict | list):
        return all(map(_is_exact, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int | float) or abs(value) <= MAX_NUMBER


def _step(name: str) -> str:
    return f".{name}" if name.isidentifier() else f"[{name if name.isdecimal() else shown(name)}]"
