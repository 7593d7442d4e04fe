"""The inputs of a prediction, as predict.py takes them; their meanings and ranges are written there."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class Inputs(TypedDict):
    """The value of each input by its name. Cog fills in the defaults; None is an input that the client left out."""

    prompt: str
    system_prompt: str
    min_tokens: int
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    presence_penalty: float
    frequency_penalty: float
    stop_sequences: str | None
    prompt_template: str | None
    seed: int | None
    messages: Sequence[Any] | None
    tools: Sequence[Any] | None
    tool_choice: str
    json_schema: Mapping[str, Any] | None
    repetition_penalty: float
    min_p: float
    truncate: str
    timeout: float | None
    stop: Sequence[str] | None
