"""What a finished answer turned out to be: tool calls, JSON, or just text."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from hermes.conversation.request import Request
from hermes.conversation.tools import read_tool_calls
from hermes.conversation.validation import Validator
from hermes.finish_reason import UNFINISHED, FinishReason

IN_A_NUMBER = re.compile(r"[.eE]?[-+]?\d|[.eE+-]+\Z")  # what begins so may be written within one


def typed_record(request: Request, text: str, finish_reason: FinishReason | None) -> Iterator[tuple[str, Any]]:
    """Names and values that go beside the text, the finish reason among them.

    A finish reason of None stands for an answer that was broken off; what is whole in it is recorded.
    """
    if request.functions:
        schemas = {function.name: function.parameters for function in request.functions}
        asked_for = "" if request.tool_choice == "none" else text
        reading = read_tool_calls(asked_for, schemas, cut=finish_reason != "stop")
        if reading.calls and finish_reason == "stop":  # "length" stays: a call may have been cut off
            finish_reason = "tool_calls"
        yield "tool_calls", [asdict(call) for call in reading.calls]
        yield "tool_call_errors", [asdict(call) for call in reading.bad]
    if request.json_schema is not None and finish_reason is not None:
        yield "json_valid", _is_valid_json(text, request, finish_reason)
    if finish_reason is not None:
        yield "finish_reason", finish_reason


def _is_valid_json(text: str, request: Request, finish_reason: FinishReason) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if isinstance(value, int | float) and not isinstance(value, bool) and _was_cut(request, finish_reason):
        return False  # a number has no end of its own: 12 may be the half of 1234
    return Validator(request.json_schema or {}).problem(value) is None


def _was_cut(request: Request, finish_reason: FinishReason) -> bool:
    """Whether the answer may have ended where the model wanted to write another digit."""
    return finish_reason in UNFINISHED or any(map(IN_A_NUMBER.match, request.sampling.stop))
