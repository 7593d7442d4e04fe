"""Values and texts for messages, on one short line and without secrets; and the check for lone surrogates.

A lone surrogate (U+D800 to U+DFFF) is half of a character. A Python string or a JSON escape can hold one; UTF-8 and
tokenizers can't.
"""

import json
import re
from typing import Any

MAX_SHOWN = 60  # characters of a value in a message


def shown(value: Any) -> str:
    """Write a JSON value for a message, on one line of at most MAX_SHOWN characters."""
    if isinstance(value, str):
        return cut(repr(value[: MAX_SHOWN + 1]), MAX_SHOWN)
    text = ""
    try:
        for part in json.JSONEncoder(ensure_ascii=False).iterencode(value):  # in parts: the value may be large
            text += part
            if len(text) > MAX_SHOWN:
                break
    except ValueError:  # Python does not write numbers of more than 4,300 digits
        text += "a number of very many digits"
    return shortened(text, MAX_SHOWN)


def shortened(text: str, length: int) -> str:
    """Put a text on one line of at most `length` characters, and escape lone surrogates."""
    line = " ".join(text[: 2 * length].split())
    return cut(line.encode(errors="backslashreplace").decode(), length)


def cut(text: str, length: int) -> str:
    """Cut a text to at most `length` characters."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def redacted(text: str) -> str:
    """A text in one line, without passwords, signatures and tokens, and with no queries in its URLs."""
    text = re.sub(r"://(?:[^/\s]*|[^/\s:@\[]*:(?!\d+/)\S{0,99})@", "://...@", text)  # a password may have a /
    text = re.sub(r"\b(bearer|basic)\s+\S+", r"\1 ...", text, flags=re.IGNORECASE)
    text = re.sub(r"\b(hf|api_org|r8)_[\w.-]{8,}", "...", text)  # tokens of the hub and of Replicate
    return " ".join(map(_without_query, text.split()))


def without_credentials(url: str) -> str:
    """A URL without its user, password, query and fragment. A password may have an @."""
    return re.split("[?#]", re.sub(r"^([\w+.-]+://)?.*@", r"\1", url, flags=re.DOTALL))[0]


def _without_query(word: str) -> str:
    before, _, query = word.partition("?")
    if "=" not in query:
        return word
    return before + query[len(query.rstrip(")]}>'\",;:.")) :]  # keeps a closing quotation mark


def surrogate_problem(text: str) -> str | None:
    """Describe the first lone surrogate of a text, in words that follow the name of the input; None if it has none."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        return (
            f"holds a lone surrogate (U+{code:04X}) at character {error.start + 1}, which is not text; "
            "send valid Unicode"
        )
    return None
