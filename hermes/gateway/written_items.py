"""The items of a response's output while they are written: a message, a call of a function or of a custom tool."""

import secrets
from abc import ABC, abstractmethod

from hermes.client.cog import Json
from hermes.gateway.responses_items import partial_object

Event = tuple[str, Json]  # its type, and what it says of its item


class WrittenItem(ABC):
    """An item while it is written, and what its events say."""

    kind: str
    streams = True  # each piece is an event

    def __init__(self) -> None:
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """What there is of it."""
        return "".join(self._pieces)

    def add(self, piece: str) -> None:
        """Take a piece of its text."""
        self._pieces.append(piece)

    @abstractmethod
    def begun(self) -> Json:
        """The item when it begins, without its id."""

    @abstractmethod
    def delta(self, piece: str) -> Event:
        """The event of a piece."""

    @abstractmethod
    def whole(self) -> Json:
        """What the item has when it has ended."""

    def added(self) -> list[Event]:
        """The events after its first one."""
        return []

    @abstractmethod
    def done(self) -> list[Event]:
        """The events before its last one."""


class WrittenMessage(WrittenItem):
    """A message."""

    kind = "message"

    def begun(self) -> Json:
        """See WrittenItem."""
        return {"type": self.kind, "role": "assistant", "content": []}

    def added(self) -> list[Event]:
        """See WrittenItem."""
        return [("response.content_part.added", {"content_index": 0, "part": _content("")})]

    def delta(self, piece: str) -> Event:
        """See WrittenItem."""
        return "response.output_text.delta", {"content_index": 0, "delta": piece, "logprobs": []}

    def whole(self) -> Json:
        """See WrittenItem."""
        return {"content": [_content(self.text)]}

    def done(self) -> list[Event]:
        """See WrittenItem."""
        return [
            ("response.output_text.done", {"content_index": 0, "text": self.text, "logprobs": []}),
            ("response.content_part.done", {"content_index": 0, "part": _content(self.text)}),
        ]


class WrittenCall(WrittenItem):
    """A call of a function."""

    kind, field = "function_call", "arguments"

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def begun(self) -> Json:
        """See WrittenItem."""
        return {"type": self.kind, "call_id": f"call_{secrets.token_hex(12)}", "name": self.name, self.field: ""}

    def delta(self, piece: str) -> Event:
        """See WrittenItem."""
        return "response.function_call_arguments.delta", {"delta": piece}

    def whole(self) -> Json:
        """See WrittenItem."""
        return {"arguments": self.text}

    def done(self) -> list[Event]:
        """See WrittenItem."""
        return [("response.function_call_arguments.done", {"name": self.name, "arguments": self.text})]


class WrittenCustomCall(WrittenCall):
    """A call of a custom tool, whose input is the one argument of a function. It is given when it is whole."""

    kind, field = "custom_tool_call", "input"
    streams = False

    def delta(self, piece: str) -> Event:
        """See WrittenItem."""
        return "response.custom_tool_call_input.delta", {"delta": piece}

    def whole(self) -> Json:
        """See WrittenItem."""
        return {"input": self._input()}

    def done(self) -> list[Event]:
        """See WrittenItem."""
        return [self.delta(self._input()), ("response.custom_tool_call_input.done", {"input": self._input()})]

    def _input(self) -> str:
        return str(partial_object(self.text).get("input", ""))


def _content(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
