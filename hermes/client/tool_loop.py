"""Lets a model use tools: ask, run its calls, send the results back, until there is a response without calls."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hermes.chat.finish_reason import UNFINISHED
from hermes.client.errors import ToolCallCutOff
from hermes.client.functions import Tool, tool
from hermes.client.response import Model, OnText, Response
from hermes.client.schema import MAX_LINE
from hermes.text import shortened
from hermes.tool_calls.call import ToolCall

Json = dict[str, Any]


@dataclass(frozen=True)
class ToolRun:
    """The model's last response, and the calls that led to it."""

    response: Response
    messages: list[Json]  # the whole conversation, with the response: add a user turn and go on
    calls: list[tuple[ToolCall, Any]]  # each call that was made, with its result

    @property
    def text(self) -> str:
        """The text of the response."""
        return self.response.text


def run_tools(
    model: Model,
    messages: str | Sequence[Mapping[str, Any]],
    tools: Iterable[Tool[..., Any] | Callable[..., Any]],
    *,
    tool_choice: str = "auto",
    max_rounds: int = 5,
    on_text: OnText | None = None,
    **inputs: Any,
) -> ToolRun:
    """Ask a question, or go on with a conversation, with tools.

    A tool's error does not end the run. Neither does a call that cannot be read, has bad arguments or names no tool.
    The model gets {"error": "..."} as the result and may try again. After `max_rounds` rounds of calls, it is asked
    once more with tool_choice "none".

    Args:
        model: who to ask.
        messages: a question, or OpenAI-shaped messages.
        tools: all that the model may call. Plain functions become tools.
        tool_choice: "auto", "none", "required" or a tool's name, for the first round. The others have "auto".
        max_rounds: the most rounds of calls.
        on_text: gets the text of all rounds as it comes.
        **inputs: the other inputs of the model, such as max_tokens and temperature.

    Raises:
        PredictionFailed: a round got no complete response.
        ToolCallCutOff: max_tokens or the timeout cut the response off in the middle of a call.
    """
    by_name = _by_name(tools)
    inputs |= {"tools": [each.as_dict() for each in by_name.values()]}
    chat = _conversation(messages)
    calls: list[tuple[ToolCall, Any]] = []
    for _ in range(max_rounds):
        response = model.ask({**inputs, "messages": chat, "tool_choice": tool_choice}, on_text)
        tool_choice = "auto"  # if a call were always required, the run would never end
        if response.finish_reason in UNFINISHED and response.tool_call_errors:
            raise ToolCallCutOff(chat, response.text, response.finish_reason)
        chat.append({"role": "assistant", "content": response.text})
        if not response.tool_calls and not response.tool_call_errors:
            return ToolRun(response, chat, calls)
        made = [(call, run_call(call, by_name)) for call in response.tool_calls]
        calls += made
        chat += [_result(call.name, result) for call, result in made]
        chat += [_result(error.name or "unknown", {"error": error.problem}) for error in response.tool_call_errors]
    response = model.ask({**inputs, "messages": chat, "tool_choice": "none"}, on_text)
    return ToolRun(response, [*chat, {"role": "assistant", "content": response.text}], calls)


def run_call(call: ToolCall, tools: Mapping[str, Tool[..., Any]]) -> Any:
    """The result of a call as a JSON value. An error becomes {"error": "one line"}."""
    if call.name not in tools:
        return {"error": f"there is no tool {call.name!r}; there are {', '.join(tools)}"}
    try:
        return tools[call.name].run(call.arguments)
    except Exception as error:
        return {"error": shortened(f"{type(error).__name__}: {error}", MAX_LINE)}


def _by_name(tools: Iterable[Tool[..., Any] | Callable[..., Any]]) -> dict[str, Tool[..., Any]]:
    known: dict[str, Tool[..., Any]] = {}
    for each in tools:
        made = each if isinstance(each, Tool) else tool(each)
        if made.name in known:
            raise ValueError(f"there are two tools named {made.name!r}")
        known[made.name] = made
    if not known:
        raise ValueError("there are no tools; ask the model itself")
    return known


def _conversation(messages: str | Sequence[Mapping[str, Any]]) -> list[Json]:
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    return [dict(message) for message in messages]


def _result(name: str, content: Any) -> Json:
    return {"role": "tool", "name": name, "content": content}
