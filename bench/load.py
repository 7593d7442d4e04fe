"""Callers: many at once, each streaming one response, with the second at which each piece came.

They share the cores with what is measured, so they are no HTTP client: they count the pieces in what they read, and
parse nothing.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from hermes.chat.request import DEFAULT_SYSTEM_PROMPT

NEW_TOKENS = 96

Timeline = list[float]  # seconds from sending a request to each piece of its response


@dataclass(frozen=True)
class Api:
    """A way to ask for a response and to tell the pieces of it."""

    path: str
    body: Callable[..., dict[str, Any]]  # of a prompt, and of more that the request has
    pieces: Callable[[bytes], int]  # how many begin in these bytes


END = b'"finish_reason":"length"'  # in either way: the response has all NEW_TOKENS


async def stream_all(api: Api, url: str, prompts: list[str], **more: Any) -> list[Timeline]:
    """Send every prompt at the same moment and read all responses to their ends."""
    address = url.removeprefix("http://")
    host, _, port = address.partition(":")

    async def one(prompt: str) -> Timeline:
        body = json.dumps(api.body(prompt, **more)).encode()
        head = f"POST {api.path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
        head += f"Accept: text/event-stream\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        caller = Caller(head.encode() + body, api.pieces)
        await asyncio.get_running_loop().create_connection(lambda: caller, host, int(port))
        return await caller.timeline

    return await asyncio.gather(*map(one, prompts))


class Caller(asyncio.Protocol):
    """One request, and the times of the pieces of its response."""

    def __init__(self, request: bytes, pieces: Callable[[bytes], int]):
        self.timeline: asyncio.Future[Timeline] = asyncio.get_running_loop().create_future()
        self._request, self._pieces = request, pieces
        self._times: Timeline = []
        self._first = self._last = b""
        self._has_end = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._sent = time.perf_counter()
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._first = self._first or data
        self._has_end = self._has_end or END in self._last + data
        self._last = data[-len(END) :]
        self._times += [time.perf_counter() - self._sent] * self._pieces(data)

    def connection_lost(self, error: Exception | None) -> None:
        if error or not self._has_end:
            self.timeline.set_exception(error or RuntimeError(f"a response is not whole: {self._first[:1000]!r}"))
        else:
            self.timeline.set_result(self._times)


def _cog_body(prompt: str, **more: Any) -> dict[str, Any]:
    inputs = {
        "prompt": prompt,
        "system_prompt": DEFAULT_SYSTEM_PROMPT,
        "temperature": 0,
        "min_tokens": NEW_TOKENS,
        "max_tokens": NEW_TOKENS,
        **more,
    }
    return {"input": inputs}


def _openai_body(prompt: str, *, system_prompt: str = DEFAULT_SYSTEM_PROMPT, **more: Any) -> dict[str, Any]:
    return {
        "model": "model",
        "messages": [{"role": "system", "content": system_prompt}, {"role": "user", "content": prompt}],
        "temperature": 0,
        "top_p": 0.9,
        "top_k": 50,
        "min_tokens": NEW_TOKENS,
        "max_tokens": NEW_TOKENS,
        "stream": True,
        **more,
    }


COG = Api("/predictions", _cog_body, lambda read: read.count(b"event: output"))
OPENAI = Api(
    "/v1/chat/completions", _openai_body, lambda read: read.count(b'"content":"') - read.count(b'"content":""')
)
