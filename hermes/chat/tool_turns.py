"""The calls of an assistant turn and the tool turn that answers them, as the model was trained to read them.

The trained format has no ids. Only the order tells the results of two calls of one tool apart. So results always stand
in the order of their calls. A call without a result gets one that says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from hermes.errors import BadMessages
from hermes.text import shown
from hermes.tool_calls.definitions import Function, call_block, result_block
from hermes.tool_calls.parser import read_tool_calls

MAX_CALLS = 1_000  # in one turn; more than a context of 8,192 tokens holds
MAX_ID = 2**63  # of a whole number that is an id, either way
NO_RESULT = {"error": "no result of this call was sent"}


@dataclass(frozen=True)
class PendingCall:
    """A call that waits for its result."""

    call_id: str | None
    name: str | None  # None if the call cannot be read
    needs_result: bool  # also if the turn has no result at all


@dataclass(frozen=True)
class Result:
    """A tool message: the result of a call, and what names the call."""

    at: str  # its place in the conversation
    call_id: str | None
    name: str | None
    content: Any


def calls_of(message: Mapping[str, Any], at: str) -> tuple[list[str], list[PendingCall]]:
    """The blocks and the calls of `tool_calls`, or of OpenAI's older `function_call`.

    Raises BadMessages if a call cannot be read.
    """
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise BadMessages(f"{at}.tool_calls", f"has to be a list, not {type(calls).__name__}")
    if len(calls) > MAX_CALLS:
        raise BadMessages(f"{at}.tool_calls", f"has {len(calls)} calls; at most {MAX_CALLS}")
    read = [_call(call, f"{at}.tool_calls[{index}]") for index, call in enumerate(calls)]
    if not read and message.get("function_call") is not None:
        read = [_call(message["function_call"], f"{at}.function_call")]
    return [block for block, _ in read], [call for _, call in read]


def calls_in(text: str, functions: Sequence[Function]) -> list[PendingCall]:
    """The calls in the text of an assistant turn, in their order."""
    reading = read_tool_calls(text, {function.name: {} for function in functions})  # names are enough
    return [PendingCall(None, each.name, needs_result=False) for each in reading.found]


def result_of(message: Mapping[str, Any], at: str) -> Result:
    """A tool message. It may name the tool as `name` (OpenAI) or as `tool_name` (Ollama).

    Raises BadMessages if it cannot be read, or its two names differ.
    """
    names = {key: message[key] for key in ("name", "tool_name") if message.get(key) not in (None, "")}
    for key, name in names.items():
        if not isinstance(name, str):
            raise BadMessages(f"{at}.{key}", f"is {shown(name)}; it has to be the name of a function")
    if len(set(names.values())) > 1:
        raise BadMessages(f"{at}.tool_name", f"is {shown(names['tool_name'])}, and name is {shown(names['name'])}")
    if "content" not in message:
        raise BadMessages(f"{at}.content", "is missing; it has to be the result of the call")
    return Result(at, _id(message, "tool_call_id", at), next(iter(names.values()), None), message["content"])


def tool_turn(calls: Sequence[PendingCall], results: Sequence[Result]) -> str:
    """The text of the turn that holds the results, in the order of their calls; "" if there is no such turn.

    A result names its call by the id, else by the tool's name, else by its place.

    Raises BadMessages if a result has no call, is a second one of its call, or cannot be written as JSON.
    """
    given = _given(calls, results)
    blocks = []
    for index, call in enumerate(calls):
        if index in given:
            blocks.append(_block(call, given[index]))
        elif call.needs_result or (results and call.name):
            blocks.append(result_block(call.name or "unknown", NO_RESULT))
    return "".join(blocks)


def _call(call: Any, at: str) -> tuple[str, PendingCall]:
    if not isinstance(call, Mapping):
        raise BadMessages(at, f"has to be an object, not {type(call).__name__}")
    function, at_function = (call["function"], f"{at}.function") if "function" in call else (call, at)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise BadMessages(f"{at_function}.name", "has to be the name of a function")
    name: str = function["name"]
    arguments = function.get("arguments") or {}
    if not isinstance(arguments, Mapping | str):
        raise BadMessages(f"{at_function}.arguments", f"has to be an object, not {type(arguments).__name__}")
    try:
        block = call_block(name, arguments)
    except ValueError as error:
        raise BadMessages(f"{at_function}.arguments", f"is not JSON: {error}") from error
    return block, PendingCall(_id(call, "id", at), name, needs_result=True)


def _id(holder: Mapping[str, Any], key: str, at: str) -> str | None:
    """An id. Some clients write them as numbers, and an empty text where there is none."""
    value = holder.get(key)
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_ID:
        raise BadMessages(f"{at}.{key}", f"is {shown(value)}; it has to be text or a whole number")
    return str(value)


def _given(calls: Sequence[PendingCall], results: Sequence[Result]) -> dict[int, Result]:
    """The result of each call that has one, by the call's index."""
    if results and not calls:
        problem = "is 'tool' and has no call; it must follow an assistant turn with calls"
        raise BadMessages(f"{results[0].at}.role", problem)
    if not any(call.call_id for call in calls):  # calls in text have no ids, so clients make some up
        results = [replace(result, call_id=None) for result in results]
    waiting = dict(enumerate(calls))
    given: dict[int, Result] = {}
    for result in sorted(results, key=lambda result: (result.call_id is None, result.name is None)):
        index = _whose(result, waiting)
        if index is None:
            raise _refusal(result, calls)
        name = waiting.pop(index).name
        if name and result.name not in (None, name):
            raise BadMessages(result.at, f"names {shown(result.name)}, and its call names {shown(name)}")
        given[index] = result
    return given


def _whose(result: Result, waiting: Mapping[int, PendingCall]) -> int | None:
    """The first waiting call that fits the result. A call that cannot be read fits any tool."""
    found: Iterator[int]
    if result.call_id is not None:
        found = (index for index, call in waiting.items() if call.call_id == result.call_id)
    elif result.name is not None:
        named = (index for index, call in waiting.items() if call.name == result.name)
        found = chain(named, (index for index, call in waiting.items() if call.name is None))
    else:
        found = iter(waiting)
    return next(found, None)


def _refusal(result: Result, calls: Sequence[PendingCall]) -> BadMessages:
    if result.call_id is not None:
        key, said, known = "tool_call_id", result.call_id, {call.call_id for call in calls}
    elif result.name is not None:
        key, said, known = "name", result.name, {call.name for call in calls}
    else:
        return BadMessages(f"{result.at}.role", "is 'tool', and each call before it has its result already")
    problem = "and that call has its result already" if said in known else "which no call before it has"
    return BadMessages(f"{result.at}.{key}", f"is {shown(said)}, {problem}")


def _block(call: PendingCall, result: Result) -> str:
    try:
        return result_block(result.name or call.name or "unknown", _value(result.content))
    except ValueError as error:
        raise BadMessages(f"{result.at}.content", f"is not JSON: {error}") from error


def _value(content: Any) -> Any:
    """A result: any JSON value, or OpenAI's list of text parts."""
    parts = isinstance(content, list) and content
    if parts and all(
        isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)
        for part in content
    ):
        return "".join(part["text"] for part in content)
    return content
