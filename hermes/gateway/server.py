"""Serves the gateway by uvicorn, with the limits and the orderly stop that uvicorn 0.54 does not have.

The limits are connection.py's. At SIGTERM the gateway ends its predictions while their responses still stream, so each
gets its last event.
"""

import asyncio
import logging
import resource
import socket
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from hermes.gateway.connection import Protocol
from hermes.gateway.settings import GatewaySettings

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 75  # proxies keep an idle connection for 60 s, and must be the ones to close it
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
