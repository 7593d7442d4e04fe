"""The server before the gateway, in this process: limits on headers, idle connections, and the stop."""

import asyncio
import signal
import socket
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace

import pytest
from uvicorn.server import ServerState

from hermes.devserver.server import free_port
from hermes.gateway import GatewaySettings
from hermes.gateway import server as module
from hermes.gateway.server import (
    HEADER_BYTES,
    HEADERS,
    PIPELINED,
    SEND_BUFFER,
    WRITE_BYTES,
    Protocol,
    Server,
    configuration,
)

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


class App:
    """Answers each request at once, or at /stream when `ended` is set."""

    def __init__(self):
        self.requests, self.begun, self.ended = [], asyncio.Event(), asyncio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.requests.append(scope)
        while scope["path"] != "/stream" and (await receive()).get("more_body"):
            pass
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


def test_an_idle_connection_outlives_that_of_a_proxy_and_proxies_are_left_to_the_gate():
    config = configuration(App(), GatewaySettings())
    assert config.timeout_keep_alive > 60
    assert not config.proxy_headers
    config.load()
    assert config.loaded_app.__class__ is App, "no middleware of uvicorn's"


def test_an_idle_connection_takes_a_next_request_after_the_time_for_headers(monkeypatch):
    monkeypatch.setattr(module, "HEADER_SECONDS", 0.01)

    async def test(app):
        async with serving(app) as (_, connect):
            reader, writer = await connect()
            for _ in range(2):
                writer.write(GET + b"\r\n")
                assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
                await asyncio.sleep(0.05)
        assert len(app.requests) == 2

    run(test)


@pytest.mark.parametrize(
    "sent",
    [b"", GET, GET + b"X: ", b"\r\n", GET + b"\r\n" + b"\r\n", GET + b"\r\n" + GET],
    ids=["nothing", "a part", "half a header", "an empty line", "an empty line later", "a part later"],
)
def test_a_connection_whose_headers_do_not_come_is_closed(monkeypatch, sent):
    monkeypatch.setattr(module, "HEADER_SECONDS", 0.01)

    async def test(app):
        async with serving(app) as (_, connect):
            reader, writer = await connect()
            whole, begun = sent.count(GET + b"\r\n"), sent.removeprefix(GET + b"\r\n")
            if whole:
                writer.write(GET + b"\r\n")
                await reader.readuntil(b"0\r\n\r\n")
            writer.write(begun)
            with suppress(ConnectionError):
                assert await reader.read() == b""
            assert len(app.requests) == whole

    run(test)


def test_a_byte_now_and_then_gains_no_time(monkeypatch):
    monkeypatch.setattr(module, "HEADER_SECONDS", 0.05)

    async def test(app):
        async with serving(app) as (_, connect):
            reader, writer = await connect()
            closed = asyncio.create_task(reader.read())
            with suppress(ConnectionError):
                while not closed.done():
                    writer.write(b"G" if not app.requests else b"x")
                    await asyncio.sleep(0.01)
                await closed
            assert not app.requests

    run(test)


@pytest.mark.parametrize(
    "sent",
    [
        GET + b"X: " + b"x" * 10 * HEADER_BYTES,
        b"GET /" + b"x" * 10 * HEADER_BYTES,
        GET + b"X: " + b"x" * HEADER_BYTES + b"\r\n\r\n",
        b"GET /" + b"x" * HEADER_BYTES + b" HTTP/1.0\r\n\r\n",
        GET.replace(b"/ ", b"/" + b"x" * (HEADER_BYTES // 2) + b" ")
        + b"X: "
        + b"x" * (HEADER_BYTES // 2)
        + b"\r\n\r\n",
        GET + b"X: x\r\n" * HEADERS + b"\r\n",
        (GET.replace(b"/ ", b"/stream ") + b"\r\n") * (PIPELINED + 2),
        GET.replace(b"GET / ", b"POST /stream ")
        + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: "
        + b"x" * 10 * HEADER_BYTES,
        GET.replace(b"GET / ", b"POST /stream ")
        + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: "
        + b"x" * HEADER_BYTES
        + b"\r\n\r\n",
    ],
    ids=[
        "a long header",
        "a long path",
        "a long header that ends",
        "a long path that ends",
        "a path and a header that are long together",
        "many headers",
        "many pipelined requests",
        "a long trailer",
        "a long trailer that ends",
    ],
)
def test_what_is_no_body_has_a_limit(sent):
    async def test(app):
        async with serving(app) as (server, connect):
            answer = await answered(connect, sent)
            assert not answer or b"HTTP/1.1 400 Bad Request" in answer
            app.ended.set()
            while server.server_state.connections:
                await asyncio.sleep(0)

    run(test)


@pytest.mark.parametrize(
    "framed",
    [
        b"Content-Length: 1000000\r\n\r\n" + b"x" * 10**6,
        b"Transfer-Encoding: chunked\r\n\r\n" + (b"2710\r\n" + b"x" * 10_000 + b"\r\n") * 100 + b"0\r\n\r\n",
    ],
    ids=["with a length", "in chunks"],
)
def test_a_body_is_no_header(framed):
    async def test(app):
        async with serving(app) as (_, connect):
            sent = GET.replace(b"GET", b"POST") + b"Connection: close\r\n" + framed
            assert (await answered(connect, sent)).startswith(b"HTTP/1.1 200 OK")

    run(test)


def test_a_response_that_nobody_reads_is_broken_off(monkeypatch):
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.01)

    async def test(app):
        async with serving(app) as (server, connect):
            _, writer = await connect()
            writer.transport.pause_reading()
            writer.write(GET.replace(b"/ ", b"/large ") + b"\r\n")
            while not app.requests or server.server_state.connections:
                await asyncio.sleep(0.001)

    run(test)


def test_a_large_response_that_is_read_is_whole(monkeypatch):
    monkeypatch.setattr(module, "WRITE_SECONDS", 5)

    async def test(app):
        async with serving(app) as (_, connect):
            sent = GET.replace(b"/ ", b"/large ") + b"Connection: close\r\n\r\n"
            assert len(await answered(connect, sent)) > 2**24

    run(test)


def test_the_kernel_takes_little_of_a_response_that_nobody_reads():
    async def test(app):
        async with serving(app) as (server, connect):
            await connect()
            while not server.server_state.connections:
                await asyncio.sleep(0)
            [connection] = server.server_state.connections
            taken = connection.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            assert taken <= 2 * SEND_BUFFER

    run(test)


def test_a_client_that_reads_slowly_but_steadily_is_waited_for():
    class Transport:
        left, closed = 10 * WRITE_BYTES, False

        def get_write_buffer_size(self):
            return self.left

        def abort(self):
            self.closed = True

    class Loop:
        def call_later(self, seconds, check, *args):
            self.later = lambda: check(*args)
            return SimpleNamespace(cancel=lambda: None)

    connection = Protocol.__new__(Protocol)
    connection.transport, connection.loop = Transport(), Loop()
    connection.flow = SimpleNamespace(pause_writing=lambda: None)
    connection.pause_writing()
    for _ in range(8):
        connection.transport.left -= WRITE_BYTES
        connection.loop.later()
        assert not connection.transport.closed
    connection.transport.left -= WRITE_BYTES - 1
    connection.loop.later()
    assert connection.transport.closed


@pytest.mark.parametrize("sent", [b"", GET + b"X: x", GET + b"\r\n"], ids=["nothing", "a part", "a whole request"])
def test_a_new_connection_takes_the_place_of_the_one_that_is_idle_for_the_longest_time(monkeypatch, sent):
    monkeypatch.setattr(module, "CONNECTIONS", 4)

    async def test(app):
        async with serving(app) as (server, connect):
            idle = []
            for number in range(1, 4):
                idle.append(await connect())
                idle[-1][1].write(sent)
                while len(server.server_state.connections) < number or len(app.requests) < number * sent.endswith(
                    b"\r\n\r\n"
                ):
                    await asyncio.sleep(0)
                if app.requests:
                    await idle[-1][0].readuntil(b"0\r\n\r\n")
            reader, writer = await connect()
            writer.write(GET + b"\r\n")  # as a load balancer does
            assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
            with suppress(ConnectionError):
                assert await idle[0][0].read() == b""
            assert len(server.server_state.connections) == 3
            assert set(server.server_state.connections) == set(Protocol.idle)

    run(test)


def test_a_connection_that_makes_room_is_not_counted_any_more():
    ends = []

    class Transport:
        closed = False

        def get_extra_info(self, name):
            return ends[0] if name == "socket" else None

        def abort(self):
            self.closed = True  # and connection_lost comes later

    async def test(app):
        ends.extend(socket.socketpair())
        config = configuration(app, GatewaySettings())
        config.limit_concurrency = 4
        state = ServerState()
        made = [Protocol(config, state, {}) for _ in range(8)]
        for connection in made:
            connection.connection_made(Transport())
        assert state.connections == set(made[-3:])
        assert [each.transport.closed for each in made] == [True] * 5 + [False] * 3
        for connection in made:
            connection.connection_lost(OSError())
        for end in ends:
            end.close()
        assert not Protocol.idle

    run(test)


def test_where_all_connections_have_requests_one_more_gets_503_and_others_are_closed(monkeypatch):
    monkeypatch.setattr(module, "CONNECTIONS", 2)

    async def test(app):
        async with serving(app) as (server, connect):
            _, writer = await connect()
            writer.write(GET.replace(b"/ ", b"/stream ") + b"\r\n")
            await app.begun.wait()
            assert (await answered(connect, GET + b"\r\n")).startswith(b"HTTP/1.1 503 Service Unavailable")
            others = [await connect() for _ in range(50)]
            closed = [asyncio.create_task(reader.read()) for reader, _ in others]
            while sum(task.done() for task in closed) < 49:
                await asyncio.sleep(0)
            await asyncio.wait(closed, timeout=0)
            assert len(server.server_state.connections) == 2
            for task in closed:
                task.cancel()
            await asyncio.gather(*closed, return_exceptions=True)
            app.ended.set()

    run(test)


def test_at_the_stop_a_response_that_nobody_reads_is_broken_off_without_a_traceback(caplog):
    async def test(app):
        async with serving(app) as (server, connect):
            _, writer = await connect()
            writer.transport.pause_reading()
            writer.write(GET.replace(b"/ ", b"/large ") + b"\r\n")
            while not app.requests:
                await asyncio.sleep(0)
            server._seconds = 0.01
            server.should_exit = True
            while server.lifespan.shutdown_event.is_set() is False:
                await asyncio.sleep(0.01)

    run(test)
    assert caplog.text == ""


def test_at_the_stop_a_stream_gets_its_end_and_new_connections_are_refused():
    async def test(app):
        stopping = asyncio.Event()

        async def stop():
            stopping.set()
            await app.ended.wait()

        async with serving(app, stop) as (server, connect):
            reader, writer = await connect()
            idle, _ = await connect()
            writer.write(GET.replace(b"/ ", b"/stream ") + b"\r\n")
            await app.begun.wait()
            server.should_exit = True
            await stopping.wait()
            assert await idle.read() == b""
            with pytest.raises(ConnectionRefusedError):
                await connect()
            app.ended.set()
            assert (await reader.read()).endswith(b"last\r\n0\r\n\r\n")

    run(test)


def test_a_second_interrupt_ends_at_once():
    async def test(app):
        stopping, ended = asyncio.Event(), []

        async def stop():
            stopping.set()
            await asyncio.Event().wait()

        async with serving(app, stop) as (server, connect):
            reader, writer = await connect()
            writer.write(GET.replace(b"/ ", b"/stream ") + b"\r\n")
            await app.begun.wait()
            server.handle_exit(signal.SIGINT, None)
            await stopping.wait()
            server.handle_exit(signal.SIGINT, None)
            with suppress(ConnectionError):
                ended.append(await reader.read())
            assert not app.ended.is_set()
            app.ended.set()

    run(test)


def test_predictions_that_do_not_end_are_left_after_the_time_for_them(caplog):
    async def test(app):
        async def stop():
            await asyncio.Event().wait()

        async with serving(app, stop) as (server, _):
            server._seconds = 0
            server.should_exit = True
            while server.lifespan.shutdown_event.is_set() is False:
                await asyncio.sleep(0.01)

        async def broken():
            raise OSError("the disk is full")

        async with serving(app, broken) as (server, _):
            server.should_exit = True
            while server.lifespan.shutdown_event.is_set() is False:
                await asyncio.sleep(0.01)

    run(test)
    assert "could not be ended: OSError('the disk is full')" in caplog.text
