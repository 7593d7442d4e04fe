"""pydantic's JSON schemas for prompts, and its errors on one line."""

from typing import Any

from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema

LINE_CHARACTERS = 500


class PlainSchema(GenerateJsonSchema):
    """pydantic's schemas without titles: they repeat names and cost prompt tokens."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - declared so by pydantic

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        """Never."""
        return False


def problems(error: ValidationError) -> str:
    """The problems on one line, each with its JSON path: "$.age: Input should be a valid integer, got 'four'"."""
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
