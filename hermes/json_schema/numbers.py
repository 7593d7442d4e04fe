"""The texts of the numbers in a range, with a limit on their digits, as a terminal of llguidance's Lark.

Texts are compared digit by digit. `&` and `~` combine patterns:
https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

import math
from collections.abc import Iterator, Mapping
from decimal import ROUND_DOWN, Decimal
from typing import Any

WHOLE, DECIMALS = "(0|[1-9][0-9]{0,19})", 22  # digits before and after the point, as Python and JavaScript write floats
EXACT_DIGITS = 15  # different texts of so many digits are different floats
# With greater exponents, the largest texts would be infinite, and the smallest 0.
EXPONENT = r"[eE][+-]?([0-9]{1,2}|1[0-9]{2}|2[0-7][0-9])"
LARGE = r"[1-9](\.[0-9]{1,22})?[eE]\+?(2[89][0-9]|30[0-7])"
BELOW_TENTH = r"[1-9](\.[0-9]{1,22})?[eE]-(0?[2-9]|[1-9][0-9]|1[0-9]{2}|2[0-7][0-9])"

Bound = tuple[Decimal, bool]  # an end of the range, and whether it is excluded
MINIMUM, MAXIMUM = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")


def number(schema: Mapping[str, Any], *, integer: bool = False) -> str | None:
    """A terminal of the numbers between the bounds of a schema; None if the bounds have too many digits.

    It is empty if there is no such number. Beside a bound other than 0, only numbers below 0.1 may have an exponent.
    """
    low, high = _end(schema, *MINIMUM, 1), _end(schema, *MAXIMUM, -1)  # high is a lower bound, mirrored at 0
    if integer:
        low, high = low and _next_integer(*low), high and _next_integer(*high)
    for value, excluded in filter(None, (low, high)):
        if len(_digits(value)[1]) > DECIMALS or (excluded and value and value.adjusted() > EXACT_DIGITS - 2):
            return None
    fractions = "" if integer else rf"(\.[0-9]{{1,{DECIMALS}}})?"
    sides = _from_zero(low, high, fractions), _from_zero(high, low, fractions)
    return " | ".join(f"{sign}({side})" for sign, side in zip(("", '"-" '), sides, strict=True) if side)


def _from_zero(low: Bound | None, mirrored: Bound | None, fractions: str) -> str:
    """The numbers from 0 on, above `low`, that have a negative above `mirrored`; empty if there is none."""
    least, excludes_least = max(low or (Decimal(0), False), (Decimal(0), False))
    most, excludes_most = (-mirrored[0], mirrored[1]) if mirrored else (Decimal("inf"), False)
    if least > most or (least == most and (excludes_least or excludes_most)):
        return ""
    with_exponent = bool(fractions) and not least
    parts = [f"/{WHOLE}{fractions}/"]
    if with_exponent and not mirrored:
        parts = [f"/{WHOLE}{fractions}({EXPONENT})?|{LARGE}/"]
    if least:
        parts.append(f"/{_at_least(least)}/")
    if excludes_least:
        parts.append(f"~/{_read_as(least)}/")
    if mirrored:
        end = f" & ~/{_read_as(most)}/" if excludes_most else f" | /{_equal(most)}/"
        parts.append(f"(~/{_at_least(most)}/{end})")
    small = f" | /{BELOW_TENTH}/" if with_exponent and mirrored and most >= 1 else ""
    return f"({' & '.join(parts)}){small}"


def _end(schema: Mapping[str, Any], including: str, excluding: str, sign: int) -> Bound | None:
    """The stricter of both bounds. In draft 4, the second one only says whether it is excluded."""
    excluded = schema.get(excluding)
    given = [(schema.get(including), excluded is True), (None if isinstance(excluded, bool) else excluded, True)]
    return max(((sign * Decimal(str(value)), each) for value, each in given if value is not None), default=None)


def _next_integer(value: Decimal, excluded: bool) -> Bound:
    """The same lower bound for integers."""
    return Decimal(math.floor(value) + 1 if excluded else math.ceil(value)), False


def _digits(value: Decimal) -> tuple[str, str]:
    """The digits before the point, and those after it."""
    whole, _, fraction = f"{abs(value):f}".partition(".")
    return whole, fraction.rstrip("0")


def _equal(value: Decimal) -> str:
    """A pattern of decimals, and of 0 with an exponent."""
    whole, fraction = _digits(value)
    return rf"{whole}\.{fraction}0*" if fraction else rf"{whole}(\.0*)?([eE].*)?"


def _read_as(value: Decimal) -> str:
    """A pattern of decimals that may be read as this one, because floats have no more digits."""
    if not value:
        return _equal(value)
    step = Decimal(1).scaleb(-min(DECIMALS, EXACT_DIGITS - 1 - value.adjusted()))
    nearest = value.quantize(step, ROUND_DOWN)
    near = (f"{each:f}".replace(".", r"\.") for each in (nearest - step, nearest, nearest + step))
    return "|".join([_equal(value), *(f"{each}[0-9]*" for each in near)])


def _at_least(value: Decimal) -> str:
    """A pattern of the decimals from a positive one on."""
    whole, fraction = _digits(value)
    longer = rf"[1-9][0-9]{{{len(whole)},}}"
    greater = "|".join([longer, *(f"{start}[0-9]{{{left}}}" for start, left in _greater(whole))])
    equal = "|".join([f"{fraction}.*", *(f"{start}.*" for start, _ in _greater(fraction))])
    return rf"({greater})(\..*)?|{whole}" + (rf"\.({equal})" if fraction else r"(\..*)?")


def _greater(digits: str) -> Iterator[tuple[str, int]]:
    """The beginnings of greater digits, each with the number of digits that are left."""
    for place, digit in enumerate(digits):
        if digit < "9":
            yield f"{digits[:place]}[{int(digit) + 1}-9]", len(digits) - place - 1
