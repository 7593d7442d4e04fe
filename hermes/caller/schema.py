"""JSON schemas that a decoding grammar can follow, and what pydantic has against a value as one line."""

import re
from typing import Any

from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue

LINE_CHARACTERS = 500

# What pydantic may write and the server's grammar cannot keep to, so that it refuses it (E1007). pydantic checks the
# answer for all of it, so nothing is lost but help for the model.
_NOT_IN_A_GRAMMAR = {
    "discriminator",
    "minProperties",
    "multipleOf",
    "patternProperties",
    "propertyNames",
    "uniqueItems",
}
_LENGTHS = {"maxLength", "minLength"}  # beside a pattern or format
_LOOK_AROUND = re.compile(r"\(\?<?[=!]")


class PlainSchema(GenerateJsonSchema):
    """pydantic's schemas with plain keywords only, an object at the top, and no titles that repeat names."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - declared so by pydantic

    def generate(self, schema: Any, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:
        whole = super().generate(schema, mode)
        if "$ref" not in whole:
            return whole
        definitions = whole["$defs"]  # a model that holds itself is only a reference at the top
        return {**definitions[whole["$ref"].removeprefix("#/$defs/")], "$defs": definitions}

    def generate_inner(self, schema: Any) -> JsonSchemaValue:
        return _plain(super().generate_inner(schema))

    def decimal_schema(self, schema: Any) -> JsonSchemaValue:
        """A number or a text. pydantic 2.14 writes the text plainly, 2.13 with a pattern that looks ahead."""
        decimal = super().decimal_schema(schema)
        return {**decimal, "anyOf": [_plain(each) for each in decimal["anyOf"]]} if "anyOf" in decimal else decimal

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def _plain(schema: JsonSchemaValue) -> JsonSchemaValue:
    dropped = _NOT_IN_A_GRAMMAR | ({"pattern"} if _LOOK_AROUND.search(schema.get("pattern", "")) else set())
    if (schema.keys() - dropped) & {"pattern", "format"}:
        dropped = dropped | _LENGTHS
    return {"anyOf" if key == "oneOf" else key: value for key, value in schema.items() if key not in dropped}


def problems(error: ValidationError) -> str:
    """What is wrong, each with its JSON path: "$.age: Input should be a valid integer, got 'four'"."""
    return one_line("; ".join(_problem(each["loc"], each["msg"], each["input"]) for each in error.errors()))


def _problem(location: tuple[int | str, ...], message: str, value: Any) -> str:
    path = "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return f"{path}: {message}{_seen(value)}"


def _seen(value: Any) -> str:
    if not isinstance(value, str | int | float | None):
        return ""
    try:
        return f", got {one_line(repr(value), 60)}"
    except ValueError:  # Python writes no number of more than 4,300 digits
        return ""


def one_line(text: str, limit: int = LINE_CHARACTERS) -> str:
    """The text on one line of bounded length, in characters that UTF-8 has."""
    line = " ".join(text.encode(errors="replace").decode().split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
