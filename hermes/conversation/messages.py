"""A conversation is a sequence of messages; equal content means equal messages."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Message:
    """One turn: who speaks, and the text, which is never changed or stripped."""

    role: Role
    content: str


def single_turn(prompt: str, system_prompt: str) -> list[Message]:
    """The conversation of one prompt: a system turn, unless it is empty, and a user turn."""
    system = [Message("system", system_prompt)] if system_prompt else []
    return [*system, Message("user", prompt)]
