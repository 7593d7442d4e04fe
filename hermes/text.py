"""Text for messages, on one line and cut, and text that is none.

That is a lone surrogate (U+D800 to U+DFFF): half of a character, which a Python string or a JSON escape can hold, and
no tokenizer and no UTF-8.
"""

import json
from typing import Any

MAX_SHOWN = 60  # characters of a value in a message


def shown(value: Any) -> str:
    """A JSON value for a message: one line, and cut."""
    if isinstance(value, str):
        return cut(repr(value[: MAX_SHOWN + 1]), MAX_SHOWN)
    text = ""
    try:
        for part in json.JSONEncoder(ensure_ascii=False).iterencode(value):  # by parts: it may be large, or deep
            text += part
            if len(text) > MAX_SHOWN:
                break
    except ValueError:  # Python writes no number of more than 4,300 digits
        text += "a number of very many digits"
    return shortened(text, MAX_SHOWN)


def shortened(text: str, length: int) -> str:
    """The text on one line, no longer than that, and such that it can be encoded."""
    line = " ".join(text[: 2 * length].split())
    return cut(line.encode(errors="backslashreplace").decode(), length)


def cut(text: str, length: int) -> str:
    """The text, no longer than that."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def surrogate_problem(text: str) -> str | None:
    """What is wrong with a text that has one, in words that go after the name of the input."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        return (
            f"holds a lone surrogate (U+{code:04X}) at character {error.start + 1}, which is no text; "
            "send valid Unicode"
        )
    return None
