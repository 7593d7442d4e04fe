"""Lark rules for the JSON of a schema, in which numbers end: in llguidance's own, digits go on without end.

Rules and %json may stand for the same value, for they have the same lexemes. Each expression here is one name.
Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import inf
from typing import Any

from hermes.json_schema.grammar import MAX_FREE
from hermes.json_schema.keywords import refused
from hermes.json_schema.numbers import MAXIMUM, MINIMUM, number

# At most one white space, after a comma or colon: a small model writes it without end.
SPACES = {"whitespace_flexible": False, "item_separator": r",[ \n]?", "key_separator": r":[ \n]?"}

MAX_DEPTH = 8  # of items that may be missing; llguidance follows a grammar as deep as its stack
MAX_RANGES = 32  # of numbers in one grammar: each makes it larger
TYPES = ("string", "number", "boolean", "null", "array", "object")
SATISFIABLE = ({"type"}, {"const"}, {"enum"})
DECLARED, MAP = {"properties", "required"}, {"minProperties", "maxProperties"}
OBJECT = {"patternProperties", *DECLARED, *MAP}
KEY = r'/"([^"\\\x00-\x1f]|\\["\\bfnrt])*"/'  # in JSON, a name has one form: the shortest
OF_ONE_TYPE = {"items", "prefixItems", "minItems", "maxItems", "multipleOf", "minLength", "maxLength", "pattern"}
OF_ONE_TYPE |= {*MINIMUM, *MAXIMUM, *OBJECT, "additionalProperties", "format"}


class LarkRules:
    """The rules of one grammar. All schemas in it share them."""

    def __init__(self) -> None:
        self._rules: dict[str, str] = {"COMMA": r"/,[ \n]?/", "COLON": r"/:[ \n]?/"}  # and terminals
        self._names: dict[str, str] = {}  # of those that are no target of a reference, by definition
        self._ranges = 0
        self._defs: Mapping[str, Any] = {}
        self._targets: dict[str, str] = {}
        self._is_needed = False  # for the schema that is being written

    def json(self, schema: Mapping[str, Any]) -> str:
        """An expression for the JSON of a schema as `enforceable` makes it: one %json if no digits can go on in it."""
        rules, names, ranges = dict(self._rules), dict(self._names), self._ranges
        self._defs, self._targets, self._is_needed = schema.get("$defs", {}), {}, False
        expression = self._value({keyword: said for keyword, said in schema.items() if keyword != "$defs"})
        has_values = all(self._rules[target] for target in self._targets.values())
        if self._is_needed and expression and has_values:
            return expression
        self._rules, self._names, self._ranges = rules, names, ranges
        return _json(schema)

    def text(self) -> str:
        """The rules, a line each."""
        return "".join(f"\n{name}: {definition}" for name, definition in self._rules.items()) if self._names else ""

    def _named(self, kind: str, definition: str) -> str:
        if definition not in self._names:
            self._names[definition] = f"{kind}{len(self._rules)}"
            self._rules[self._names[definition]] = definition
        return self._names[definition]

    def _value(self, schema: Any) -> str:
        """An expression for a value; empty if there is none."""
        if schema is False:
            return ""
        if schema is True or not schema:
            return self._any()
        keywords = schema.keys()
        if keywords == {"$ref"}:
            return self._target(schema["$ref"])
        if keywords == {"anyOf"} or (keywords == {"allOf"} and len(schema["allOf"]) == 1):
            return self._one_of(map(self._value, *schema.values()))
        if keywords - {"type"} - OF_ONE_TYPE:
            return self._leaf(schema)
        types = schema.get("type", TYPES)
        types = [types] if isinstance(types, str) else types  # number includes integer
        return self._one_of(
            self._typed(schema | {"type": each}) for each in types if each != "integer" or "number" not in types
        )

    def _typed(self, schema: Mapping[str, Any]) -> str:
        match schema["type"]:
            case "number" | "integer" if "multipleOf" not in schema:
                return self._number(schema)
            case "array":
                return self._array(schema)
            case "object":
                said, others = (
                    schema.keys() & OBJECT - {"additionalProperties"},
                    schema.get("additionalProperties", True),
                )
                if said <= MAP and others is not False:
                    return self._map(schema, others)
                if said <= DECLARED:
                    return self._object(schema.get("properties", {}), schema.get("required", ()), others)
        return self._leaf(schema)

    def _one_of(self, expressions: Iterable[str]) -> str:
        some = list(dict.fromkeys(filter(None, expressions)))
        return self._named("j", " | ".join(some)) if len(some) > 1 else "".join(some)

    def _leaf(self, schema: Mapping[str, Any]) -> str:
        if reached := _reached(schema, self._defs):
            schema = {**schema, "$defs": reached}
        written = _json(schema)
        has_values = schema.keys() in SATISFIABLE and [] not in schema.values()
        return self._named("j", written) if has_values or not _is_refused(written) else ""

    def _any(self) -> str:
        self._is_needed = True
        if "any" not in self._rules:
            self._rules["any"] = ""
            self._rules["any"] = self._one_of(self._typed({"type": each}) for each in TYPES)
        return "any"

    def _target(self, reference: str) -> str:
        name = reference.removeprefix("#/$defs/")
        if name not in self._targets:
            rule = self._targets[name] = f"r{len(self._rules)}"
            self._rules[rule] = ""
            self._rules[rule] = self._value(self._defs[name])
        return self._targets[name]

    def _number(self, schema: Mapping[str, Any]) -> str:
        is_integer, keywords = schema["type"] == "integer", schema.keys()
        self._is_needed |= not (is_integer and keywords & {*MINIMUM} and keywords & {*MAXIMUM})
        terminal = number(schema, integer=is_integer)
        is_new = terminal not in self._names
        if terminal is None or (is_new and self._ranges == MAX_RANGES):
            return self._leaf(schema)
        self._ranges += is_new
        return terminal and self._named("N", terminal)

    def _array(self, schema: Mapping[str, Any]) -> str:
        first, items = [*map(self._value, schema.get("prefixItems", ()))], self._value(schema.get("items", True))
        least, most = schema.get("minItems", 0), schema.get("maxItems", inf)
        most = min(most, first.index("") if "" in first else most if items else len(first))
        first = first[: min(most, len(first))]
        if least > most:
            return ""
        if not first:
            return self._repeated("[", items, least, most, "]")
        if len(first) - least > MAX_DEPTH:
            return self._leaf(schema)
        inner = f"(COMMA {items}){_times(least - len(first), most - len(first))}" if most > len(first) else ""
        for place, each in reversed([*enumerate(first)]):
            inner = f"{'COMMA ' if place else ''}{each} {inner}"
            inner = inner if place < least else f"({inner})?"
        return self._named("j", f'"[" {inner} "]"')

    def _map(self, schema: Mapping[str, Any], others: Any) -> str:
        value, least = self._value(others), schema.get("minProperties", 0)
        pair = self._named("j", f"{self._leaf({'type': 'string'})} COLON {value}")
        most = schema.get("maxProperties", max(MAX_FREE, least)) if value else 0
        return self._repeated("{", pair, least, most, "}") if least <= most else ""

    def _object(self, declared: Mapping[str, Any], required: Sequence[str], others: Any) -> str:
        properties = {**declared, **{name: others for name in required if name not in declared}}
        values = {name: value for name, each in properties.items() if (value := self._value(each))}
        if not values.keys() >= (needed := {*required}):
            return ""
        starts, rest = ['""'], ""
        if other := self._value(others):
            key = self._named("K", " & ~".join([KEY, *map(_literal, properties)]))
            pair = self._named("j", f"{key} COLON {other}")
            starts, rest = ['""', f"{pair} (COMMA {pair}){{0,{MAX_FREE - 1}}}"], f"(COMMA {pair}){{0,{MAX_FREE}}}"
        in_front = next((place for place, name in enumerate(values) if name in needed), len(values))
        for place, (name, value) in reversed([*enumerate(values.items())]):
            pair = self._named("j", f"{_literal(name)} COLON {value}")
            # The last one comes first, so that llguidance follows no name far.
            starts = [*([] if name in needed else starts), f"{pair} {rest}"]
            rest = f"COMMA {pair} {rest}" if name in needed else f"(COMMA {pair})? {rest}"
            rest = rest if place > in_front else self._named("j", rest)
        return self._named("j", f'"{{" ({" | ".join(starts)}) "}}"')

    def _repeated(self, begin: str, item: str, least: int, most: float, end: str) -> str:
        more = f" (COMMA {item}){_times(least - 1, most - 1)}" if most > 1 else ""
        inner = f"({item}{more}){'' if least else '?'}" if most else ""
        return self._named("j", f'"{begin}" {inner} "{end}"')


def _literal(name: str) -> str:
    return json.dumps(json.dumps(name, ensure_ascii=False))


def _times(least: int, most: float) -> str:
    return f"{{{max(least, 0)},{'' if most == inf else most}}}"


def _json(schema: Mapping[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': SPACES})}"


@lru_cache(4096)
def _is_refused(written: str) -> bool:
    return refused(json.loads(written.removeprefix("%json "))) is not None


def _reached(schema: Any, defs: Mapping[str, Any]) -> dict[str, Any]:
    """The definitions that a schema refers to, and those that they refer to."""
    reached: dict[str, Any] = {}
    waiting = [schema]
    while waiting:
        each = waiting.pop()
        if isinstance(each, Mapping):
            name = str(each.get("$ref", "")).removeprefix("#/$defs/")
            if name in defs and name not in reached:
                reached[name] = defs[name]
                waiting.append(defs[name])
        waiting += each.values() if isinstance(each, Mapping) else each if isinstance(each, list) else ()
    return reached
