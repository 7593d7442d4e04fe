"""The messages of a conversation. Equal content means equal messages.

`parse_messages` reads the shape of OpenAI's chat API (https://platform.openai.com/docs/api-reference/chat) and renders
tool calls and their results to the text that the model was trained on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from hermes.chat.tool_turns import PendingCall, Result, calls_in, calls_of, result_of, tool_turn
from hermes.errors import BadMessages
from hermes.text import shown, surrogate_problem
from hermes.tool_calls.definitions import Function

Role = Literal["system", "user", "assistant", "tool"]

# `developer` is OpenAI's later name of the system role, `function` its earlier name of the tool role.
ROLES: Mapping[str, Role] = {role: role for role in get_args(Role)} | {"developer": "system", "function": "tool"}


@dataclass(frozen=True)
class Message:
    """One turn: who speaks, and the text, which is never changed or stripped."""

    role: Role
    content: str


def parse_messages(messages: Sequence[Any], functions: Sequence[Function] = ()) -> tuple[Message, ...]:
    """The turns of a conversation. Consecutive tool messages become one turn, in the order of their calls.

    `functions` are those of this request: an earlier turn may call one of them without a tag.

    Raises BadMessages if a message cannot be read. The error names the place, such as messages[3].role.
    """
    turns: list[Message] = []
    calls: list[PendingCall] = []  # of the last assistant turn
    results: list[Result] = []
    for index, message in enumerate(messages):
        at = f"messages[{index}]"
        role = _role(message, at)
        if role == "tool":
            results.append(result_of(message, at))
            continue
        turns += _tool_turn(calls, results)
        text = _text(message.get("content"), f"{at}.content", may_be_none=role == "assistant")
        blocks: list[str] = []
        calls, results = [], []
        if role == "assistant":
            blocks, calls = calls_of(message, at)
            calls = calls or calls_in(text, functions)
        turns.append(Message(role, "\n".join([text, *blocks] if text else blocks)))
    return (*turns, *_tool_turn(calls, results))


def _tool_turn(calls: Sequence[PendingCall], results: Sequence[Result]) -> list[Message]:
    text = tool_turn(calls, results)
    return [Message("tool", text)] if text else []


def _role(message: Any, at: str) -> Role:
    if not isinstance(message, Mapping):
        raise BadMessages(at, f"has to be an object with role and content, not {type(message).__name__}")
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise BadMessages(f"{at}.role", f"is {shown(role)}; it has to be system, user, assistant or tool")
    return ROLES[role]


def _text(content: Any, at: str, *, may_be_none: bool = False) -> str:
    """The text of a content: a string, or OpenAI's list of text parts."""
    if content is None and may_be_none:
        return ""
    if isinstance(content, str):
        if problem := surrogate_problem(content):
            raise BadMessages(at, problem)
        return content
    if not isinstance(content, list):
        raise BadMessages(at, f"has to be text, not {'nothing' if content is None else type(content).__name__}")
    for index, part in enumerate(content):
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise BadMessages(f"{at}[{index}]", "has to be {'type': 'text', 'text': ...}; the model reads only text")
    return "".join(_text(part["text"], f"{at}[{index}].text") for index, part in enumerate(content))
