"""The conversation in the inputs of a prediction: its turns and its tools, and which inputs contradict each other."""

from collections.abc import Sequence
from typing import Any

from hermes.chat.inputs import Inputs
from hermes.chat.messages import ROLES, Message, parse_messages
from hermes.chat.template import check
from hermes.errors import BadMessages, BadSampling, BadTools, EmptyRequest
from hermes.text import shortened, shown, surrogate_problem
from hermes.tool_calls.definitions import Function, parse_functions

MAX_NAMES = 300  # characters of tool names in a message


def parse_conversation(inputs: Inputs) -> tuple[tuple[Function, ...], tuple[Message, ...]]:
    """The tools and the turns of these inputs. Raises a RequestError: E1001, E1003 to E1006, or E1008."""
    prompt, messages = inputs["prompt"], inputs["messages"] or ()
    prompt_template = inputs["prompt_template"] or None
    if not prompt and not prompt_template and not messages:
        raise EmptyRequest
    if prompt_template:
        check(prompt_template, prompt)
    for name, text in (("prompt", prompt), ("system_prompt", inputs["system_prompt"])):
        if problem := surrogate_problem(text):
            raise BadMessages(name, problem)
    functions = parse_functions(inputs["tools"] or [])
    _check_together(inputs, functions)
    turns = parse_messages(messages, functions)
    if messages and not prompt:
        _require_question(messages)
    return functions, turns


def _check_together(inputs: Inputs, functions: Sequence[Function]) -> None:
    """Refuse inputs that contradict each other."""
    prompt_template, tool_choice, json_schema = inputs["prompt_template"], inputs["tool_choice"], inputs["json_schema"]
    if prompt_template and inputs["messages"]:
        raise BadMessages("messages", "can't go with prompt_template, which is the whole prompt; send one of them")
    if prompt_template and functions:
        raise BadTools("tools", "can't go with prompt_template, which is the whole prompt; send one of them")
    if functions and json_schema is not None:
        raise BadTools("tools", "can't go with json_schema: a response is a tool call or JSON; send one of them")
    names = [function.name for function in functions]
    if tool_choice not in ("auto", "none", "required", *names):
        raise BadTools(
            "tool_choice",
            f"is {shown(tool_choice)}; it has to be auto, none, required or one of "
            f"{shortened(', '.join(names), MAX_NAMES) or 'the tools'}",
        )
    if tool_choice == "required" and not functions:
        raise BadTools("tool_choice", "is 'required' and there are no tools to call")
    if json_schema is not None and inputs["min_tokens"]:
        raise BadSampling(
            f"min_tokens is {shown(inputs['min_tokens'])} beside json_schema; JSON ends where it is complete"
        )


def _require_question(messages: Sequence[Any]) -> None:
    """Raises BadMessages if the last of them leaves nothing to respond to."""
    if (role := ROLES[messages[-1]["role"]]) not in ("user", "tool"):
        raise BadMessages(
            f"messages[{len(messages) - 1}].role",
            f"is {role!r}, so there is nothing to respond to; end with a user turn, or send a prompt",
        )
