"""A stop string outside calls ends the response, and the engine's work on it."""

import asyncio

import pytest

from hermes.engine import Chunk
from hermes.serving.stopping import until_stop
from tests.support.fakes import FakeEngine

CALL = '<tool_call>\n{"arguments": {}, "name": "f"}\n</tool_call>'


def chunks(engine, stops, min_tokens=0):
    taken = []
    asyncio.run(engine.generate([1], None, until_stop(taken.append, stops, min_tokens)))
    return taken


def test_the_response_ends_at_the_stop_string_and_the_engine_is_left():
    engine = FakeEngine([Chunk("So E", 1), Chunk("ND x", 2), Chunk(" more", 1), Chunk("", 1, "length")])
    assert chunks(engine, ["END"]) == [Chunk("So ", 1), Chunk("", 2, "stop")]
    assert engine.unfinished == 0


@pytest.mark.parametrize("stop", ["\n", "}", '"', ",", "<tool_call>", "</tool_call>"])
def test_a_call_is_never_cut(stop):
    engine = FakeEngine([*(Chunk(each, 1) for each in CALL), Chunk("", 1, "stop")])
    assert "".join(chunk.text for chunk in chunks(engine, [stop])) == CALL


def test_what_was_held_back_comes_with_the_end():
    engine = FakeEngine([Chunk("a E", 1), Chunk("N", 1, "length")])
    assert chunks(engine, ["END"]) == [Chunk("a ", 1), Chunk("EN", 1, "length")]


def test_a_stop_string_counts_only_after_min_tokens():
    engine = FakeEngine([Chunk("END ", 2), Chunk("EN", 1), Chunk("D so", 1), Chunk("", 1, "stop")])
    assert chunks(engine, ["END"], min_tokens=3) == [Chunk("END ", 2), Chunk("", 1), Chunk("", 1, "stop")]
