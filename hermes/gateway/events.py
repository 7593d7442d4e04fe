"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) as OpenAI writes them."""

import json

from hermes.client.cog import Json

EVENT_STREAM = "text/event-stream; charset=utf-8"
NO_CACHE = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the second keeps nginx from buffering
PING_SECONDS = 15.0  # at most between two signs of life: proxies close a silent connection after 60 s, or earlier

compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def event(body: Json, name: str | None = None) -> str:
    """Returns an event with a JSON body."""
    return f"{f'event: {name}' + chr(10) if name else ''}data: {compact(body)}\n\n"
