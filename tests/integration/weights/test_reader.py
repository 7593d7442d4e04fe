import threading
import time
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes.errors import WeightsError
from hermes.weights import http, reader
from hermes.weights.http import HttpFile, Session
from hermes.weights.progress import Progress
from hermes.weights.reader import Download, Reader
from tests.support.asking import until
from tests.support.faults import NoRange, Reset, Stall, Status, Truncate
from tests.support.file_server import FileServer
from tests.support.tiny_models import QUICK, WEIGHTS

SIZE = len(WEIGHTS)
READS = st.tuples(st.just("read"), st.integers(0, 300))
PIECES = st.tuples(st.just("pieces"), st.integers(0, 300))
SEEKS = st.tuples(st.just("seek"), st.integers(0, 1200))


def in_pieces(data, sizes):
    """Gives `data` from an offset on, in pieces of these sizes, over and over; each piece spoils the one before."""

    def pieces_from(offset):
        buffer, number = bytearray(max(sizes)), 0
        while piece := data[offset : offset + sizes[number % len(sizes)]]:
            buffer[:] = bytes(len(buffer))
            buffer[: len(piece)] = piece
            yield memoryview(buffer)[: len(piece)]
            offset, number = offset + len(piece), number + 1

    return pieces_from


@given(st.lists(READS | PIECES | SEEKS), st.lists(st.integers(1, 400), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_whatever_is_read_and_skipped_are_the_bytes_of_the_file(steps, sizes):
    data, at = WEIGHTS[:1000], 0
    reading = Reader(in_pieces(data, sizes))
    for step, number in steps:
        if step == "seek":
            assert reading.seek(number) == number
        else:
            found = reading.read(number) if step == "read" else b"".join(map(bytes, reading.pieces(number)))
            assert found == data[at : at + number]
        at = number if step == "seek" else at + len(found)
        assert reading.tell() == at


def test_a_short_way_is_read_over_and_a_long_one_is_jumped(monkeypatch):
    monkeypatch.setattr(reader, "SKIPPED", 100)
    asked = []
    reading = Reader(lambda offset: asked.append(offset) or in_pieces(WEIGHTS, [10])(offset))
    for offset in (50, 70, 80, 180, 500, 400):
        reading.seek(offset)
        assert reading.read(10) == WEIGHTS[offset : offset + 10]
    assert asked == [50, 500, 400]


@pytest.mark.parametrize("count", [http.PIECE + 1, -1, -512])
def test_a_header_of_no_sensible_size_is_not_read(count):
    with pytest.raises(ValueError, match="it has a header of"):
        Reader(in_pieces(WEIGHTS, [1000])).read(count)


@pytest.fixture
def server(monkeypatch):
    """With blocks of 4 kB, so that even a small file has some."""
    for name, value in {"BLOCK": 4000, "SKIPPED": 500, "LITTLE": 500}.items():
        monkeypatch.setattr(reader, name, value)
    monkeypatch.setattr(http, "PIECE", 1500)
    with FileServer() as server:
        yield server


@pytest.fixture
def session():
    with Session() as session:
        yield session


def download(server, session, progress, ranges=True, patience=QUICK):
    file = HttpFile(session, server.add_file("/m.tar", WEIGHTS, ranges=ranges), "m.tar")
    return Download(file, file.probe(), "m.tar", progress, patience)


@pytest.mark.parametrize("offset", [0, 12_345, SIZE - 10, SIZE])
def test_blocks_from_many_connections_come_in_order(server, session, offset):
    progress = Progress(total=SIZE)
    assert b"".join(map(bytes, download(server, session, progress).pieces(offset))) == WEIGHTS[offset:]
    assert (progress.done, progress.fetched) == (SIZE, SIZE - offset)


@pytest.mark.parametrize("fault", [Reset(2000), Truncate(2000), Status(503), NoRange()], ids=str)
def test_a_block_with_a_fault_comes_all_the_same(server, session, fault):
    progress = Progress(total=SIZE)
    pieces = download(server, session, progress).pieces(12_345)
    server.fail("/m.tar", fault, times=2)
    assert b"".join(map(bytes, pieces)) == WEIGHTS[12_345:]
    assert (progress.done, progress.fetched) == (SIZE, SIZE - 12_345)


def test_a_host_without_ranges_sends_all_of_it_again(server, session):
    progress = Progress(total=SIZE)
    pieces = download(server, session, progress, ranges=False).pieces
    server.fail("/m.tar", Reset(20_000))
    assert b"".join(map(bytes, pieces(5000))) == WEIGHTS[5000:]
    assert (progress.done, progress.fetched) == (SIZE, SIZE - 5000)


def test_what_was_read_ahead_of_a_jump_is_not_counted(server, session):
    progress = Progress(total=SIZE)
    with closing(Reader(download(server, session, progress).pieces)) as reading:
        for offset in (0, 6000, 29_000, 100):
            reading.seek(offset)
            assert reading.read(10) == WEIGHTS[offset : offset + 10]
            assert offset + 10 <= progress.done <= SIZE
    list(download(server, session, progress).pieces(0))
    assert progress.done == SIZE


def test_a_block_that_never_comes_is_an_error(server, session):
    pieces = download(server, session, Progress()).pieces(0)
    server.fail("/m.tar", Status(503), times=None)
    with pytest.raises(WeightsError, match=r"m.tar': the download failed 3 times in a row \(HTTP 503 "):
        next(pieces)


def test_nobody_waits_for_blocks_that_nobody_wants(server, session, monkeypatch):
    monkeypatch.setattr(reader, "BLOCK", 1000)
    pieces = download(server, session, Progress()).pieces(0)
    assert [next(pieces)[0] for _ in range(3)] == [WEIGHTS[0], WEIGHTS[500], WEIGHTS[1500]]
    until(lambda: server.bytes_sent == 1 + 500 + 9 * 1000, 60, "the blocks asked for are out")
    server.fail("/m.tar", Stall(100), times=None)
    assert next(pieces)[0] == WEIGHTS[2500]
    until(lambda: server.bytes_sent > 1 + 500 + 9 * 1000, 60, "the tenth is on its way")
    began = time.monotonic()
    pieces.close()
    assert time.monotonic() - began < 5
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("weights")] == []


def test_no_more_is_read_ahead_than_a_block_for_each_connection(server, session, monkeypatch):
    monkeypatch.setattr(reader, "BLOCK", 1000)
    pieces = download(server, session, Progress()).pieces(0)
    assert [next(pieces)[0] for _ in range(3)] == [WEIGHTS[0], WEIGHTS[500], WEIGHTS[1500]]
    time.sleep(0.02)
    assert server.bytes_sent <= 1 + 500 + (1 + reader.CONNECTIONS) * 1000
    pieces.close()
