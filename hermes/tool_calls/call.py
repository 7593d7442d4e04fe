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
    """What was meant as a call and can't be run."""

    text: str  # as the model wrote it, cut
    problem: str  # one line, which may go back to the model
    name: str | None = None  # the tool that it names, if that can be seen


Found = ToolCall | BadToolCall
