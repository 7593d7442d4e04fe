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
    parallel_tool_calls: bool
    continue_final_message: bool
    prompt_token_ids: Sequence[int] | None


SMALL = 8192  # characters


def is_small(inputs: Inputs) -> bool:
    """Whether these inputs are read within a millisecond or two: short texts, no schema, no token ids."""
    slow = inputs["tools"] or inputs["json_schema"] or inputs["prompt_token_ids"]
    return not slow and _left(list(inputs.values()), SMALL) > 0


def _left(value: object, room: int) -> int:
    """What is left of the room after all texts in a value. It looks at no more of the value than has room."""
    if isinstance(value, str):
        return room - len(value)
    for each in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        room = _left(each, room - 1)
        if room <= 0:
            break
    return room
