"""What a finished response is: tool calls, JSON, or plain text."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from hermes.chat.constraint import Constraint
from hermes.chat.finish_reason import UNFINISHED, FinishReason
from hermes.chat.request import Request
from hermes.json_schema.shapes import unrestricted
from hermes.json_schema.validate import Validator
from hermes.text import shortened
from hermes.tool_calls.parser import read_tool_calls

MAX_SAID = 100  # characters


def typed_record(request: Request, text: str, finish_reason: FinishReason | None) -> Iterator[tuple[str, Any]]:
    """The metrics that describe the text, the finish reason among them. This takes up to a second of CPU time.

    The finish reason is None if an error or a cancel broke the response off.
    """
    constraint = request.constraint or Constraint("")
    is_document = request.json_schema is not None and not (request.may_call and text.startswith("<"))
    if request.functions:
        schemas = {function.name: function.parameters for function in request.functions}
        with_calls = text if request.may_call and not is_document else ""  # a document may hold the text of a call
        reading = read_tool_calls(with_calls, schemas, cut=finish_reason != "stop")
        if reading.calls and finish_reason == "stop":  # "length" stays: a call may have been cut off
            finish_reason = "tool_calls"
        yield "tool_calls", [asdict(call) for call in reading.calls]
        yield "tool_call_errors", [asdict(call) for call in reading.bad]
        yield "tools_unenforced", {name: list(places) for name, places in constraint.tools_unenforced.items() if places}
    if request.json_schema is not None:
        yield "json_unenforced", list(constraint.json_unenforced)
        if is_document and finish_reason is not None:
            problem = _json_problem(text, request, finish_reason)
            yield "json_valid", problem is None
            if problem or (problem := unrestricted(request.json_schema)):
                yield "json_problem", problem
    if finish_reason is not None:
        yield "finish_reason", finish_reason


def _json_problem(text: str, request: Request, finish_reason: FinishReason) -> str | None:
    """The first problem of a response that should be JSON of the schema, as `$.path: problem`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        said = "it was cut off" if finish_reason in UNFINISHED else str(error) or type(error).__name__
        return f"$: is not JSON: {shortened(said, MAX_SAID)}"
    if isinstance(value, int | float) and not isinstance(value, bool) and finish_reason in UNFINISHED:
        return "$: the number may have been cut off"  # nothing ends a number: 12 may be half of 1234
    return Validator(request.json_schema or {}).problem(value)
