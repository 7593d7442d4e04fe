"""A conversation is a sequence of messages; equal content means equal messages.

`parse_messages` reads the shape of OpenAI's chat API (https://platform.openai.com/docs/api-reference/chat) and renders
tool calls and their results to the text that the model was trained on.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, cast, get_args

from hermes.conversation.functions import Function, call_block, result_block
from hermes.conversation.surrogates import surrogate_problem
from hermes.conversation.tools import read_tool_calls
from hermes.conversation.validation import shown
from hermes.errors import BadMessages

MAX_CALLS = 1_000  # in one turn; more than a context of 8,192 tokens holds

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Message:
    """One turn: who speaks, and the text, which is never changed or stripped."""

    role: Role
    content: str


@dataclass
class PendingCall:
    """A call of the last assistant turn that no tool turn has answered yet. A broken call has neither id nor name."""

    call_id: str | int | None
    name: str | None


def parse_messages(messages: Sequence[Any], functions: Sequence[Function] = ()) -> tuple[Message, ...]:
    """The turns, with consecutive tool messages made one turn.

    `functions` are those that the caller offers now: an earlier turn may call one of them without any tag.

    Raises:
        BadMessages: with the place of what is wrong, such as messages[3].role.
    """
    turns: list[Message] = []
    pending: list[PendingCall] = []
    for index, message in enumerate(messages):
        at = f"messages[{index}]"
        if not isinstance(message, Mapping):
            raise BadMessages(at, f"has to be an object with role and content, not {type(message).__name__}")
        role = message.get("role")
        if role == "tool":
            turns.append(Message("tool", _result(message, pending, at)))
            continue
        if role not in get_args(Role):
            raise BadMessages(f"{at}.role", f"is {shown(role)}; it has to be system, user, assistant or tool")
        if role == "assistant":
            text, pending = _assistant(message, functions, at)
        else:
            text, pending = _text(message.get("content"), f"{at}.content"), []
        turns.append(Message(cast(Role, role), text))
    return tuple(_joined(turns))


def _joined(turns: Sequence[Message]) -> Iterator[Message]:
    """The turns, with the results that follow one another made one turn."""
    for role, several in groupby(turns, key=lambda turn: turn.role):
        if role == "tool":
            yield Message("tool", "".join(turn.content for turn in several))
        else:
            yield from several


def _text(content: Any, at: str) -> str:
    """The text of a content: a string, or OpenAI's list of text parts."""
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


def _assistant(message: Mapping[str, Any], functions: Sequence[Function], at: str) -> tuple[str, list[PendingCall]]:
    """The text of an assistant turn and the calls in it: those of tool_calls, else those that its text holds."""
    calls = message.get("tool_calls") or []
    if not calls:
        text = _text(message.get("content"), f"{at}.content")
        found = read_tool_calls(text, {function.name: {} for function in functions})  # names are enough
        names = [*(call.name for call in found.calls), *(call.name for call in found.bad)]
        return text, [PendingCall(None, name) for name in names]
    if not isinstance(calls, list):
        raise BadMessages(f"{at}.tool_calls", f"has to be a list, not {type(calls).__name__}")
    if len(calls) > MAX_CALLS:
        raise BadMessages(f"{at}.tool_calls", f"has {len(calls)} calls; at most {MAX_CALLS}")
    content = message.get("content")
    blocks = [_text(content, f"{at}.content")] if content else []
    pending = []
    for index, call in enumerate(calls):
        block, pending_call = _call(call, f"{at}.tool_calls[{index}]")
        blocks.append(block)
        pending.append(pending_call)
    return "\n".join(blocks), pending


def _call(call: Any, at: str) -> tuple[str, PendingCall]:
    """The block of one call, and the call as one that waits for its result."""
    if not isinstance(call, Mapping):
        raise BadMessages(at, f"has to be an object, not {type(call).__name__}")
    function, at_function = (call["function"], f"{at}.function") if "function" in call else (call, at)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise BadMessages(f"{at_function}.name", "has to be the name of a function")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise BadMessages(f"{at_function}.arguments", f"is not JSON: {error}") from error
    if not isinstance(arguments, Mapping):
        raise BadMessages(f"{at_function}.arguments", f"has to be an object, not {type(arguments).__name__}")
    name: str = function["name"]
    try:
        block = call_block(name, arguments)
    except ValueError as error:
        raise BadMessages(f"{at_function}.arguments", f"is not JSON: {error}") from error
    return block, PendingCall(_id(call, "id", at), name)


def _id(holder: Mapping[str, Any], key: str, at: str) -> str | int | None:
    value = holder.get(key)
    if not isinstance(value, str | int | None):
        raise BadMessages(f"{at}.{key}", f"has to be text, not {type(value).__name__}")
    return value


def _result(message: Mapping[str, Any], pending: list[PendingCall], at: str) -> str:
    """The block of one tool message; takes the call that it answers off `pending`."""
    if not pending:
        raise BadMessages(f"{at}.role", "is 'tool' and answers no call; it has to follow an assistant turn with calls")
    call_id, name = _id(message, "tool_call_id", at), message.get("name")
    if call_id is not None and any(call.call_id is not None for call in pending):
        answered = next((call for call in pending if call.call_id == call_id), None)
        if not answered:
            raise BadMessages(f"{at}.tool_call_id", f"is {shown(call_id)}, which no open call before it has")
    else:
        answered = next((call for call in pending if None in (call.name, name) or call.name == name), None)
        if not answered:
            raise BadMessages(f"{at}.name", f"is {shown(name)}, which no open call before it has")
    pending.remove(answered)
    if "content" not in message:
        raise BadMessages(f"{at}.content", "is missing; it has to be the result of the call")
    try:
        return result_block(
            name if isinstance(name, str) else answered.name or "unknown", _result_value(message["content"])
        )
    except ValueError as error:
        raise BadMessages(f"{at}.content", f"is not JSON: {error}") from error


def _result_value(content: Any) -> Any:
    """A result: any JSON value, or OpenAI's list of text parts."""
    parts = isinstance(content, list) and content
    if parts and all(
        isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)
        for part in content
    ):
        return "".join(part["text"] for part in content)
    return content
