"""Which texts of numbers a terminal allows: those of its range, and none without end."""

import json
import random
from decimal import Decimal

import pytest

from hermes.json_schema.numbers import number
from tests.support.grammars import BYTES, allows, matcher_at

USUAL = [
    "0",
    "-0",
    "7",
    "-12",
    "0.1",
    "-0.25",
    "12.5",
    "1e-5",
    "1E+21",
    "1e-05",
    "1.5e300",
    "3.0",
    "1700000000000000000",
]
NEVER = ["", "-", "+1", "01", ".5", "1.", "1e", "0x1", "NaN", "Infinity", "1e999", "1e-999", "1" * 21, "0." + "3" * 23]


def allowed(schema, texts, **options):
    terminal = number(schema, **options)
    matcher = matcher_at(f"start: NUMBER\nNUMBER: {terminal}\n", BYTES.engine)
    return [text for text in texts if allows(matcher.deep_copy(), text)]


def test_a_number_has_any_usual_form_and_an_end():
    assert allowed({}, [*USUAL, *NEVER]) == USUAL
    longest = ["9" * 20, "-" + "9" * 20, "0." + "9" * 22, "9.9e307", "9e-279"]
    assert allowed({}, longest) == longest


def test_an_integer_has_at_most_twenty_digits():
    whole = ["0", "-7", "18446744073709551615", "-9223372036854775808"]
    assert allowed({}, [*whole, "1.0", "1e3", "1" * 21, "007"], integer=True) == whole


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"minimum": 0}, ["0", "0.0", "1e-5", "1.5e300", "99", "0e7"], ["-1", "-0.1", "-1e-5"]),
        ({"exclusiveMinimum": 0}, ["1e-5", "0.001", "5", "1e30"], ["0", "0.0", "0e7", "-0", "0.00"]),
        ({"minimum": 0, "maximum": 1}, ["0", "1", "1.0", "0.999", "1e-5", "9e-2"], ["1.01", "2", "10", "1e5", "-0.1"]),
        ({"minimum": -1.5, "maximum": 2.25}, ["-1.5", "-1.50", "-0", "2.25", "2.2499"], ["-1.51", "2.26", "3", "-2"]),
        ({"exclusiveMinimum": -90, "exclusiveMaximum": 90}, ["-89.999", "89.9", "0", "-1e-5"], ["90", "-90.0", "100"]),
        ({"minimum": 9.95}, ["9.95", "9.96", "10", "123456789.5"], ["9.949", "9.9", "9", "-10"]),
        ({"maximum": -273.15}, ["-273.15", "-273.2", "-1000"], ["-273.14", "0", "5", "-9"]),
        ({"maximum": 0}, ["0", "-0", "-5.5", "-1e9"], ["0.1", "1"]),
        ({"exclusiveMaximum": 0}, ["-0.1", "-3e7"], ["0", "-0", "-0.0", "1"]),
        ({"minimum": 1000000, "maximum": 1000001}, ["1000000", "1000000.5", "1000001"], ["999999.9", "1000001.1"]),
        ({"minimum": 0.0000001}, ["0.0000001", "0.1", "1"], ["0", "0.00000009"]),
        ({"minimum": 5, "maximum": 5}, ["5", "5.00"], ["4.9", "5.1", "-5"]),
        ({"minimum": 2, "exclusiveMinimum": 3, "maximum": 9, "exclusiveMaximum": 9}, ["3.1", "8.9"], ["3", "9", "2.5"]),
        ({"minimum": 2, "exclusiveMinimum": True}, ["2.1"], ["2", "1.9"]),
        (  # floats have 15 to 17 digits, so that texts of more may be read as the bound
            {"exclusiveMinimum": -2, "exclusiveMaximum": 0.0010004043579101562},
            ["-1.385765844229713", "-1.9999999999999", "0.00100040435790"],
            ["-1.99999999999999999999", "-2.0", "0.0010004043579101562", "0.00100040435791015619"],
        ),
        (
            {"exclusiveMinimum": 0, "exclusiveMaximum": 1e-20},
            ["0.000000000000000000009"],
            ["0", "0.00000000000000000001"],
        ),
    ],
    ids=str,
)
def test_a_range_holds_its_numbers_alone(schema, good, bad):
    assert allowed(schema, [*good, *bad]) == good


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"minimum": 1}, ["1", "10", "99999999999999999999"], ["0", "-1"]),
        ({"minimum": 0.5, "maximum": 3.5}, ["1", "2", "3"], ["0", "4"]),
        ({"exclusiveMinimum": 1, "exclusiveMaximum": 4}, ["2", "3"], ["1", "4"]),
        ({"minimum": -12, "maximum": 109}, ["-12", "-1", "0", "-0", "109"], ["-13", "110", "-100"]),
        ({"exclusiveMinimum": -2.5}, ["-2", "0"], ["-3"]),
        ({"maximum": -7}, ["-7", "-70"], ["-6", "0", "7"]),
    ],
    ids=str,
)
def test_a_range_of_integers_holds_its_integers_alone(schema, good, bad):
    assert allowed(schema, [*good, *bad], integer=True) == good


@pytest.mark.parametrize("schema", [{"minimum": 3, "maximum": 2}, {"minimum": 1, "exclusiveMaximum": 1}], ids=str)
def test_a_range_may_hold_nothing(schema):
    assert number(schema) == ""


@pytest.mark.parametrize("bound", [1e-23, 1e15, 5e-324])
def test_a_bound_of_too_many_digits_is_left_to_others(bound):
    assert number({"exclusiveMinimum": bound}) is None


def test_random_decimals_are_allowed_where_they_are_in_the_range():
    draw = random.Random(28)
    for _ in range(60):
        low, high = sorted(round(draw.uniform(-1, 1) * 10 ** draw.randint(-3, 6), draw.randint(0, 6)) for _ in "ab")
        schema = {draw.choice(["minimum", "exclusiveMinimum"]): low, draw.choice(["maximum", "exclusiveMaximum"]): high}
        ends = [low, high, -low, -high]
        texts = [
            f"{Decimal(str(end)) + Decimal(step).scaleb(-place):f}"
            for end in ends
            for step in (-1, 0, 1)
            for place in (0, 2, 7)
        ]
        texts += [f"{draw.uniform(low, high):.9f}" for _ in range(20)]
        inside = [
            text
            for text in texts
            if schema.get("minimum", float("-inf"))
            <= (value := json.loads(text))
            <= schema.get("maximum", float("inf"))
            and schema.get("exclusiveMinimum", float("-inf")) < value < schema.get("exclusiveMaximum", float("inf"))
        ]
        assert low == high or allowed(schema, texts) == inside, schema
