"""The keywords of a JSON schema that hold no other schema, and their form for llguidance.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md, of llguidance 1.7.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeGuard

from hermes.json_schema.limits import SchemaProblem, check_size
from hermes.json_schema.patterns import for_llguidance, pattern_problem, portable
from hermes.text import shown

MAX_NUMBER = 2**53  # llguidance reads larger ones inexactly
MAX_COUNT, MAX_COUNTED = 4_096, 20_000  # items or properties, at one place and in all; each makes the grammar larger

OPENING = ("additionalProperties", "patternProperties", "propertyNames", "unevaluatedProperties")
FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
# Those in which digits could go on without end, with at most 9 of them.
_DAY = "[0-9]{4}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-9])|(0[13-9]|1[0-2])-30|(0[13578]|1[02])-31)"
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)([.][0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_DAYS = "NY(NM(ND)?)?|NM(ND)?|ND"
_HOURS = "T(NH(NM(NS)?)?|NM(NS)?|NS)"
_DURATION = f"P(({_DAYS})({_HOURS})?|{_HOURS}|NW)".replace("N", "[0-9]{1,9}")
ENDING = {"date-time": f"^{_DAY}[Tt]{_TIME}$", "time": f"^{_TIME}$", "duration": f"^{_DURATION}$"}
OTHER_FORMATS = re.compile(r"idn-\w+|uri-\w+|iri(-\w+)?|(relative-)?json-pointer|regex")  # that a draft defines
SAYING_NOTHING = {"uniqueItems": False, "unevaluatedProperties": True, "unevaluatedItems": True}
UNKNOWN = (*SAYING_NOTHING, "contains", "$dynamicRef", "$recursiveRef")
COUNTS = ("minItems", "maxItems", "minProperties", "maxProperties")
KEYWORDS = (
    *(*UNKNOWN, "type", "required", "pattern", "minLength", "maxLength", *COUNTS),
    *("format", "enum", "const", "multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
)
LEFT_OUT = object()
# Those of most tools. A schema without others is enforced wholly.
NAMING = frozenset({"properties", "$defs", "definitions"})
SURE = NAMING | {"type", "required", "items", "additionalProperties", "anyOf", "$ref", "enum", "const", "$schema"}
EXACT = ("const", "minimum", "maximum", "minLength", "maxLength")  # beside enum, what may hold too large a number
SURE |= {"title", "description", "default", "examples", *EXACT}


# A least and a greatest of one thing, and the type of the values that have it.
LIMITS = (
    *(("minLength", "maxLength", "string"), ("minItems", "maxItems", "array"), ("minContains", "maxContains", "array")),
    *(("minProperties", "maxProperties", "object"), ("minimum", "maximum", "number")),
    *(("minimum", "exclusiveMaximum", "number"), ("exclusiveMinimum", "maximum", "number")),
    ("exclusiveMinimum", "exclusiveMaximum", "number"),
)


class Contradiction(SchemaProblem):
    """Two limits of a schema exclude each other, so it allows nothing."""


def contradiction(schema: Mapping[str, Any]) -> tuple[str, str] | None:
    """Find two limits that exclude each other; what is not a number is none."""
    types = schema.get("type", [])
    kinds = {*([types] if isinstance(types, str) else types)}
    for least, most, kind in LIMITS:
        low, high = (schema.get(each) for each in (least, most))
        if kinds and kind not in kinds and not (kind == "number" and "integer" in kinds):
            continue
        if not (_is_number(low) and _is_number(high)):  # in draft 4, exclusiveMinimum is a boolean
            continue
        if low > high or (low == high and "exclusive" in least + most):
            return least, most
    return None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass
class Own:
    """Reads the own keywords of schema after schema. They share one limit on items and properties."""

    counted: int = 0

    def keywords(self, schema: Mapping[str, Any], at: str) -> tuple[dict[str, Any], list[str]]:
        """Return the keywords for llguidance, and the names of those that it does not enforce.

        Raises Contradiction if two limits exclude each other.
        """
        if found := contradiction(schema):
            least, most = found
            why = f"is {shown(schema[least])} and {most!r} is {shown(schema[most])}; nothing satisfies both"
            raise Contradiction(at, least, why)
        texts = [schema["pattern"]] if "pattern" in schema else []
        names = [*schema.get("patternProperties", ())]
        left_out = [] if are_enforced(texts, at, "pattern") else ["pattern"]
        if not are_enforced(names, at, "patternProperties", others=schema.get("additionalProperties") is not False):
            left_out.append("patternProperties")
        said = [each for each in KEYWORDS if each in schema and not _says_nothing(each, schema[each])]
        told = {keyword: self._told(keyword, schema[keyword], at) for keyword in said}
        plain = {keyword: value for keyword, value in told.items() if value is not LEFT_OUT}
        left_out += [keyword for keyword in told if keyword not in plain]
        lowest = (schema.get(each) for each in ("minimum", "exclusiveMinimum"))
        if "multipleOf" in plain and any(_is_number(each) and each >= 0 for each in lowest):
            plain.setdefault("maximum", MAX_NUMBER)  # so that its digits end
        elif plain.pop("multipleOf", None) is not None:  # llguidance knows no multiple below 0
            left_out.append("multipleOf")
        if "pattern" not in plain and plain.get("format") in ENDING:
            plain["pattern"] = ENDING[plain.pop("format")]
        is_free = "properties" not in schema or any(schema.get(keyword) for keyword in OPENING)
        if plain.get("minProperties", 0) > 1 and is_free:
            left_out.append("minProperties")  # a model may write a free name twice, which counts once
        return plain, left_out

    def _told(self, keyword: str, value: Any, at: str) -> Any:
        if keyword in COUNTS:
            return self._count(keyword, min(int(value), MAX_NUMBER), at)
        match keyword:
            case "minLength" | "maxLength":
                return min(int(value), MAX_NUMBER)
            case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
                return _bound(keyword, value)
            case "multipleOf":
                return value if value % 1 == 0 else LEFT_OUT  # in binary, 0.07 is not a multiple of 0.01
            case "pattern":
                return for_llguidance(value)
            case "enum" | "const":
                return value if _is_exact(value) else LEFT_OUT
        return LEFT_OUT if keyword in UNKNOWN or (keyword == "format" and value not in FORMATS) else value

    def _count(self, keyword: str, number: int, at: str) -> Any:
        number = min(number, MAX_COUNT) if keyword.startswith("max") else number
        if number > MAX_COUNT:
            raise SchemaProblem(at, keyword, f"is {number}; a response holds at most {MAX_COUNT}")
        self.counted += number
        return number if self.counted <= MAX_COUNTED else LEFT_OUT


def is_surely_enforced(schema: Any) -> bool:
    """Whether a grammar enforces all of a schema, as far as that can be said without a walk through its references.

    A schema that is not valid, or too large, is not.
    """
    try:
        check_size(schema if isinstance(schema, Mapping) else {})
    except SchemaProblem:
        return False
    return _is_surely_enforced(schema)


def _is_surely_enforced(schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return isinstance(schema, bool)
    named, listed = [schema.get(name, {}) for name in NAMING], [schema.get(name, []) for name in ("anyOf", "enum")]
    if not (all(isinstance(each, Mapping) for each in named) and all(isinstance(each, list) for each in listed)):
        return False
    inner = [*chain.from_iterable(each.values() for each in named), *listed[0]]
    inner += [schema[name] for name in ("items", "additionalProperties") if name in schema]
    exact = _is_exact([listed[1], *(schema.get(name) for name in EXACT)]) and not contradiction(schema)
    return SURE.issuperset(schema) and exact and all(map(_is_surely_enforced, inner))


def are_enforced(patterns: Sequence[str], at: str, keyword: str, *, others: bool = False) -> bool:
    """Whether llguidance enforces patterns as the validator reads them.

    Args:
        patterns: the patterns, of texts or of names.
        at: the path of their schema.
        keyword: the keyword that has them.
        others: names that match none of them have another schema, so that their grammar must not be stricter.

    Raises:
        SchemaProblem: a pattern can't be used.
    """
    for pattern in patterns:
        if problem := pattern_problem(pattern):
            raise SchemaProblem(at, keyword, f"{shown(pattern)} is refused: {problem}")
    rewritten = [portable(pattern) for pattern in patterns]
    if None in rewritten or len({*rewritten}) < len(rewritten):
        return False
    return not others or rewritten == [*map(for_llguidance, patterns)]


def refused(plain: dict[str, Any]) -> str | None:
    """Ask llguidance why it refuses a schema; None if it accepts it."""
    from llguidance import LLMatcher

    try:
        failed, said = LLMatcher.validate_grammar_with_warnings(LLMatcher.grammar_from_json_schema(plain))
    except ValueError as error:
        return str(error)
    return " ".join(said[0].split())[:300] if failed else None


def _says_nothing(keyword: str, value: Any) -> bool:
    if keyword == "format":
        return value not in FORMATS and not OTHER_FORMATS.fullmatch(value)
    return value is SAYING_NOTHING.get(keyword, LEFT_OUT)


def _bound(keyword: str, number: Any) -> Any:
    if abs(number) <= MAX_NUMBER:
        return number
    if (number > 0) == keyword.endswith("aximum"):  # then the bound nearer to 0 is stricter
        return MAX_NUMBER if number > 0 else -MAX_NUMBER
    return LEFT_OUT


def _is_exact(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(map(_is_exact, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int | float) or abs(value) <= MAX_NUMBER
