"""The errors of the client. Each message is one line, and keeps the code of a server's error."""

from typing import Any

from hermes.chat.finish_reason import FinishReason
from hermes.text import shortened

MAX_REASON = 1_000  # characters
# What cut a response off, and what to do about it.
CUT_OFF_BY: dict[FinishReason, str] = {
    "length": "at max_tokens (raise it)",
    "timeout": "by its timeout (raise it)",
}


class PredictionFailed(Exception):
    """The prediction ended without a response."""

    def __init__(self, reason: str):
        super().__init__(shortened(reason, MAX_REASON))


class PredictionRefused(PredictionFailed):
    """The server did not begin the prediction: bad input (422), all slots busy (409), or not ready (503)."""

    def __init__(self, status: int, detail: str):
        super().__init__(f"the server answered {status}: {detail}")
        self.status = status


class ToolCallCutOff(Exception):
    """The response was cut off in the middle of a tool call. None of its calls was run."""

    def __init__(self, messages: list[dict[str, Any]], text: str, finish_reason: FinishReason):
        """Take the conversation up to the response, the text that came, and what cut it off."""
        super().__init__(f"the response was cut off {CUT_OFF_BY[finish_reason]} in the middle of a tool call")
        self.messages = messages
        self.text = text


class ExtractionFailed(Exception):
    """The response is not the data that was asked for; `text` is that response."""

    def __init__(self, name: str, problem: str, text: str):
        super().__init__(f"the response is not a valid {name}: {problem}")
        self.problem = problem
        self.text = text
