"""A response of OpenAI's API while it is written: its items, and the events that tell of them.

See https://platform.openai.com/docs/api-reference/responses-streaming and https://www.openresponses.org.
"""

import secrets
import time
from collections.abc import Sequence
from itertools import count
from typing import Any

from hermes.client.cog import Json
from hermes.gateway.answer import Arguments, CallStart, Part
from hermes.gateway.events import compact, event
from hermes.gateway.reply import Heartbeat, Reply
from hermes.gateway.responses_items import new_id
from hermes.gateway.written_items import Event, WrittenCall, WrittenCustomCall, WrittenItem, WrittenMessage


class ResponseWriter:
    """A response while it is written."""

    def __init__(self, echo: bytes, custom: frozenset[str] = frozenset(), *, store: bool = False):
        """Args:
        echo: what the response repeats of its request, as JSON without its braces; it may be large.
        custom: the functions whose calls are those of custom tools.
        store: whether it is kept; may change later.
        """
        self._echo, self._custom, self.store = echo, custom, store
        self.id, self._created = f"resp_{secrets.token_hex(16)}", int(time.time())
        self.output: list[Json] = []
        self._numbers = count()
        self._open: WrittenItem | None = None  # the last item, if it is not whole yet

    def response(self, status: str, **more: Any) -> str:
        """The response as it is, as JSON."""
        own = {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "output": self.output,
            "store": self.store,
            "usage": None,
            **more,
        }
        return f"{compact(own)[:-1]},{self._echo.decode()}}}"

    def ended(self, reply: Reply) -> str:
        """The response when its run has ended, as JSON."""
        usage = reply.usage()
        counts = {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }
        reason = {"reason": "max_output_tokens"} if reply.runs[0].cut_off else None
        return self.response(status_of(reply), incomplete_details=reason, usage=counts)

    def event(self, kind: str, **body: Any) -> str:
        """An event, with its number."""
        return event({"type": kind, "sequence_number": next(self._numbers), **body}, kind)

    def event_with_response(self, kind: str, response: str) -> str:
        """An event that has the response as it is."""
        head = compact({"type": kind, "sequence_number": next(self._numbers)})
        return event(f'{head[:-1]},"response":{response}}}', kind)

    def take(self, part: Part | Heartbeat | None) -> list[str]:
        """The events of a part."""
        match part:
            case Heartbeat():
                return [self._heartbeat()]
            case CallStart():
                call = WrittenCustomCall if part.name in self._custom else WrittenCall
                return [*self.close(), *self._begin(call(part.name))]
            case Arguments():
                events = self._take(part.text)
                return [*events, *self.close()] if part.is_last else events
            case str():
                goes_on = isinstance(self._open, WrittenMessage)
                begun = [] if goes_on else [*self.close(), *self._begin(WrittenMessage())]
                return [*begun, *self._take(part)]
        return []

    def close(self, status: str = "completed") -> list[str]:
        """The events that end the item that is open, if there is one."""
        item, self._open = self._open, None
        if item is None:
            return []
        self.output[-1] |= {"status": status, **item.whole()}
        return [*self._events(item.done()), self._item_event("response.output_item.done")]

    def _heartbeat(self) -> str:
        """Returns an event that changes nothing. openai's client for JavaScript takes a response for the whole state,
        which it is only between items.
        """
        if self._open is None:
            return self.event_with_response("response.in_progress", self.response("in_progress"))
        kind, body = self._open.delta("")
        return self.event(kind, **self._at(), **body)

    def _begin(self, item: WrittenItem) -> list[str]:
        self._open = item
        self.output.append({"id": new_id(item.kind), "status": "in_progress", **item.begun()})
        return [self._item_event("response.output_item.added"), *self._events(item.added())]

    def _take(self, text: str) -> list[str]:
        assert self._open is not None  # noqa: S101
        self._open.add(text)
        return self._events([self._open.delta(text)] if self._open.streams else [])

    def _events(self, events: Sequence[Event]) -> list[str]:
        return [self.event(kind, **self._at(), **body) for kind, body in events]

    def _at(self) -> Json:
        return {"item_id": self.output[-1]["id"], "output_index": len(self.output) - 1}

    def _item_event(self, kind: str) -> str:
        return self.event(kind, output_index=len(self.output) - 1, item=self.output[-1])


def status_of(reply: Reply) -> str:
    """How a response has ended."""
    return "incomplete" if reply.runs[0].cut_off else "completed"
