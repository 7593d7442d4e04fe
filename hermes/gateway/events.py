"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) as OpenAI writes them."""

import json

from hermes.client.cog import Json

EVENT_STREAM = "text/event-stream; charset=utf-8"
NO_CACHE = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the second keeps nginx from buffering
PING_SECONDS = 15.0  # at most between two signs of life: proxies close a silent connection after 60 s, or earlier

compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def event(body: Json | str, name: str | None = None) -> str:
    """Returns an event with a JSON body, which may be written already."""
    data = _on_one_line(body if isinstance(body, str) else compact(body))
    return f"{f'event: {name}' + chr(10) if name else ''}data: {data}\n\n"


def _on_one_line(text: str) -> str:
    """Returns JSON with escapes for what ends a line in Python, but not in JSON or an event."""
    if text.isascii():
        return text
    return text.replace("\x85", "\\u0085").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
