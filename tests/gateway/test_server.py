"""The server before the gateway, in this process: its configuration, and the stop."""

import asyncio
import signal
from contextlib import suppress

import pytest

from hermes.gateway import GatewaySettings
from hermes.gateway.server import configuration
from tests.support.raw_server import GET, App, run, serving


def test_an_idle_connection_outlives_that_of_a_proxy_and_proxies_are_left_to_the_gate():
    config = configuration(App(), GatewaySettings())
    assert config.timeout_keep_alive > 60
    assert not config.proxy_headers
    config.load()
    assert config.loaded_app.__class__ is App, "no middleware of uvicorn's"


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
