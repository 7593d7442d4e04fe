"""Let a model use tools: ask, run the calls it makes, send the results back, until it answers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hermes.chat.finish_reason import UNFINISHED
from hermes.client.errors import ToolCallCutOff
from hermes.client.functions import Tool, tool
from hermes.client.response import Model, OnText, Response
from hermes.client.schema import one_line
from hermes.tool_calls.call import ToolCall

Json = dict[str, Any]


@dataclass(frozen=True)
class ToolRun:
    """The model's last answer, and how it came to it."""

    response: Response
    messages: list[Json]  # the whole conversation, that answer included: add a user turn and go on
    calls: list[tuple[ToolCall, Any]]  # each call that was made, with its result

    @property
    def text(self) -> str:
        """The answer."""
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
    """Answer a question, or go on with a conversation, with the help of tools.

    A tool that raises does not end the run, and neither does a call that cannot be read, has bad arguments or names no
    tool: the model gets {"error": "..."} as the result and may do better. After `max_rounds` rounds of calls it is
    asked once more with tool_choice "none", so that there is an answer.

    Args:
        model: who to ask.
        messages: a question, or OpenAI-shaped messages.
        tools: what the model may call, and nothing else is; plain functions are made tools.
        tool_choice: "auto", "none", "required" or a tool's name. It is for the first round; "auto" for the others.
        max_rounds: most rounds of calls.
        on_text: gets the text of all rounds as it comes.
        **inputs: the other inputs of the model, such as max_tokens and temperature.

    Raises:
        PredictionFailed: a round got no complete answer.
        ToolCallCutOff: max_tokens was reached, or the time was over, in the middle of a call.
    """
    by_name = _by_name(tools)
    inputs |= {"tools": [each.as_dict() for each in by_name.values()]}
    chat = _conversation(messages)
    calls: list[tuple[ToolCall, Any]] = []
    for _ in range(max_rounds):
        response = model.ask({**inputs, "messages": chat, "tool_choice": tool_choice}, on_text)
        tool_choice = "auto"  # a call that is always required would never end
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
    """The result of a call as a JSON value; whatever goes wrong is {"error": one line}."""
    if call.name not in tools:
        return {"error": f"there is no tool {call.name!r}; there are {', '.join(tools)}"}
    try:
        return tools[call.name].run(call.arguments)
    except Exception as error:
        return {"error": one_line(f"{type(error).__name__}: {error}")}


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
