"""Why a response ended: one list for the engine, the record of a response, and the client."""

from typing import Literal

# stop: the model or a stop string ended it. length: max_tokens ended it. timeout: the time limit ended it. tool_calls:
# the model ended it, and it holds calls that can be run.
FinishReason = Literal["stop", "length", "timeout", "tool_calls"]

UNFINISHED: tuple[FinishReason, ...] = ("length", "timeout")  # the model would have gone on
