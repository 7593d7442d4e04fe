"""Serves the gateway by uvicorn, with the limits and the orderly stop that uvicorn 0.54 does not have.

A connection has HEADER_SECONDS for the headers of a request, and HEADER_BYTES. The time for a body is bodies.py's. When
all connections are taken, a new one takes the place of the one that has been without a request for the longest time, so
a load balancer still reaches /healthz. At SIGTERM the gateway ends its predictions while their responses still stream,
so each gets its last event.
"""

import asyncio
import logging
import resource
import socket
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import ClassVar

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hermes.gateway.settings import GatewaySettings

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 75  # proxies keep an idle connection for 60 s, and must be the ones to close it
HEADER_SECONDS = 15.0
HEADER_BYTES, HEADERS = 16 * 2**10, 200
WRITE_SECONDS, WRITE_BYTES = 60.0, 32 * 2**10  # a client reads so much in this time where a response fills the buffers
SEND_BUFFER = 128 * 2**10  # bytes in the kernel, which takes up to 4 MB otherwise; Linux counts them twice
PIPELINED = 16  # requests on a connection whose first one is not answered yet
CONNECTIONS = 4096  # FILES has room for connections to the upstreams, too
FILES = 3 * CONNECTIONS
SPARE_SECONDS = 3.0  # after the grace period, for the last events and for connections to close

TICK_SECONDS = 0.1


def serve(app: ASGIApp, settings: GatewaySettings, stop: Callable[[], Awaitable[None]]) -> None:
    """Serve until SIGINT or SIGTERM, then await `stop`, which ends the predictions. A second SIGINT ends at once."""
    Server(configuration(app, settings), stop, settings.grace + SPARE_SECONDS).run()


def configuration(app: ASGIApp, settings: GatewaySettings) -> uvicorn.Config:
    """The configuration of uvicorn. Raises the limit of open files if it is lower than the connections need."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=Protocol,
        ws="none",
        proxy_headers=False,  # the gate reads them, from the proxies that the settings list
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(SPARE_SECONDS),
        limit_concurrency=min(CONNECTIONS, open_files() // 3),
    )


def open_files() -> int:
    """The files that this process may have open. Raises the limit that a shell gives, 1024, to FILES where allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        soft = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return FILES if soft == resource.RLIM_INFINITY else soft


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 with limits on the headers of a request (time, bytes, number), on pipelining and on unread responses.

    An error in a callback of the parser is a 400, after which the connection closes.
    """

    idle: ClassVar[dict["Protocol", None]] = {}  # those without a whole request, the longest first

    _timer: asyncio.TimerHandle | None = None  # from a connection, or the first byte of a request, to its headers' end
    _unread: asyncio.TimerHandle | None = None  # while the client reads nothing
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
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

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

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: Java's client asks for HTTP/2 in each first request, and is served in HTTP/1.1."""


class Server(uvicorn.Server):
    """A server that awaits `stop`, for at most `seconds`, before it closes its connections."""

    def __init__(self, config: uvicorn.Config, stop: Callable[[], Awaitable[None]], seconds: float):
        super().__init__(config)
        self._stop, self._seconds = stop, seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse connections, await `stop` while responses stream, and then do what uvicorn does."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()  # closes it if it is idle, else after its response
        loop = asyncio.get_running_loop()
        stopping, end = asyncio.ensure_future(self._stop()), loop.time() + self._seconds
        while not (stopping.done() or self.force_exit or loop.time() > end):
            await asyncio.wait({stopping}, timeout=TICK_SECONDS)
        if not stopping.done():
            stopping.cancel()
        elif error := stopping.exception():
            log.error("gateway: the predictions could not be ended: %r", error)
        while self.server_state.connections and not (self.force_exit or loop.time() > end):  # noqa: ASYNC110
            await asyncio.sleep(TICK_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()  # uvicorn would wait, and then log a traceback for each
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Break off the connections at the second SIGINT: Python 3.12 would wait for them."""
        super().handle_exit(sig, frame)
        if self.force_exit:
            logging.getLogger("uvicorn.error").disabled = True  # it would log a traceback for each of them
            for connection in self.server_state.connections:
                connection.loop.call_soon_threadsafe(connection.transport.abort)
