"""`pattern` of JSON Schema, rewritten for a grammar that matches the raw text of a JSON string.

xgrammar lets a pattern write the characters between the quotes as they are, so `\\t` or `[^a]` can break the JSON, and
it drops look-arounds without a word. Here each set of characters becomes the part of it that may stand in JSON text,
plus the escapes of the rest; what has no such form is refused. The result never matches more than the pattern does.
"""

import re
from collections.abc import Sequence
from re import _constants as sre  # type: ignore[attr-defined]  # Python's own regex parser, private since 3.11
from re import _parser as sre_parser  # type: ignore[attr-defined]
from typing import Any

Range = tuple[int, int]

ESCAPED = {0x22: '"', 0x5C: "\\", 0x08: "b", 0x09: "t", 0x0A: "n", 0x0C: "f", 0x0D: "r"}
SAFE: list[Range] = [(0x20, 0x21), (0x23, 0x5B), (0x5D, 0xD7FF), (0xE000, 0x10FFFF)]

# Engines disagree on these classes beyond ASCII, so each way takes what every one of them agrees to.
DIGIT: list[Range] = [(0x30, 0x39)]
WORD: list[Range] = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
SPACE: list[Range] = [(0x09, 0x0D), (0x20, 0x20)]
ANY_SPACE: list[Range] = [
    *[(0x09, 0x0D), (0x1C, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A)],
    *[(0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)],
]
STARTS = (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING)
ENDS = (sre.AT_END, sre.AT_END_STRING)
LINE_ENDS: list[Range] = [(0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029)]

MONTH_AND_DAY = (
    "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8])"
)
DATE = f"[1-9][0-9]{{3}}-(?:{MONTH_AND_DAY})"
TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:[.][0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
FORMATS = {  # every other format is a note to the reader, as JSON Schema has it
    "date": DATE,
    "time": TIME,
    "date-time": f"(?:{DATE})T(?:{TIME})",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "ipv4": f"{OCTET}(?:[.]{OCTET}){{3}}",
    "email": "[A-Za-z0-9_+-]+(?:[.][A-Za-z0-9_+-]+)*@[A-Za-z0-9]+(?:[.-][A-Za-z0-9]+)*[.][A-Za-z]{2,}",
}


class PatternProblem(ValueError):
    """What the grammar can't take of a pattern, in a few words."""


def any_string(least: int, most: int | None) -> str:
    """The pattern for the raw text of a JSON string that is `least` to `most` characters long."""
    return f"^{_one_of(_outside([]))}{{{least},{'' if most is None else most}}}$"


def raw_pattern(pattern: str) -> str:
    """The pattern for the raw text of a JSON string, anchored at both ends; unanchored ends get any text.

    Raises:
        PatternProblem: it is not a regular expression, or has a part that no grammar can keep to.
    """
    try:
        parsed = sre_parser.parse(pattern)
        if parsed.state.flags & ~re.UNICODE:
            raise PatternProblem("has flags, which a grammar does not know")
        return f"^(?:{_sequence(list(parsed), at_start=True, at_end=True)})$"
    except (re.error, OverflowError) as error:
        raise PatternProblem(f"is not a regular expression: {error}") from error
    except RecursionError:
        raise PatternProblem("is nested too deeply") from None


def _sequence(items: Sequence[Any], at_start: bool = False, at_end: bool = False) -> str:
    """Items one after another. At the edges of the pattern ^ and $ say what is true anyway; without them, any text."""
    open_end = not items or (len(items) == 1 and at_start and at_end and items[0][0] is sre.AT)
    written = _anything() if open_end and (at_start or at_end) else ""
    for index, (operator, argument) in enumerate(items):
        first, last = at_start and index == 0, at_end and index == len(items) - 1
        if operator is sre.AT:
            if not (first and argument in STARTS) and not (last and argument in ENDS):
                raise PatternProblem("has an anchor or a word boundary inside; only ^ at its start and $ at its end")
        elif operator is sre.BRANCH:
            written += _group("|".join(_sequence(branch, first, last) for branch in argument[1]))
        elif operator is sre.SUBPATTERN:
            _, add_flags, del_flags, inner = argument
            if add_flags or del_flags:
                raise PatternProblem("has flags, which a grammar does not know")
            written += _group(_sequence(inner, first, last))
        else:
            written += f"{_anything() * first}{_repeated(operator, argument)}{_anything() * last}"
    return written


def _repeated(operator: Any, argument: Any) -> str:
    if operator not in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        return _one_of(_characters(operator, argument))
    least, most, inner = argument
    return _group(_sequence(inner)) + f"{{{least},{'' if most is sre.MAXREPEAT else most}}}"


def _anything() -> str:
    return _one_of(_outside([])) + "*"


def _characters(operator: Any, argument: Any) -> list[Range]:
    """The characters that one item matches."""
    if operator is sre.LITERAL:
        return [(argument, argument)]
    if operator is sre.NOT_LITERAL:
        return _outside([(argument, argument)])
    if operator is sre.ANY:
        return _outside(LINE_ENDS)
    if operator is sre.IN:
        negated, items = argument[0][0] is sre.NEGATE, argument[argument[0][0] is sre.NEGATE :]
        classes = [_class(argument, negated) for operator, argument in items if operator is sre.CATEGORY]
        single = [
            argument if operator is sre.RANGE else (argument, argument)
            for operator, argument in items
            if operator is not sre.CATEGORY
        ]
        if not negated:
            return [*single, *(each for ranges in classes for each in ranges)]
        left = _outside(single)
        for ranges in classes:
            left = _intersection(left, ranges)
        return left
    raise PatternProblem("has a look-around, a back-reference or a possessive part, which no grammar can keep to")


def _class(name: Any, negated: bool) -> list[Range]:
    """A class such as \\d between square brackets, or all that it leaves out."""
    inside, outside = {
        sre.CATEGORY_DIGIT: (DIGIT, _intersection([(0x20, 0x24F)], _outside(DIGIT))),
        sre.CATEGORY_WORD: (WORD, _intersection([(0x09, 0x7E)], _outside(WORD))),
        sre.CATEGORY_SPACE: (SPACE, _outside(ANY_SPACE)),
        sre.CATEGORY_NOT_DIGIT: (_intersection([(0x20, 0x24F)], _outside(DIGIT)), DIGIT),
        sre.CATEGORY_NOT_WORD: (_intersection([(0x09, 0x7E)], _outside(WORD)), WORD),
        sre.CATEGORY_NOT_SPACE: (_outside(ANY_SPACE), SPACE),
    }[name]
    return outside if negated else inside


def _one_of(ranges: list[Range]) -> str:
    """One character out of the ranges, as it may stand in JSON text."""
    safe = "".join(f"{_code(low)}-{_code(high)}" for low, high in _intersection(ranges, SAFE))
    escapes = "".join(_code(ord(letter)) for code, letter in ESCAPED.items() if _intersection(ranges, [(code, code)]))
    choices = [f"[{safe}]"] * bool(safe) + [rf"\\[{escapes}]"] * bool(escapes)
    if not choices:
        raise PatternProblem("needs a control character that JSON text cannot hold")
    return choices[0] if len(choices) == 1 else _group("|".join(choices))


def _group(inner: str) -> str:
    return f"(?:{inner})"


def _code(code: int) -> str:
    """A character inside square brackets. xgrammar 0.2.8 misreads the form of more digits, with braces."""
    return chr(code) if code > 0xFFFF or (code < 0x80 and chr(code).isalnum()) else f"\\u{code:04x}"


def _outside(ranges: list[Range]) -> list[Range]:
    outside, next_code = [], 0
    for low, high in sorted(ranges):
        if next_code < low:
            outside.append((next_code, low - 1))
        next_code = max(next_code, high + 1)
    return [*outside, (next_code, 0x10FFFF)] if next_code <= 0x10FFFF else outside


def _intersection(left: list[Range], right: list[Range]) -> list[Range]:
    both = [(max(a, c), min(b, d)) for a, b in left for c, d in right]
    return sorted((low, high) for low, high in both if low <= high)
