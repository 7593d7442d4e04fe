"""Patience with a host, bytes that arrive whatever happens, and texts that give no secret away."""

import threading
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes.errors import WeightsError
from hermes.weights.remote import Attempts, Interrupted, Patience, PermanentFault, Stopped, steadily

AT_ONCE = Patience(attempts=3, first_wait=0)
CONTENT = bytes(range(256))


def attempts(patience=AT_ONCE, stop=None):
    return Attempts("hf://o/r@main: a.bin", patience, stop or threading.Event())


class FlakyFile:
    """Gives its bytes as each run of a script says: sizes of pieces, then "fault" or "end". After that all goes well.

    With surplus, more bytes come than the file has.
    """

    def __init__(self, *runs, surplus=b""):
        self.runs = list(runs)
        self.content = CONTENT + surplus
        self.offsets = []

    def read(self, offset):
        self.offsets.append(offset)
        sizes, ending = self.runs.pop(0) if self.runs else ([100] * 4, "end")
        for size in sizes:
            yield self.content[offset : offset + size]
            offset += size
        if ending == "fault":
            raise Interrupted("reset by peer")


def arrived(file, start, end, patience=AT_ONCE):
    return b"".join(map(bytes, steadily(file.read, start, end, attempts(patience))))


def test_a_transfer_goes_on_where_it_was_interrupted():
    file = FlakyFile(([10, 20], "fault"), ([], "fault"), ([5], "end"))
    assert arrived(file, 3, 200) == CONTENT[3:200]
    assert file.offsets == [3, 33, 33, 38]


def test_nothing_is_asked_for_when_nothing_is_missing():
    file = FlakyFile()
    assert (arrived(file, 7, 7), file.offsets) == (b"", [])


def test_an_unknown_end_is_where_the_host_ends():
    assert arrived(FlakyFile(([10], "fault")), 0, None) == CONTENT


def test_a_host_that_never_ends_is_not_read_past_the_end():
    file = FlakyFile(([100] * 10_000, "end"), surplus=bytes(1_000_000))
    pieces = steadily(file.read, 0, 256, attempts())
    assert [len(piece) for piece in pieces] == [100, 100, 56]


def test_an_answer_that_ends_early_is_a_fault_and_says_so():
    with pytest.raises(WeightsError) as raised:
        arrived(FlakyFile(([10], "end"), ([], "end"), ([], "end"), ([], "end")), 0, 256)
    assert str(raised.value) == (
        "E1000 WeightsError: weights 'hf://o/r@main: a.bin': the download failed 3 times in a row "
        "(it ended after 10 of 256 bytes); start again when the cause is gone; a fetch resumes where it can"
    )


def test_empty_pieces_are_no_progress():
    with pytest.raises(WeightsError, match="failed 3 times in a row"):
        arrived(FlakyFile(*[([0, 0], "fault")] * 3), 0, 256)


@settings(max_examples=60, deadline=None)
@given(
    runs=st.lists(st.tuples(st.lists(st.integers(0, 90), max_size=4), st.sampled_from(["end", "fault"])), max_size=8),
    bounds=st.tuples(st.integers(0, 256), st.integers(0, 256)).map(sorted),
    surplus=st.binary(max_size=50),
)
def test_exactly_the_bytes_from_start_to_end_arrive_whatever_happens(runs, bounds, surplus):
    start, end = bounds
    file = FlakyFile(*runs, surplus=surplus)
    assert arrived(file, start, end, Patience(attempts=9, first_wait=0)) == CONTENT[start:end]
    assert all(before <= after for before, after in pairwise(file.offsets))


def test_only_failures_in_a_row_count():
    tried = attempts()
    for _ in range(5):
        tried.failed(Interrupted("reset"))
        tried.failed(Interrupted("reset"))
        tried.progressed()
    tried.failed(Interrupted("reset"))
    tried.failed(Interrupted("reset"))
    with pytest.raises(WeightsError, match=r"failed 3 times in a row \(timeout\); start again"):
        tried.failed(Interrupted("timeout"))


def test_a_transfer_that_nobody_wants_stops_at_its_next_byte_and_does_not_wait():
    stop = threading.Event()
    tried = attempts(Patience(first_wait=3600), stop)
    tried.progressed()
    stop.set()
    with pytest.raises(Stopped):
        tried.progressed()
    with pytest.raises(Stopped):
        tried.failed(Interrupted("reset"))


def test_the_wait_is_doubled_until_it_is_long_enough():
    waits = [Patience().wait(failures, None) for failures in range(1, 12)]
    expected = [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30]
    assert [least <= wait <= 1.5 * least for least, wait in zip(expected, waits, strict=True)] == [True] * 11


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [(None, 2, 3), (0.0, 2, 3), (1.0, 2, 3), (60.0, 60, 60), (600.0, 600, 600)],
)
def test_a_host_may_ask_for_a_longer_wait(retry_after, least, most):
    assert least <= Patience().wait(3, retry_after) <= most


@pytest.mark.parametrize("asked", [601.0, 86_400.0, float("inf")])
def test_a_wait_beyond_the_limit_is_an_error_that_says_both(asked):
    with pytest.raises(WeightsError) as raised:
        attempts(Patience()).failed(Interrupted("HTTP 429", asked))
    assert f"asks to wait {asked:.0f} s, and a fetch waits at most 600 s (HTTP 429); start again" in str(raised.value)


def test_the_log_says_that_it_waits_and_why(caplog):
    stop = threading.Event()
    stop.set()
    with caplog.at_level("INFO"), pytest.raises(Stopped):
        attempts(Patience(), stop).failed(Interrupted("HTTP 429 Too Many Requests", 178.0))
    said = "weights: hf://o/r@main: a.bin: waiting 178 s, as its host asks (HTTP 429 Too Many Requests)"
    assert caplog.messages == [said]


@pytest.mark.parametrize(("first_wait", "logged"), [(0.5, []), (5.0, ["weights: hf://o/r@main: a.bin: waiting"])])
def test_only_a_long_wait_is_logged_if_nobody_asked_for_it(caplog, first_wait, logged):
    stop = threading.Event()
    stop.set()
    with caplog.at_level("INFO"), pytest.raises(Stopped):
        attempts(Patience(first_wait=first_wait), stop).failed(Interrupted("reset"))
    assert [message.rpartition(" s (reset)")[0].rpartition(" ")[0] for message in caplog.messages] == logged


def test_a_lasting_fault_gets_one_more_attempt_and_is_not_called_a_failed_download():
    tried = attempts()
    tried.failed(PermanentFault("a page of HTML", "look at it"))
    tried.progressed()
    tried.failed(Interrupted("reset"))
    with pytest.raises(WeightsError, match=r"weights 'hf://o/r@main: a.bin': a page of HTML; look at it$"):
        tried.failed(PermanentFault("a page of HTML", "look at it"))
