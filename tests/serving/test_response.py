"""A response is written to a function, or read piece by piece."""

import asyncio
import gc
import logging
from contextlib import aclosing, suppress

import pytest

from hermes.serving.response import Response
from tests.support.garbage import assert_goes_at_once


def response(*pieces, then=None):
    """One of these pieces. Then it raises something, or waits for ever if it is told to raise nothing."""

    async def write_to(put):
        for piece in pieces:
            await asyncio.sleep(0)
            put(piece)
        if isinstance(then, Exception):
            raise then
        if then:
            await then.wait()

    return Response(write_to)


async def pieces_of(read):
    return [piece async for piece in read]


def test_it_is_written_or_read():
    written = []
    asyncio.run(response("a", "b").write_to(written.append))
    assert written == asyncio.run(pieces_of(response("a", "b"))) == ["a", "b"]


def test_a_piece_is_read_before_the_next_is_written():
    async def read():
        async with aclosing(aiter(response("a", then=asyncio.Event()))) as pieces:
            return await anext(pieces)

    assert asyncio.run(read()) == "a"


def test_an_error_comes_after_the_pieces_before_it():
    async def read():
        pieces = aiter(response("a", then=ValueError("broken")))
        first = await anext(pieces)
        with pytest.raises(ValueError, match="broken"):
            await anext(pieces)
        return first

    assert asyncio.run(read()) == "a"


def test_whoever_leaves_waits_until_the_writing_has_ended():
    ended = []

    async def write_to(put):
        put("a")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.append(True)

    async def leave():
        pieces = aiter(Response(write_to))
        await anext(pieces)
        await pieces.aclose()
        return list(ended)

    assert asyncio.run(leave()) == [True]


def test_an_error_that_nobody_has_read_is_not_in_the_log(caplog):
    async def leave():
        pieces = aiter(response("a", then=ValueError("broken")))
        await anext(pieces)
        await asyncio.sleep(0.01)
        await pieces.aclose()

    with caplog.at_level(logging.DEBUG, "asyncio"):
        asyncio.run(leave())
        gc.collect()
    assert [each for each in caplog.messages if "never retrieved" in each] == []


def test_the_inputs_of_one_that_failed_do_not_wait_for_the_garbage_collector():
    async def read(inputs):
        async def write_to(put):
            put("a" if inputs else "b")
            raise ValueError

        with suppress(ValueError):
            await pieces_of(Response(write_to))

    assert_goes_at_once(lambda inputs: asyncio.run(read(inputs)))
