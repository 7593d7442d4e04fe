"""The items of a response's input: as messages of a chat, and as they are kept.

See https://platform.openai.com/docs/api-reference/responses/create. What other servers wrote into a conversation
is read where it can be: a client that changes over sends it with each request.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic_core import from_json

from hermes.client.cog import Json
from hermes.gateway.bodies import without_halves
from hermes.gateway.events import compact
from hermes.gateway.problems import Problem, unsupported

# Items that say nothing to this model: its own thoughts, and what other servers looked up without it.
SKIPPED = (
    "code_interpreter_call",
    "computer_call",
    "computer_call_output",
    "file_search_call",
    "image_generation_call",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_list_tools",
    "reasoning",
    "web_search_call",
)
FOREIGN_CALLS = ("apply_patch_call", "local_shell_call", "shell_call", "tool_search_call")
FOREIGN_OUTPUTS = ("apply_patch_call_output", "local_shell_call_output", "shell_call_output", "tool_search_output")
OUTPUTS = ("function_call_output", "custom_tool_call_output")
PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "custom_tool_call": "ctc"}


def items_of(given: str | Sequence[Json], find: Callable[[str, str], Json]) -> list[Json]:
    """Returns the items of an input as they are kept: each has an id, and a message a list of parts.

    Raises what `find` raises.

    Args:
        given: the field `input`.
        find: returns the item of an id; the second argument is the place of the reference.
    """
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    return [
        _kept(find(item["id"], f"input[{index}]") if _is_reference(item) else item) for index, item in enumerate(items)
    ]


def turns_of(items: Sequence[Json], places: Sequence[str]) -> tuple[list[Json], list[str]]:
    """Returns the messages of a chat that these items are, with the place of each. Raises Problem at one that is none.

    A call belongs to the text that the assistant wrote before it.
    """
    called = {str(_call_id(item)) for item in items if item.get("type") in (*FOREIGN_CALLS, "function_call")}
    turns: list[Json] = []
    at: list[str] = []
    for item, place in zip(items, places, strict=True):
        if item.get("type") in FOREIGN_OUTPUTS and str(_call_id(item)) not in called:
            continue
        for turn in _turns(item, place):
            last = turns[-1] if turns else {}
            if turn.get("tool_calls") and last.get("role") == "assistant":
                last.setdefault("tool_calls", []).extend(turn["tool_calls"])
                continue
            turns.append(turn)
            at.append(place)
    return turns, at


def _turns(item: Json, place: str) -> Iterator[Json]:
    match item.get("type"):
        case "message":
            yield {"role": item.get("role"), "content": item.get("content")}
        case "function_call":
            yield _call(item, item.get("name"), _arguments(item))
        case "custom_tool_call":
            yield _call(item, item.get("name"), {"input": item.get("input", "")})
        case kind if kind in OUTPUTS:
            if not isinstance(output := item.get("output"), str | list):
                raise Problem(400, f"{place}.output: has to be text, or a list of text parts", param=f"{place}.output")
            yield _result(item, output)
        case "mcp_call":
            yield _call(item, item.get("name"), _arguments(item))
            yield _result(item, _text(item.get("output") or item.get("error") or ""))
        case kind if kind in FOREIGN_CALLS:
            said = {key: value for key, value in item.items() if key not in ("id", "type", "call_id", "status")}
            yield _call(item, kind.removesuffix("_call"), said)
        case kind if kind in FOREIGN_OUTPUTS:
            yield _result(item, _text(item.get("output", item.get("tools", ""))))
        case kind if kind not in SKIPPED:
            raise unsupported(place, f"is {kind!r}; it has to be a message, a call or its output")


def _call(item: Json, name: Any, arguments: Any) -> Json:
    function = {"name": name, "arguments": arguments}
    call = {"id": _call_id(item), "type": "function", "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _result(item: Json, output: str | list[Any]) -> Json:
    return {"role": "tool", "tool_call_id": _call_id(item), "content": output}


def _call_id(item: Json) -> Any:
    return item.get("call_id", item.get("id"))


def _arguments(item: Json) -> Any:
    """The arguments of a call. Of one that was cut they are a beginning, which is completed."""
    text = item.get("arguments") or "{}"
    if item.get("status") != "incomplete" or not isinstance(text, str):
        return text
    return partial_object(text)


def partial_object(text: str) -> Json:
    """Returns a JSON object of which there may be only the beginning."""
    try:
        read = from_json(without_halves(text.encode()), allow_partial="trailing-strings")
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def _text(output: Any) -> str:
    return output if isinstance(output, str) else compact(output)


def _is_reference(item: Json) -> bool:
    """Whether an item stands for another, whose id it has. OpenAI's type of it may be left out."""
    kind = item.get("type", "item_reference" if set(item) == {"id"} else "")
    return kind == "item_reference" and isinstance(item.get("id"), str)


def _kept(item: Json) -> Json:
    item = {"type": "message", **item}
    if item["type"] == "message" and isinstance(content := item.get("content"), str):
        kind = "output_text" if item.get("role") == "assistant" else "input_text"
        part = {"type": kind, "text": content}
        item["content"] = [part | {"annotations": [], "logprobs": []} if kind == "output_text" else part]
    if not (isinstance(item.get("id"), str) and item["id"]):
        item["id"] = new_id(item["type"])
    return {"id": item["id"], "status": "completed", **item}


def new_id(kind: Any) -> str:
    """Returns a new id of an item of this type. Those of a moment are alike, so that they are near in an index."""
    return f"{PREFIXES.get(str(kind), 'item')}_{time.time_ns():016x}{secrets.token_hex(8)}"


def listed(conversation: bytes, *, limit: int, order: str, after: str | None) -> bytes | None:
    """Returns a page of the items of a conversation as OpenAI lists them, as JSON; None if `after` is none of them."""
    items: list[Json] = json.loads(conversation)
    if order == "desc":
        items.reverse()
    if after is not None:
        index = next((index for index, item in enumerate(items) if item["id"] == after), None)
        if index is None:
            return None
        items = items[index + 1 :]
    page = items[:limit]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return json.dumps({"object": "list", "data": page, **ends, "has_more": len(items) > limit}).encode()
