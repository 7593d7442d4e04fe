"""The gateway's server in the test's own process, before an app that does what the test tells it to."""

import asyncio
from contextlib import asynccontextmanager, suppress

from hermes.devserver.server import free_port
from hermes.gateway import GatewaySettings
from hermes.gateway.server import Server, configuration

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


class App:
    """Answers each request at once, ends a response at /stream when `ended` is set, and begins one at /held later."""

    def __init__(self):
        self.requests, self.begun, self.ended, self.held = [], asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.requests.append(scope)
        while scope["path"] != "/stream" and (await receive()).get("more_body"):
            pass
        if scope["path"] == "/held":
            await self.held.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/stream":
            await send({"type": "http.response.body", "body": b"first ", "more_body": True})
            self.begun.set()
            await self.ended.wait()
        await send({"type": "http.response.body", "body": b"last" * (2**22 if scope["path"] == "/large" else 1)})


@asynccontextmanager
async def serving(app, stop=None, **settings):
    """The server, and a function that connects to it."""

    async def nothing():
        return

    config = configuration(app, GatewaySettings(port=free_port(), **settings))
    server = Server(config, stop or nothing, seconds=60)
    running = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0)
    writers = []

    async def connect():
        reader, writer = await asyncio.open_connection("127.0.0.1", config.port)
        writers.append(writer)
        return reader, writer

    try:
        yield server, connect
    finally:
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
        server.should_exit = server.force_exit = True
        await running


def run(test):
    async def limited():
        async with asyncio.timeout(30):
            await test(App())

    loops = configuration(App(), GatewaySettings()).get_loop_factory()
    with asyncio.Runner(loop_factory=loops) as runner:  # as in production, uvloop's
        runner.run(limited())


async def answered(connect, sent):
    """All that comes back until the connection is closed."""
    reader, writer = await connect()
    with suppress(ConnectionError):
        writer.write(sent)
        return await reader.read()
    return b""
