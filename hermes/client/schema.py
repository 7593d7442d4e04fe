"""pydantic's JSON schemas for prompts, and its errors on one line."""

from typing import Any

from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema

from hermes.text import shortened

MAX_LINE = 500  # characters


class PlainSchema(GenerateJsonSchema):
    """pydantic's schemas without titles: they repeat names and cost prompt tokens."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - declared so by pydantic

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        """Never."""
        return False


def problems(error: ValidationError) -> str:
    """The problems on one line, each with its JSON path: "$.age: Input should be a valid integer, got 'four'"."""
    return shortened("; ".join(_problem(each["loc"], each["msg"], each["input"]) for each in error.errors()), MAX_LINE)


def _problem(location: tuple[int | str, ...], message: str, value: Any) -> str:
    path = "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return f"{path}: {message}{_seen(value)}"


def _seen(value: Any) -> str:
    if not isinstance(value, str | int | float | None):
        return ""
    try:
        return f", got {shortened(repr(value), 60)}"
    except ValueError:  # Python writes no number of more than 4,300 digits
        return ""
