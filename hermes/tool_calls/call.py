"""What a tool call is, on the server and for its clients."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ToolCall:
    """A call of one of the tools, with arguments that satisfy its schema."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class BadToolCall:
    """A text that was meant as a call and cannot be run."""

    text: str  # as the model wrote it, at most 200 characters
    problem: str  # one line, fit to be sent back to the model
    name: str | None = None  # the tool that it seems to name


Found = ToolCall | BadToolCall
