"""A model that can be asked, and its response as values."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from hermes.chat.finish_reason import FinishReason
from hermes.client.errors import PredictionFailed
from hermes.client.schema import problems
from hermes.errors import find_error
from hermes.tool_calls.call import BadToolCall, ToolCall

OnText = Callable[[str], None]


@dataclass(frozen=True)
class Response:
    """A complete response. `text` is all that the model wrote, tags of tool calls included."""

    text: str
    finish_reason: FinishReason
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_errors: tuple[BadToolCall, ...] = ()
    json_valid: bool | None = None  # None without json_schema, or if the response is calls
    metrics: dict[str, Any] = field(default_factory=dict)  # token counts, seconds, seed


class Model(Protocol):
    """A model that can be asked."""

    def ask(self, inputs: Mapping[str, Any], on_text: OnText | None = None) -> Response:
        """Run a prediction. `on_text` gets each piece of text as it comes; an error that it raises ends the prediction.

        Raises PredictionFailed if there is no complete response.
        """
        ...


_RESPONSE = TypeAdapter(Response)


def read_text(what: str, value: Any) -> str:
    """A piece of the response. Raises PredictionFailed if it is not text, or holds half of a character."""
    if not isinstance(value, str):
        raise PredictionFailed(f"{what} has to be text, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise PredictionFailed(f"{what} holds half of a character") from error
    return value


def read_response(inputs: Mapping[str, Any], text: str, prediction: Mapping[str, Any]) -> Response:
    """The response in an ended prediction.

    Raises PredictionFailed if it did not succeed, or its metrics do not describe the response.
    """
    if prediction.get("status") != "succeeded":
        error = str(prediction.get("error") or prediction.get("status"))
        raise PredictionFailed(find_error(error) or error)
    metrics = prediction.get("metrics") or {}
    if not isinstance(metrics, Mapping):
        raise PredictionFailed(f"the prediction's metrics have to be an object, not {type(metrics).__name__}")
    if inputs.get("tools") and inputs.get("tool_choice") != "none" and "tool_calls" not in metrics:
        # Cog drops inputs that it does not know, so a server without tools would not say so.
        raise PredictionFailed("the prediction has no metric tool_calls; this server does not take tools")
    try:
        json.dumps(metrics, ensure_ascii=False).encode()  # they may be part of the next request
        return _RESPONSE.validate_python({**metrics, "text": text, "metrics": metrics})
    except ValidationError as error:
        raise PredictionFailed(f"the prediction's metrics cannot be read: {problems(error)}") from error
    except (UnicodeEncodeError, RecursionError) as error:
        raise PredictionFailed(f"the prediction's metrics cannot be read: {error}") from error
