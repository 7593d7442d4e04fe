"""A connection to the gateway, in this process: limits, idle ones, HTTP/1.0, and clients that close their side."""

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import SimpleNamespace

import pytest
from uvicorn.server import ServerState

from hermes.gateway import GatewaySettings, server
from hermes.gateway import connection as module
from hermes.gateway.connection import HEADER_BYTES, HEADERS, PIPELINED, SEND_BUFFER, WRITE_BYTES, Protocol
from hermes.gateway.server import configuration
from tests.support.raw_server import GET, answered, run, serving


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
    monkeypatch.setattr(server, "CONNECTIONS", 4)

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
    monkeypatch.setattr(server, "CONNECTIONS", 2)

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


OLD = GET.replace(b"HTTP/1.1", b"HTTP/1.0")
TO_STREAM = (GET.replace(b"/ ", b"/stream "), OLD.replace(b"/ ", b"/stream "))


def split(answer):
    """The headers of an answer, and its body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.lower(), body


@pytest.mark.parametrize("more", [b"", b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\nContent-Length: 0\r\n"])
def test_a_response_to_http_1_0_has_no_chunks_and_ends_with_the_connection(more):
    async def test(app):
        async with serving(app) as (_, connect):
            head, body = split(await answered(connect, OLD + more + b"\r\n"))
            assert b"\r\nconnection: close" in head
            assert b"transfer-encoding" not in head
            assert body == b"last"
            assert split(await answered(connect, OLD.replace(b"GET", b"HEAD") + b"\r\n"))[1] == b""
            assert len(split(await answered(connect, OLD.replace(b"/ ", b"/large ") + b"\r\n"))[1]) == 2**24

    run(test)


def test_a_stream_to_http_1_0_comes_piece_by_piece():
    async def test(app):
        async with serving(app) as (_, connect):
            reader, writer = await connect()
            writer.write(TO_STREAM[1] + b"\r\n")
            assert (await reader.readuntil(b"first ")).endswith(b"\r\n\r\nfirst ")
            app.ended.set()
            assert await reader.read() == b"last"

    run(test)


@pytest.mark.parametrize("asked", [GET, GET.replace(b"/ ", b"/large "), OLD, GET + b"\r\n" + GET, GET + b"\r\n" + OLD])
def test_a_client_that_closes_its_side_at_once_gets_its_answers(asked):
    async def test(app):
        async with serving(app) as (server, connect):
            reader, writer = await connect()
            writer.write(asked + b"\r\n")
            writer.write_eof()
            answer = await reader.read()
            assert answer.count(b" 200 OK") == asked.count(b" /")
            assert answer.endswith(b"last" if OLD in asked else b"last\r\n0\r\n\r\n")
            await closed(server)

    run(test)


@pytest.mark.parametrize("asked", TO_STREAM, ids=["HTTP/1.1", "HTTP/1.0"])
def test_a_client_that_closes_its_side_gets_the_rest_of_its_stream(monkeypatch, asked):
    monkeypatch.setattr(module, "RESET_SECONDS", 0.01)

    async def test(app):
        async with serving(app) as (server, connect):
            reader, writer = await connect()
            writer.write(asked + b"\r\n")
            head = await reader.readuntil(b"first ")
            writer.write_eof()
            [connection] = server.server_state.connections
            await looked(connection, 3)
            app.ended.set()
            rest = await reader.read()
            assert rest == (b"\r\n0004\r\nlast\r\n0\r\n\r\n" if b"chunked" in head else b"last")
            await closed(server)

    run(test)


@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b""], ids=["HTTP/1.1", "HTTP/1.0"])
def test_before_its_response_a_client_that_closed_its_side_is_waited_for_if_it_can_be_asked(monkeypatch, interim):
    monkeypatch.setattr(module, "RESET_SECONDS", 0.01)

    async def test(app):
        async with serving(app) as (server, connect):
            reader, writer = await connect()
            writer.write((GET if interim else OLD).replace(b"/ ", b"/held ") + b"\r\n")
            writer.write_eof()
            if interim:
                assert await reader.readuntil(b"\r\n\r\n") == interim
                [connection] = server.server_state.connections
                await looked(connection, module.PROBES + 1)
                app.held.set()
                head, _, answer = (await reader.read()).partition(b"HTTP/1.1 200 OK")
                assert head == interim * (module.PROBES - 1)
                assert answer.endswith(b"last\r\n0\r\n\r\n")
            else:
                with suppress(ConnectionError):
                    assert await reader.read() == b""
            await closed(server)
            app.held.set()

    run(test)


@pytest.mark.parametrize("path", [b"/held ", b"/stream "])
@pytest.mark.parametrize("version", [GET, OLD], ids=["HTTP/1.1", "HTTP/1.0"])
def test_a_client_that_is_gone_is_noticed_though_nothing_is_written(path, version):
    async def test(app):
        async with serving(app) as (server, connect):
            reader, writer = await connect()
            writer.write(version.replace(b"/ ", path) + b"\r\n")
            while not app.requests:
                await asyncio.sleep(0)
            if path == b"/stream ":
                await reader.readuntil(b"first ")
            writer.close()
            if version == OLD and path == b"/stream ":
                app.ended.set()  # cannot be asked; what is written next is
            async with asyncio.timeout(2 * module.RESET_SECONDS):
                await closed(server)
            app.held.set()
            app.ended.set()

    run(test)


@pytest.mark.parametrize("path", [b"/held ", b"/stream "])
def test_a_client_that_is_gone_behind_a_relay_is_noticed(monkeypatch, path):
    monkeypatch.setattr(module, "RESET_SECONDS", 0.05)

    async def test(app):
        async with serving(app) as (server, connect), relayed(connect) as connect_relayed:
            reader, writer = await connect_relayed()
            writer.write(GET.replace(b"/ ", path) + b"\r\n")
            while not app.requests:
                await asyncio.sleep(0)
            if path == b"/stream ":
                await reader.readuntil(b"first ")
            writer.close()
            await closed(server)
            app.held.set()
            app.ended.set()

    run(test)


@pytest.mark.parametrize("sent", [b"", GET[:20], GET + b"Content-Length: 9\r\n\r\nhalf", GET + b"\r\n"])
def test_a_client_that_closes_its_side_with_nothing_to_be_answered_is_gone(sent):
    async def test(app):
        async with serving(app) as (server, connect):
            reader, writer = await connect()
            writer.write(sent)
            if sent.endswith(b"\r\n\r\n"):
                await reader.readuntil(b"0\r\n\r\n")
            writer.write_eof()
            with suppress(ConnectionError):
                assert await reader.read() == b""
            await closed(server)

    run(test)


@asynccontextmanager
async def relayed(connect):
    """A relay to the server as docker-proxy is one: it passes on each side's end, and only then closes."""

    async def forward(reader, writer):
        with suppress(ConnectionError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
            writer.write_eof()

    async def relay(reader, writer):
        to_read, to_write = await connect()
        await asyncio.gather(forward(reader, to_write), forward(to_read, writer))
        for each in (writer, to_write):
            each.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield partial(asyncio.open_connection, *server.sockets[0].getsockname())


async def closed(server):
    """Wait until the server has no connection."""
    while server.server_state.connections:
        await asyncio.sleep(0.001)


async def looked(connection, times):
    """Wait until a connection has looked for a reset so many times."""
    for _ in range(times):
        before = connection._half_closed
        while connection._half_closed is before:
            await asyncio.sleep(0.001)
