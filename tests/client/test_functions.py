from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal, Optional, Union

import pytest
from pydantic import BaseModel, Field

from hermes.client import BadArguments, Tool, tool
from hermes.json_schema.grammar import enforceable


@tool
def get_stock_fundamentals(symbol: str) -> dict:
    """Get fundamental data for a given stock symbol.

    Args:
        symbol: The stock symbol.
    """
    return {"symbol": symbol, "pe_ratio": 31.5}


class Unit(Enum):
    CELSIUS = "celsius"
    KELVIN = "kelvin"


class Place(BaseModel):
    city: str
    country: str = "FR"


def weather(place: Place, day: date, unit: Unit = Unit.CELSIUS, days: Literal[1, 7] = 1, note: str | None = None):
    """The weather."""
    return {"place": place, "day": day, "unit": unit, "days": days, "note": note}


def test_a_tool_is_described_as_on_the_model_card():
    assert get_stock_fundamentals.as_dict() == {
        "type": "function",
        "function": {
            "name": "get_stock_fundamentals",
            "description": "get_stock_fundamentals(symbol: str) -> dict - "
            "Get fundamental data for a given stock symbol.\n\nArgs:\n    symbol: The stock symbol.",
            "parameters": {
                "type": "object",
                "properties": {"symbol": {"type": "string", "description": "The stock symbol."}},
                "required": ["symbol"],
                "additionalProperties": False,
            },
        },
    }


def test_a_tool_is_still_the_function():
    assert isinstance(get_stock_fundamentals, Tool)
    assert get_stock_fundamentals("TSLA") == {"symbol": "TSLA", "pe_ratio": 31.5}


def test_the_signature_reads_well():
    assert tool(weather).description == (
        "weather(place: Place, day: date, unit: Unit = 'celsius', days: Literal[1, 7] = 1, note: str | None = None)"
        " - The weather."
    )


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (Optional[str], "str | None"),  # noqa: UP045
        (Union[int, "Place"], "int | Place"),
        (list[dict[str, Place]], "list[dict[str, Place]]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Annotated[int, Field(ge=1)], "int"),
        ("list[int]", "list[int]"),
    ],
)
def test_types_have_no_quotes_and_no_modules(annotation, text):
    def function(x: annotation) -> None:
        """Do."""

    assert tool(function).description == f"function(x: {text}) -> None - Do."


def test_the_schema_is_the_one_that_pydantic_writes_without_titles():
    class Cat(BaseModel):
        kind: Literal["cat"]

    class Dog(BaseModel):
        kind: Literal["dog"]

    def function(
        pet: Annotated[Cat | Dog, Field(discriminator="kind")],
        tags: set[str],
        price: Decimal,
        blob: bytes,
        count: Annotated[int, Field(ge=1, multiple_of=5)],
        code: Annotated[str, Field(pattern="^[a-z]+$", max_length=8)],
        scores: Annotated[dict[str, int], Field(min_length=2)],
        uniqueItems: bool,  # noqa: N803 - a name is not a keyword
        when: date = date(2026, 1, 2),
        anything: object = object(),
    ):
        """Do."""

    schema = tool(function).parameters
    assert schema["properties"] == {
        "pet": {
            "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
            "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}},
        },
        "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "price": {"anyOf": [{"type": "number"}, {"type": "string"}]},
        "blob": {"type": "string", "format": "binary"},
        "count": {"type": "integer", "minimum": 1, "multipleOf": 5},
        "code": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 8},
        "scores": {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2},
        "uniqueItems": {"type": "boolean"},
        "when": {"type": "string", "format": "date", "default": "2026-01-02"},
        "anything": {},
    }
    assert schema["required"] == ["pet", "tags", "price", "blob", "count", "code", "scores", "uniqueItems"]
    assert enforceable(schema).unenforced == (
        "$.properties.tags.uniqueItems",
        "$.properties.scores.minProperties",  # a name may be written twice
    )


def test_arguments_become_what_the_function_declares():
    seen = {}

    @tool
    def function(place: Place, day: date, unit: Unit, amount: int = 3, schema: str = "s") -> None:
        """Do."""
        seen.update(locals())

    function.run({"unit": "kelvin", "day": "2026-01-02", "place": {"city": "Paris"}, "amount": "4"})
    seen.pop("seen", None)
    assert seen == {
        "place": Place(city="Paris"),
        "day": date(2026, 1, 2),
        "unit": Unit.KELVIN,
        "amount": 4,
        "schema": "s",
    }


def test_the_result_becomes_json():
    assert tool(weather).run({"place": {"city": "Paris"}, "day": "2026-01-02"}) == {
        "place": {"city": "Paris", "country": "FR"},
        "day": "2026-01-02",
        "unit": "celsius",
        "days": 1,
        "note": None,
    }


def test_a_result_that_is_no_json_becomes_what_is_nearest():
    class Strange:
        def __str__(self):
            return "strange"

    @tool
    def function() -> list:
        """Do."""
        return [Strange(), float("nan"), b"\xff", {1: (2, 3)}]

    assert function.run({}) == ["strange", None, "_w==", {"1": [2, 3]}]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"day": "2026-01-02"}, "$.place: Missing required keyword only argument"),
        ({"place": {}, "day": "2026-01-02"}, "$.place.city: Field required"),
        (
            {"place": {"city": "Paris"}, "day": "2026-01-02", "hour": 3},
            "$.hour: Unexpected keyword argument, got 3",
        ),
        (
            {"place": {"city": "Paris"}, "day": "2026-01-02", "days": 2},
            "$.days: Input should be 1 or 7, got 2",
        ),
    ],
)
def test_bad_arguments_are_refused_before_the_function_is_called(arguments, problem):
    with pytest.raises(BadArguments) as caught:
        tool(weather).run(arguments)
    assert str(caught.value) == problem


def test_methods_can_be_tools():
    class Shop:
        def price(self, item: str) -> int:
            """The price of an item."""
            return len(item)

    assert tool(Shop().price).run({"item": "tea"}) == 3


def positional_only(x: int, /):
    """Do."""


def many(*numbers: int):
    """Do."""


def options(**named: int):
    """Do."""


def untyped(x):
    """Do."""


async def later(x: int):
    """Do."""


def undescribed(x: int):
    pass


def unresolved(x: "Nowhere"):  # noqa: F821
    """Do."""


def without_a_schema(x: BadArguments):
    """Do."""


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (positional_only, "positional_only cannot be a tool: 'x' is positional-only"),
        (many, "many cannot be a tool: '*numbers: int' takes arguments that have no name"),
        (options, "options cannot be a tool: '**named: int' takes arguments that have no name"),
        (untyped, "untyped cannot be a tool: 'x' has no type annotation"),
        (later, "later cannot be a tool: it is async"),
        (undescribed, "undescribed cannot be a tool: it has no docstring"),
        (unresolved, "unresolved cannot be a tool: name 'Nowhere' is not defined"),
        (without_a_schema, "without_a_schema cannot be a tool: Unable to generate pydantic-core schema"),
        (lambda x: x, "<lambda> cannot be a tool: a tool is a function with a name"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_where_it_is_written(function, problem):
    with pytest.raises(TypeError) as caught:
        tool(function)
    assert str(caught.value).startswith(problem)
