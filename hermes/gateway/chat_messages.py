"""The messages of a request as predict.py takes them: one system turn at the beginning, text only."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from hermes.client.cog import Json
from hermes.gateway.fields import refuse
from hermes.gateway.problems import Problem, unsupported
from hermes.gateway.turn_order import in_order

MESSAGE_HARMLESS = {
    "reasoning": "this model writes none, and another's thoughts are left out",
    "reasoning_content": "an older name of reasoning",
}
MESSAGE_REFUSED = {
    "audio": "the model reads only text",
    "task": "is unsupported",
    "tools": "send them beside the messages",
}
# The model's format has no names of speakers: only a tool's name says something.
PASSED = ("tool_calls", "tool_call_id", "function_call", "name", "tool_name")
TEXT_PARTS = ("text", "input_text", "output_text", "refusal")


class Conversation(NamedTuple):
    """Messages as predict.py takes them, and where each came from."""

    messages: list[Json]
    places: dict[str, str]  # by its place in the input: `messages[0]`


def messages_of(turns: Sequence[Json], places: Sequence[str] | None = None) -> Conversation:
    """Returns messages as predict.py takes them. Raises Problem if they cannot be.

    Args:
        turns: messages of a chat.
        places: where the client sent each of them, for errors; without them, `messages[0]` and so on.
    """
    at = places or [f"messages[{index}]" for index in range(len(turns))]
    read, at = in_order([_message(turn, place) for turn, place in zip(turns, at, strict=True)], at)
    leading = next((n for n, turn in enumerate(read) if turn["role"] != "system"), len(read))
    if leading > 1:
        system = {"role": "system", "content": "\n\n".join(turn["content"] for turn in read[:leading])}
        read, at = [system, *read[leading:]], [at[0], *at[leading:]]
    return Conversation(read, {f"messages[{index}]": place for index, place in enumerate(at)})


def _message(message: Json, at: str) -> Json:
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        raise Problem(400, f"{at}.role: has to be system, developer, user, assistant or tool", param=f"{at}.role")
    refuse(message, MESSAGE_REFUSED, f"{at}.")
    if isinstance(content, list):
        content = "".join(_text(part, f"{at}.content[{index}]") for index, part in enumerate(content))
    if content is None and role == "assistant":
        content = message.get("refusal", "")
    if not isinstance(content, str):
        raise Problem(400, f"{at}.content: has to be text, or a list of text parts", param=f"{at}.content")
    passed = {name: message[name] for name in PASSED if name in message}
    return {"role": "system" if role == "developer" else role, "content": content, **passed}


def _text(part: Any, at: str) -> str:
    """The text of a part of a message."""
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
    if kind not in TEXT_PARTS:
        raise unsupported(at, f"is {kind!r}; the model reads only text")
    text = part.get("text", part.get("refusal"))
    if not isinstance(text, str):
        raise Problem(400, f"{at}.text: has to be a string", param=f"{at}.text")
    return text
