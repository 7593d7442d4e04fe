"""What is said of a schema at once, before its grammar is made."""

import pytest

from hermes.json_schema.grammar import enforceable
from hermes.json_schema.keywords import is_surely_enforced
from tests.support.grammars import accepts

TEXT = {"type": "string"}


def of(**schema):
    """An object with a property of this schema."""
    return {"type": "object", "properties": {"a": schema}}


@pytest.mark.parametrize(
    "schema",
    [
        *(of(), of(**TEXT, minLength=1, maxLength=9), of(type="array", items=TEXT), of(type=["string", "null"])),
        *(of(enum=["a", 1]), of(anyOf=[TEXT, {"type": "null"}]), of(const=1.5, minimum=1)),
        {"$defs": {"t": TEXT}, "properties": {"a": {"$ref": "#/$defs/t"}}, "additionalProperties": False},
    ],
)
def test_a_schema_of_usual_keywords_is_surely_enforced(schema):
    assert is_surely_enforced(schema)
    assert not enforceable(schema).unenforced


@pytest.mark.parametrize("name", ["enum", "const", "minimum", "maximum", "minLength", "maxLength"])
def test_a_number_too_large_for_llguidance_is_not_surely_enforced(name):
    assert not is_surely_enforced(of(**{name: [10**30] if name == "enum" else 10**30}))


@pytest.mark.parametrize("name", ["properties", "$defs", "definitions", "anyOf", "enum", "items"])
@pytest.mark.parametrize("value", [5, "ab", None])
def test_what_is_no_schema_is_not_surely_enforced(name, value):
    assert not is_surely_enforced(of(**{name: value}))


@pytest.mark.parametrize(("name", "value"), [("properties", []), ("$defs", []), ("anyOf", {}), ("enum", {})])
def test_what_holds_schemas_and_is_of_another_kind_is_not_surely_enforced(name, value):
    assert not is_surely_enforced(of(**{name: value}))


NOON, DAY = "12:00:00", "2024-02-29"


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (
            "date-time",
            [f"{DAY}T{NOON}Z", f"{DAY}t{NOON}.123456789z", f"{DAY}T{NOON}-23:59", f"{DAY}T23:59:60Z"],
            [f"{DAY} {NOON}Z", f"{DAY}T{NOON}", f"2024-02-30T{NOON}Z", f"2023-04-31T{NOON}Z", f"{DAY}T24:00:00Z"],
        ),
        ("time", [f"{NOON}Z", f"{NOON}.5+01:00"], [NOON, "24:00:00Z", f"{NOON}+24:00", f"{NOON}.Z"]),
        (
            "duration",
            ["P1Y2M3D", "P3D", "P1DT2H", "PT1H2M5S", "PT90M", "P2W", "P0D"],
            ["P", "PT", "P1DT", "1D", "P1Y3D", "PT1H5S", "P1WT1H", "PT0.5S"],
        ),
    ],
)
def test_a_format_with_digits_has_an_end(name, good, bad):
    schema = {"type": "string", "format": name}
    assert [text for text in [*good, *bad] if accepts(schema, text)] == good
    longer = {"date-time": f"{DAY}T{NOON}.{'1' * 10}Z", "time": f"{NOON}.{'1' * 10}Z", "duration": f"PT{'1' * 10}S"}
    assert not accepts(schema, longer[name])
    assert not enforceable(schema).unenforced
