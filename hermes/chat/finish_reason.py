"""Why an answer ended: the one list for the engine, for the record of an answer and for the client that reads it."""

from typing import Literal

# stop: the model ended it, or a stop sequence. length: max_tokens. timeout: the time was over. tool_calls: the model
# ended it with calls that can be run.
FinishReason = Literal["stop", "length", "timeout", "tool_calls"]

UNFINISHED: tuple[FinishReason, ...] = ("length", "timeout")  # the model would have gone on
