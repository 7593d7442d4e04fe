"""The schemas that hold no others, narrowed: constants, strings and numbers. See schema.py."""

import math
from collections.abc import Mapping
from typing import Any

from hermes.conversation.pattern import FORMATS, PatternProblem, any_string, raw_pattern
from hermes.conversation.schema_limits import SchemaProblem
from hermes.conversation.schema_types import is_of
from hermes.conversation.validation import shown

Schema = Mapping[str, Any]

MAX_NUMBER = 2**53  # the grammar writes bounds digit by digit
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def values(schema: Schema, path: str) -> dict[str, Any]:
    """enum or const: the values that are of the type, too."""
    keyword, listed = ("const", [schema["const"]]) if "const" in schema else ("enum", schema["enum"])
    given = schema.get("type")
    types = [given] if isinstance(given, str) else given
    kept = [value for value in listed if types is None or any(is_of(value, each) for each in types)]
    if not kept:
        raise SchemaProblem(path, keyword, "has no value of the type that it has to be")
    return {"enum": kept}


def string(schema: Schema, path: str) -> dict[str, Any]:
    """A string: lengths and formats become patterns, and a pattern one for the raw text of JSON."""
    least, most = bounds_of(schema, "minLength", "maxLength", path)
    bounded = least > 0 or most is not None
    pattern = schema.get("pattern", FORMATS.get(schema.get("format", "")))
    if pattern is None:
        return {"type": "string"} | ({"pattern": any_string(least, most)} if bounded else {})
    if "pattern" in schema and schema.get("format") in FORMATS:
        raise SchemaProblem(path, "format", "beside 'pattern' is not enforced by the grammar; keep one of them")
    if bounded:
        raise SchemaProblem(
            path,
            "minLength" if least else "maxLength",
            "beside 'pattern' or 'format' is not enforced by the grammar; write it into the pattern, as in {2,8}",
        )
    try:
        written = raw_pattern(pattern if "pattern" in schema else f"^(?:{pattern})$")
    except PatternProblem as problem:
        raise SchemaProblem(path, "pattern", str(problem)) from problem
    return {"type": "string", "pattern": written}


def number(schema: Schema, path: str) -> dict[str, Any]:
    """A number or an integer; an integer's bounds become whole and inclusive."""
    bounds = {keyword: schema[keyword] for keyword in BOUNDS if keyword in schema}
    for keyword, bound in bounds.items():
        if not abs(bound) <= MAX_NUMBER:  # NaN is not, either
            raise SchemaProblem(path, keyword, f"is {shown(bound)}; at most {MAX_NUMBER} either way")
    above, below = bounds.get("exclusiveMinimum", -math.inf), bounds.get("exclusiveMaximum", math.inf)
    lowest, highest = bounds.get("minimum", -math.inf), bounds.get("maximum", math.inf)
    if schema["type"] == "integer":
        least = max(
            lowest if lowest == -math.inf else math.ceil(lowest), above if above == -math.inf else math.floor(above) + 1
        )
        most = min(
            highest if highest == math.inf else math.floor(highest),
            below if below == math.inf else math.ceil(below) - 1,
        )
        bounds = {"minimum": least} if least > -math.inf else {}
        bounds |= {"maximum": most} if most < math.inf else {}
        empty = least > most
    else:
        empty = max(lowest, above) > min(highest, below) or (
            max(lowest, above) == min(highest, below) and (above >= lowest or below <= highest)
        )
    if empty:
        raise SchemaProblem(path, None, "is satisfied by no number: its bounds contradict each other")
    return {"type": schema["type"], **bounds}


def bounds_of(schema: Schema, lower: str, upper: str, path: str) -> tuple[int, int | None]:
    """The values of two keywords for a least and a most count."""
    least, most = int(schema.get(lower, 0)), schema.get(upper)
    if most is not None and least > most:
        raise SchemaProblem(path, upper, f"is {most} and {lower!r} is {least}")
    return least, None if most is None else int(most)
