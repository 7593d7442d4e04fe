"""Rewrite `not`, `if` and dependencies with keywords that llguidance enforces: anyOf, allOf, type, pattern and others.

Source: JSON Schema Validation 2020-12, sections 6 and 10 of https://json-schema.org/draft/2020-12.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

TYPES = ("object", "array", "string", "number", "boolean", "null")
ANNOTATIONS = {"title", "description", "default", "examples", "$comment"}
ANY = "[\\0-\U0010ffff]"  # a character; [\\s\\S] would grow long where a pattern is rewritten
MAX_STRINGS = 50  # that a text must not equal; each makes the pattern longer
MAX_DEPTH, MAX_NEGATED = 20, 200  # of one condition: references can multiply a few schemas without end

See = Callable[[Any], Any]  # follows references


def conditions(schema: Mapping[str, Any], see: See) -> Iterator[tuple[str, Any]]:
    """Yield the conditions of a schema: the keyword, and an equivalent schema or None if there is none."""
    if "not" in schema:
        yield "not", negated(schema["not"], see, count())
    if "if" in schema and schema.keys() & {"then", "else"}:
        unless = negated(schema["if"], see, count())
        then = {"allOf": [schema["if"], schema.get("then", True)]}
        yield "if", unless and {"anyOf": [then, {"allOf": [unless, schema.get("else", True)]}]}
    for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
        for name, needs in schema.get(keyword, {}).items():
            names = [needs] if isinstance(needs, str) else needs  # a text in draft 3, which people still write
            needed = {"required": names} if isinstance(names, list) else needs
            yield keyword, {"anyOf": [without(name), {"allOf": [{"required": [name]}, needed]}]}


def without(name: str) -> dict[str, Any]:
    """Write a schema for any value except an object with this property."""
    return {"properties": {name: False}}


def negated(schema: Any, see: See, calls: Iterator[int], depth: int = 0) -> Any:
    """Write a schema for exactly the values that are not valid here; None if a simple one can't express them."""
    schema = see(schema)
    if isinstance(schema, bool):
        return not schema
    if depth > MAX_DEPTH or next(calls) > MAX_NEGATED:
        return None
    keywords = ((keyword, said) for keyword, said in schema.items() if keyword not in ANNOTATIONS)
    return _united("anyOf", (_negated(*each, lambda inner: negated(inner, see, calls, depth + 1)) for each in keywords))


def _united(keyword: str, parts: Iterable[Any]) -> Any:
    known = []
    for part in parts:
        if part is None:
            return None
        known.append(part)
    return {keyword: known} if known else keyword == "allOf"


def _negated(keyword: str, said: Any, inside: See) -> Any:
    match keyword:
        case "required":
            return _united("anyOf", ({"type": "object", **without(name)} for name in said))
        case "properties":
            values = [(name, inside(each)) for name, each in said.items()]
            return _united("anyOf", (value if value is None else _having(name, value) for name, value in values))
        case "type" if "integer" not in said:
            return {"type": [each for each in TYPES if each not in ([said] if isinstance(said, str) else said)]}
        case "const" | "enum":
            return _none_of([said] if keyword == "const" else said)
        case "anyOf" | "allOf":
            other = "allOf" if keyword == "anyOf" else "anyOf"
            return _united(other, (inside(each) for each in said))
        case "not":
            return said
    return None


def _having(name: str, value: Any) -> dict[str, Any]:
    return {"type": "object", "required": [name], "properties": {name: value}}


def _none_of(values: Sequence[Any]) -> Any:
    """Write a schema for any value except these texts, booleans and null."""
    texts = [each for each in values if isinstance(each, str)]
    others = [each for each in (True, False, None) if not any(each is value for value in values)]
    if len(texts) + 3 - len(others) < len(values) or len(texts) > MAX_STRINGS:
        return None
    text = {"type": "string", "pattern": f"^(?:{_no(texts)})$"}
    return {"anyOf": [{"type": ["object", "array", "number"]}, text, *({"const": each} for each in others)]}


def _no(texts: Sequence[str]) -> str:
    """Write a regular expression for all other texts without a look-around: they begin differently, or are longer."""
    following: dict[str, list[str]] = {}
    for text in filter(None, texts):
        following.setdefault(text[0], []).append(text[1:])
    other = f"[^{''.join(map(re.escape, following))}]" if following else ANY
    goes_on = [f"{re.escape(first)}(?:{_no(rest)})" for first, rest in following.items()]
    return "|".join([f"{other}{ANY}*", *goes_on, *([] if "" in texts else [""])])
