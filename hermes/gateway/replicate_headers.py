"""The request headers that Replicate's API reads: Prefer, Cancel-After, Last-Event-ID."""

import re
from collections.abc import Sequence

from hermes.gateway.problems import Problem
from hermes.text import shortened

MAX_WAIT = 60.0  # s that `Prefer: wait` waits; replicate's clients stop reading half a second later
MAX_PREFER = 200  # characters of Prefer headers that are read
MAX_SAID = 80  # characters of a header in a message

TOKEN, QUOTED = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", r'"(?:[^"\\]|\\.)*"'
PREFERENCES = re.compile(rf'(?:[^,"]|{QUOTED}|")+')  # separated by commas
PREFERENCE = re.compile(rf"({TOKEN})(?:\s*+=\s*+({TOKEN}|{QUOTED})?)?+\s*+(?:;.*)?", re.DOTALL)
DURATION = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s?)?", re.ASCII)
UNITS = (86_400, 3_600, 60, 1)  # s
EVENT_ID = re.compile(r"(\d{1,9}):(\d{1,9})", re.ASCII)


def preferences(headers: Sequence[str]) -> dict[str, str]:
    """Returns the preferences in Prefer headers, by name in lower case (https://www.rfc-editor.org/rfc/rfc7240).

    The first of two with one name counts, and what is written otherwise does not.
    """
    found: dict[str, str] = {}
    for text in PREFERENCES.findall(",".join(headers)[:MAX_PREFER]):
        if match := PREFERENCE.fullmatch(text.strip()):
            value = match[2] or ""
            if value.startswith('"'):
                value = re.sub(r"\\(.)", r"\1", value[1:-1])
            found.setdefault(match[1].lower(), value)
    return found


def wait_seconds(prefer: Sequence[str]) -> float:
    """Returns how long Prefer headers ask to wait, in s; 0 if they do not, or it is not understood."""
    value = preferences(prefer).get("wait")
    if value == "":
        return MAX_WAIT
    number = re.fullmatch(r"0*(\d{1,9})", value or "", re.ASCII)
    return min(float(number[1]), MAX_WAIT) if number else 0.0


def cancel_after(headers: Sequence[str]) -> float | None:
    """Returns the seconds in a Cancel-After header, such as 90, 5s or 1h30m; None if there is none.

    Raises Problem if it is no duration.
    """
    if not headers:
        return None
    text = ", ".join(headers)
    match = DURATION.fullmatch(text.strip().lower())
    seconds = sum(int(number or 0) * unit for number, unit in zip(match.groups(), UNITS, strict=True)) if match else 0
    if not seconds:
        what = f"Cancel-After: is {shortened(repr(text), MAX_SAID)}; send a duration such as 90, 5s, 1m30s or 2h"
        raise Problem(400, what, param="Cancel-After")
    return float(seconds)


def last_event(text: str) -> tuple[int, int]:
    """Returns how many pieces, and characters of the logs, the reader of a stream has had, from its Last-Event-ID."""
    match = EVENT_ID.fullmatch(text)
    return (int(match[1]), int(match[2])) if match else (0, 0)
