"""What can go wrong while asking. Each message is one line; the server's own errors keep their codes in it."""

from typing import Any

from hermes.chat.finish_reason import FinishReason
from hermes.client.schema import one_line

REASON_CHARACTERS = 1_000
# What cut an answer off, and what to do about it.
CUT_OFF_BY: dict[FinishReason, str] = {
    "length": "at max_tokens (raise it)",
    "timeout": "when its time was over (raise timeout)",
}


class PredictionFailed(Exception):
    """The prediction ended without an answer."""

    def __init__(self, reason: str):
        super().__init__(one_line(reason, REASON_CHARACTERS))


class PredictionRefused(PredictionFailed):
    """The server took no prediction: bad input (422), all slots busy (409), or not ready (503)."""

    def __init__(self, status: int, detail: str):
        super().__init__(f"the server answered {status}: {detail}")
        self.status = status


class ToolCallCutOff(Exception):
    """The answer was cut off in the middle of a tool call; no call of it was run."""

    def __init__(self, messages: list[dict[str, Any]], text: str, finish_reason: FinishReason):
        """Take the conversation up to the answer, the answer as far as it came, and what cut it off."""
        super().__init__(f"the answer was cut off {CUT_OFF_BY[finish_reason]} in the middle of a tool call")
        self.messages = messages
        self.text = text


class ExtractionFailed(Exception):
    """The model's answer is not the data that was asked for; `text` is that answer."""

    def __init__(self, name: str, problem: str, text: str):
        super().__init__(f"the answer is no {name}: {problem}")
        self.problem = problem
        self.text = text
