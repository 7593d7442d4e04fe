"""How long a host asks to wait: Retry-After (RFC 9110, section 10.2.3), or the rest of a rate limit's window.

RateLimit is a draft with two forms: `"policy";r=0;t=178`, and before that `limit=500, remaining=0, reset=178`
(https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/). Older hosts send (X-)RateLimit-Reset.
"""

import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

LIMITED = 429  # with other statuses, a rate limit is not the cause
EPOCH = 10**9  # from here on a number is not seconds to wait but a time since 1970


def retry_after(headers: Mapping[str, str], status: int) -> float | None:
    """Seconds until the next request, as a response with this status asks; None if it does not."""
    now = _date(headers.get("Date", "")) or time.time()
    if (asked := _seconds(headers.get("Retry-After", ""), now)) is not None or status != LIMITED:
        return asked
    waits = [*_windows(headers.get("RateLimit", "")), *_resets(headers, now)]
    return max(waits, default=None)


def _windows(text: str) -> Iterator[float]:
    """The rests of the windows in which no request is left."""
    for policy in [text] if re.search(r"\breset\s*=", text) else text.split(","):
        values: dict[str, str] = dict(re.findall(r"\b(r|t|remaining|reset)\s*=\s*(\d+)", policy, re.ASCII))
        reset = values.get("t", values.get("reset"))
        if reset and float(values.get("r", values.get("remaining", "0"))) == 0:
            yield float(reset)


def _resets(headers: Mapping[str, str], now: float) -> Iterator[float]:
    for prefix in ("RateLimit", "X-RateLimit"):
        is_used_up = headers.get(f"{prefix}-Remaining", "0").strip() == "0"
        reset = _seconds(headers.get(f"{prefix}-Reset", ""), now)
        if is_used_up and reset is not None:
            yield reset


def _seconds(text: str, now: float) -> float | None:
    """Seconds from a number of them, a time since 1970, or a date; None without a valid one."""
    if re.fullmatch(r"\d+(\.\d+)?", text.strip(), re.ASCII):
        number = float(text)
        return number if number < EPOCH else max(0.0, number - now)
    date = _date(text)
    return None if date is None else max(0.0, date - now)


def _date(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
