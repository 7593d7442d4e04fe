import asyncio

import pytest

from hermes.gateway.replicate_api import _event, _stream, wait_seconds
from hermes.gateway.run import Run


def run_of(*pieces, status="succeeded", logs="", error=None):
    run = Run({"prompt": "Hi"})
    for piece in pieces:
        run.add(piece)
    run.status, run.logs, run.error, run.ended = status, logs, error, run.created
    return run


def events(run, *start):
    async def main():
        return "".join([text async for text in _stream(run, *(start or (0, 0)))])

    return [
        dict(line.split(": ", 1) for line in each.splitlines()) for each in asyncio.run(main()).split("\n\n") if each
    ]


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [("", 0), ("respond-async", 0), ("wait", 60), ("wait=5", 5), ("wait=500", 60), ("respond-async, wait=3", 3)],
)
def test_how_long_a_client_wants_to_wait(prefer, seconds):
    assert wait_seconds(prefer) == seconds


def test_a_newline_is_a_line_of_data_whatever_it_is():
    """replicate's client ends a line at each of these, and loses what follows."""
    assert (
        _event("output", "1:0", "a\nb\u2028c\x85d") == "event: output\nid: 1:0\ndata: a\ndata: b\ndata: c\ndata: d\n\n"
    )
    assert _event("output", "1:0", " a\r\n") == "event: output\nid: 1:0\ndata:  a\ndata: \n\n"


@pytest.mark.parametrize("scheme", ["https", "data"])
def test_no_piece_looks_like_a_file(scheme):
    run = run_of("See ", f"{scheme}://x", f"{scheme}: y")
    assert run.output == ["See ", scheme, "://x", scheme, ": y"]
    assert "".join(run.output) == f"See {scheme}://x{scheme}: y"


def test_a_stream_tells_all_and_how_it_ended():
    assert events(run_of("a", "b", logs="said")) == [
        {"event": "output", "id": "1:0", "data": "a"},
        {"event": "output", "id": "2:0", "data": "b"},
        {"event": "logs", "id": "2:4", "data": "said"},
        {"event": "done", "id": "2:4", "data": "{}"},
    ]
    assert events(run_of("a", status="canceled"))[-1] == {
        "event": "done",
        "id": "1:0",
        "data": '{"reason": "canceled"}',
    }
    assert events(run_of(status="failed", error="E1203 x"))[0] == {
        "event": "error",
        "id": "0:0",
        "data": '{"detail": "E1203 x"}',
    }


def test_a_stream_goes_on_after_what_was_read():
    assert events(run_of("a", "b", "c", logs="said"), 2, 4) == [
        {"event": "output", "id": "3:4", "data": "c"},
        {"event": "done", "id": "3:4", "data": "{}"},
    ]
