"""A connection to the gateway: uvicorn 0.54's, with limits, HTTP/1.0, and clients that close only their side.

It has HEADER_SECONDS for the headers of a request, and HEADER_BYTES. The time for a body is bodies.py's. When all
connections are taken, a new one takes the place of the one that has been without a request for the longest time, so a
load balancer still reaches /healthz.
"""

import asyncio
import socket
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEADER_SECONDS = 15.0
HEADER_BYTES, HEADERS = 16 * 2**10, 200
WRITE_SECONDS, WRITE_BYTES = 60.0, 32 * 2**10  # a client reads so much in this time where a response fills the buffers
SEND_BUFFER = 128 * 2**10  # bytes in the kernel, which takes up to 4 MB otherwise; Linux counts them twice
PIPELINED = 16  # requests on a connection whose first one is not answered yet
RESET_SECONDS = 0.5  # between two looks for the reset of a client that is gone
PROBES = 3  # docker-proxy, ssh -L and the like forward the first, fail at the second, and reset after the third


class Protocol(HttpToolsProtocol):
    """HTTP with limits on the headers of a request (time, bytes, number), on pipelining and on unread responses.

    An error in a callback of the parser is a 400, after which the connection closes.
    """

    idle: ClassVar[dict["Protocol", None]] = {}  # those without a whole request, the longest first

    _timer: asyncio.TimerHandle | None = None  # from a connection, or the first byte of a request, to its headers' end
    _unread: asyncio.TimerHandle | None = None  # while the client reads nothing
    _half_closed: asyncio.TimerHandle | None = None  # since the client closed its side
    _received = 0  # bytes that are no body, whole or not: headers, and what may come between chunks and after them
    _header_bytes = 0  # of the URL, headers and trailers of a request, as parsed: many may come in one read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time for the first headers. Closes an idle connection if there are too many."""
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.idle[self] = None
        self._start_timer()
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            longest = next(iter(self.idle))
            if longest is not self or len(self.connections) > self.limit_concurrency:
                del self.idle[longest]
                self.connections.discard(longest)  # now, so that this one's request is not one too many
                longest.transport.abort()
            # else all others have requests, and this one's gets 503

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the times."""
        self.idle.pop(self, None)
        self._stop_timer()
        for timer in (self._unread, self._half_closed):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Returns whether the connection stays: a client that sends no more may still read.

        One that is gone looks the same until something is written, which its system answers with a reset. A relay
        between them, as `docker run -p` has one, learns of it in the same way.
        """
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        self._probe(PROBES)
        return True

    def data_received(self, data: bytes) -> None:
        """Read the bytes. Those after a response begin a next request, and its time."""
        if self._timer is None and self.cycle.response_complete:
            self._start_timer()
        self._received += len(data)
        super().data_received(data)
        self._received = max(self._received, 0)  # a body that came with its headers is no credit for others
        if self._received > HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The headers are more than {HEADER_BYTES} bytes.")

    def on_message_begin(self) -> None:
        """Raises ValueError if too many requests wait for the response to another."""
        if len(self.pipeline) >= PIPELINED:
            raise ValueError("too many pipelined requests")
        self._header_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Raises ValueError if it is too long."""
        self._count_header(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Raises ValueError if a request has too many headers, or too many bytes of them; trailers count as well."""
        self._count_header(len(name) + len(value))
        if len(self.headers) >= HEADERS:
            raise ValueError("too many headers")
        super().on_header(name, value)

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > HEADER_BYTES:
            raise ValueError("too many bytes of headers")

    def on_headers_complete(self) -> None:
        """Stop the time and begin the request."""
        self._received = 0
        self._stop_timer()
        self.idle.pop(self, None)
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0":
            _end_by_closing(self.cycle)

    def on_response_complete(self) -> None:
        """Begin the next request, or be idle."""
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None:
            self.idle[self] = None

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._received -= len(body)
        super().on_body(body)

    def pause_writing(self) -> None:
        """Start the time for the client to read: the buffer is full."""
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        """Stop the time."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def _await_reading(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(WRITE_SECONDS, self._check_reading, left)

    def _check_reading(self, before: int) -> None:
        """Close the connection unless the client has read something."""
        if before - self.transport.get_write_buffer_size() < WRITE_BYTES:
            self.transport.abort()
        else:
            self._await_reading()

    def _probe(self, left: int) -> None:
        if left and not self.pipeline:  # else others are answered before, and their responses are written
            self.transport.write(_filler(self.cycle))
            left -= 1
        self._half_closed = self.loop.call_later(RESET_SECONDS, self._check_reset, left)

    def _check_reset(self, left: int) -> None:
        """Close the connection if the client is gone. One of HTTP/1.0 that has no response yet cannot be asked."""
        unasked = self.scope["http_version"] == "1.0" and not self.cycle.response_started
        if unasked or self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        elif not self.transport.is_closing():
            self._probe(left)

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: Java's client asks for HTTP/2 in each first request, and is served in HTTP/1.1."""


def _filler(cycle: RequestResponseCycle) -> bytes:
    """Returns what changes nothing where a response is now: an interim response, or a zero before a chunk's length."""
    if cycle.scope["http_version"] == "1.0":
        return b""
    if not cycle.response_started:
        return b"HTTP/1.1 100 Continue\r\n\r\n"
    return b"0" if cycle.chunked_encoding else b""


def _end_by_closing(cycle: RequestResponseCycle) -> None:
    """Have a response without a length end as HTTP/1.0 wants it, which knows no chunks and no interim responses."""
    cycle.waiting_for_100_continue = False
    cycle.chunked_encoding = False
    send = cycle.send

    async def send_any_length(message: Any) -> None:
        cycle.expected_content_length = len(message.get("body", b""))  # uvicorn compares them
        await send(message)

    cycle.send = send_any_length  # type: ignore[method-assign]
