"""The conversation in the inputs of a prediction: its turns and its tools, and which inputs contradict each other."""

from collections.abc import Sequence

from hermes.chat.inputs import Inputs
from hermes.chat.messages import Message, parse_messages
from hermes.chat.template import check
from hermes.errors import BadMessages, BadSampling, BadTools, EmptyRequest
from hermes.text import shortened, shown, surrogate_problem
from hermes.tool_calls.definitions import Function, parse_functions

MAX_NAMES = 300  # characters of tool names in a message


def parse_conversation(inputs: Inputs) -> tuple[tuple[Function, ...], tuple[Message, ...]]:
    """The tools and the turns of these inputs. Raises a RequestError: E1001, E1003 to E1006, or E1008."""
    prompt, messages = inputs["prompt"], inputs["messages"] or ()
    prompt_template = inputs["prompt_template"] or None
    if not prompt and not prompt_template and not messages and not inputs["prompt_token_ids"]:
        raise EmptyRequest
    if prompt_template:
        check(prompt_template, prompt)
    for name, text in (("prompt", prompt), ("system_prompt", inputs["system_prompt"])):
        if problem := surrogate_problem(text):
            raise BadMessages(name, problem)
    functions = parse_functions(inputs["tools"] or [])
    _check_together(inputs, functions)
    turns = parse_messages(messages, functions)
    if inputs["continue_final_message"]:
        _require_beginning(inputs, turns)
    return functions, turns


def _check_together(inputs: Inputs, functions: Sequence[Function]) -> None:
    """Refuse inputs that contradict each other."""
    tool_choice = inputs["tool_choice"]
    for whole in ("prompt_template", "prompt_token_ids"):
        beside = f"can't go with {whole}, which is the whole prompt; send one of them"
        if inputs[whole] and inputs["messages"]:
            raise BadMessages("messages", beside)
        if inputs[whole] and functions:
            raise BadTools("tools", beside)
    for name in ("prompt", "prompt_template"):
        if inputs["prompt_token_ids"] and inputs[name]:
            raise BadMessages(name, "can't go with prompt_token_ids, which is the whole prompt; send one of them")
    names = [function.name for function in functions]
    if tool_choice not in ("auto", "none", "required", *names):
        raise BadTools(
            "tool_choice",
            f"is {shown(tool_choice)}; it has to be auto, none, required or one of "
            f"{shortened(', '.join(names), MAX_NAMES) or 'the tools'}",
        )
    if tool_choice == "required" and not functions:
        raise BadTools("tool_choice", "is 'required' and there are no tools to call")
    if inputs["min_tokens"] and (ends := _what_ends_it(inputs)):
        raise BadSampling(f"min_tokens is {shown(inputs['min_tokens'])} beside {ends}")


def _what_ends_it(inputs: Inputs) -> str:
    """What ends the response wherever it is complete, and why; "" if nothing but the model does."""
    if inputs["json_schema"] is not None:
        return "json_schema; JSON ends where it is complete"
    if not inputs["tools"] or inputs["tool_choice"] == "none":
        return ""
    if inputs["tool_choice"] != "auto":
        return f"tool_choice {shown(inputs['tool_choice'])}; the response ends after the call"
    return "" if inputs["parallel_tool_calls"] else "parallel_tool_calls false; the response ends after a call"


def _require_beginning(inputs: Inputs, turns: Sequence[Message]) -> None:
    """Raises BadMessages if the last message is no beginning of a response."""
    last = inputs["messages"][-1] if inputs["messages"] else {}
    for name in ("prompt", "prompt_template", "prompt_token_ids", "json_schema"):
        if inputs[name] not in (None, "", []):
            raise BadMessages("continue_final_message", f"can't go with {name}; leave one of them out")
    if last["role"] != "assistant":
        problem = f"needs a last message of the assistant's; its role is {shown(last['role'])}"
        raise BadMessages("continue_final_message", problem)
    if turns[-1].role != "assistant":
        at = f"messages[{len(inputs['messages'] or ()) - 1}].tool_calls"
        raise BadMessages(at, "make a complete turn, and continue_final_message can't go on with it")
