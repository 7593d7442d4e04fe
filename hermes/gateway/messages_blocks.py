"""Anthropic's messages, which are made of blocks, as the messages of predict.py.

Messages of one role that follow each other are one turn, as Anthropic has it. A tool's results go before the text
beside them, since they follow their calls.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from hermes.client.cog import Json
from hermes.gateway.chat_messages import Conversation
from hermes.gateway.fields import refuse
from hermes.gateway.problems import Problem, unsupported
from hermes.text import shown

THOUGHTS = ("thinking", "redacted_thinking")  # of earlier turns, which a model does not read again
# what Anthropic's servers called, and what came of it: the text after it says what it was for
SERVED = ("server_tool_use", "mcp_tool_use", "_tool_result")
BILLING = "x-anthropic-billing-header"  # begins a block of Claude Code's that differs with each request


class Block(NamedTuple):
    """A block, and its place in the body."""

    value: Mapping[str, Any]
    at: str

    @property
    def kind(self) -> Any:
        """Its type."""
        return self.value.get("type")


def conversation_of(system: str | Sequence[Any], messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """Returns the messages. Raises Problem, which names the place, if the model cannot read one."""
    texts = [_text(block) for block in _blocks(system, "system")]
    instructions = "\n".join(text for text in texts if not text.startswith(BILLING))
    turns: list[Json] = [{"role": "system", "content": instructions}] if instructions else []
    places = ["system"] * len(turns)
    calls: list[str] = []  # that wait for their results
    numbered = ((message, f"messages[{index}]") for index, message in enumerate(messages))
    for role, group in groupby(numbered, lambda each: _role(*each)):
        together = list(group)
        blocks = [block for message, at in together for block in _blocks(message.get("content"), f"{at}.content")]
        if role == "user":
            new = list(_user(blocks, calls))
        else:
            new = [_assistant(blocks) if role == "assistant" else _system(blocks)]
        calls = [call["id"] for call in new[-1].get("tool_calls", ())] if new else []
        turns += new
        places += [together[0][1]] * len(new)
    if calls:
        raise Problem(400, f"{places[-1]}: calls tools; send their results, too", param=places[-1])
    if turns and turns[-1] == {"role": "assistant", "content": ""}:
        turns.pop()  # it begins nothing
    if not turns:
        raise Problem(400, "messages: are empty", param="messages")
    return Conversation(turns, {f"messages[{index}]": place for index, place in enumerate(places)})


def _role(message: Mapping[str, Any], at: str) -> str:
    if (role := message.get("role")) not in ("user", "assistant", "system"):
        raise Problem(400, f"{at}.role: has to be user, assistant or system", param=f"{at}.role")
    return str(role)


def _blocks(content: Any, at: str) -> Iterator[Block]:
    if isinstance(content, str):
        yield Block({"type": "text", "text": content}, at)
    elif isinstance(content, list):
        for index, block in enumerate(content):
            if not isinstance(block, dict):
                raise Problem(400, f"{at}[{index}]: has to be a content block", param=f"{at}[{index}]")
            yield Block(block, f"{at}[{index}]")
    else:
        raise Problem(400, f"{at}: has to be text, or a list of content blocks", param=at)


def _system(blocks: Sequence[Block]) -> Json:
    return {"role": "system", "content": "\n".join(map(_text, blocks))}


def _user(blocks: Sequence[Block], calls: list[str]) -> Iterator[Json]:
    for block in blocks:
        if block.kind == "tool_result":
            yield _result(block, calls)
    texts = [_text(block) for block in blocks if block.kind != "tool_result"]
    if texts or not blocks:
        yield {"role": "user", "content": "\n".join(texts)}


def _assistant(blocks: Sequence[Block]) -> Json:
    """What the model wrote, without a line break where a block ends."""
    blocks = [block for block in blocks if block.kind not in THOUGHTS and not str(block.kind).endswith(SERVED)]
    text = "".join(_text(block) for block in blocks if block.kind != "tool_use")
    calls = [_call(block) for block in blocks if block.kind == "tool_use"]
    return {"role": "assistant", "content": text} | ({"tool_calls": calls} if calls else {})


def _call(block: Block) -> Json:
    name, arguments = _string(block, "name"), block.value.get("input", {})
    if not isinstance(arguments, dict):
        raise Problem(400, f"{block.at}.input: has to be an object", param=f"{block.at}.input")
    return {"id": _string(block, "id"), "type": "function", "function": {"name": name, "arguments": arguments}}


def _result(block: Block, calls: list[str]) -> Json:
    call_id, content = _string(block, "tool_use_id"), block.value.get("content", "")
    if call_id not in calls:
        at = f"{block.at}.tool_use_id"
        raise Problem(400, f"{at}: is {shown(call_id)}, and no call before it waits for a result of it", param=at)
    calls.remove(call_id)
    text = "\n".join(map(_text, _blocks(content, f"{block.at}.content")))
    result = {"error": text} if block.value.get("is_error") else text
    return {"role": "tool", "tool_call_id": call_id, "content": result}


def _text(block: Block) -> str:
    """The text of a block."""
    match block.kind:
        case "text":
            return _string(block, "text")
        case "search_result" | "document":
            refuse(block.value.get("citations") or {}, {"enabled": "the model cites nothing"}, f"{block.at}.citations.")
            head = [block.value[name] for name in ("title", "context") if isinstance(block.value.get(name), str)]
            return "\n".join([*head, *_source(block)])
    raise unsupported(block.at, f"is {block.kind!r}; the model reads only text")


def _source(block: Block) -> Iterator[str]:
    """The texts of a search result or of a document."""
    source, at = block.value.get("source"), f"{block.at}.source"
    if block.kind == "search_result":
        yield _string(block, "source")
        yield from map(_text, _blocks(block.value.get("content"), f"{block.at}.content"))
    elif isinstance(source, dict) and source.get("type") == "text":
        yield _string(Block(source, at), "data")
    elif isinstance(source, dict) and source.get("type") == "content":
        yield from map(_text, _blocks(source.get("content"), f"{at}.content"))
    else:
        raise unsupported(at, "has to be text; the model reads no files")


def _string(block: Block, name: str) -> str:
    value = block.value.get(name)
    if not isinstance(value, str):
        raise Problem(400, f"{block.at}.{name}: has to be a string", param=f"{block.at}.{name}")
    return value
