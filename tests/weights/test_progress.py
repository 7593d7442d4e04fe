"""What is said of a download while it goes on, and that nothing is said after it."""

import io
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr

import pytest

from hermes.weights import progress as module
from hermes.weights.progress import Progress, line, shown


@pytest.fixture(autouse=True)
def nothing_goes_on_afterwards():
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name == "weights progress"] == []


def counted(progress):
    return progress.done, progress.fetched, progress.files_done


def test_what_came_in_this_run_is_told_from_what_was_there():
    progress = Progress()
    progress.was_there(100)
    progress.arrived(20)
    progress.finished_file()
    assert counted(progress) == (120, 20, 1)
    progress.was_there(-20)  # it was of no use
    assert counted(progress) == (100, 20, 1)
    progress.reset()
    assert counted(progress) == (0, 20, 0)


def test_only_bytes_that_come_are_an_arrival():
    progress = Progress()
    before = progress.last_arrival
    progress.was_there(1)
    progress.finished_file()
    assert progress.last_arrival == before
    progress.arrived(1)
    assert before < progress.last_arrival <= time.monotonic()


def test_threads_lose_no_byte_of_the_count():
    progress = Progress()
    with ThreadPoolExecutor(4) as threads:
        for _ in range(4):
            threads.submit(lambda: [progress.arrived(1) for _ in range(1000)])
    assert counted(progress) == (4000, 4000, 0)


LINES = {
    "a model half way": (
        Progress(total=141_107_500_000, files=38, done=12_300_000_000, files_done=2),
        612e6,
        "m:   9% 12.3G/141G [00:20<03:30, 612MB/s, 2/38 files]",
    ),
    "nothing comes": (Progress(total=2 * 10**9, files=1), 0.0, "m:   0% 0.00/2.00G [00:20<?, ?B/s, 0/1 files]"),
    "an archive of unknown size": (Progress(done=5 * 10**9, files_done=4), 5e6, "m: 5.00GB [00:20, 5.00MB/s, 4 files]"),
    "nothing to fetch": (Progress(total=0, files=1), 0.0, "m: 0.00B [00:20, ?B/s, 0/1 files]"),
    "more than was announced": (Progress(total=10**9, done=2 * 10**9), 1e8, "m: 2.00GB [00:20, 100MB/s, 0 files]"),
}


@pytest.mark.parametrize(("progress", "rate", "text"), LINES.values(), ids=LINES)
def test_a_line_says_what_is_known(progress, rate, text):
    assert line(progress, "m", 20, rate) == text


def wait_for(condition):
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)


def test_a_log_gets_a_line_now_and_then_with_the_rate_since_the_last(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "hermes")
    monkeypatch.setattr(module, "LINE_SECONDS", 0.02)
    progress = Progress(total=8 * 10**9, files=2)
    with shown(progress, "owner--repo"):
        progress.arrived(4 * 10**9)
        wait_for(lambda: len(caplog.messages) >= 2)
    first, second = caplog.messages[:2]
    assert first.startswith("weights: owner--repo:  50% 4.00G/8.00G [00:00<00:00, ")
    assert first.endswith("B/s, 0/2 files]")
    assert second == "weights: owner--repo:  50% 4.00G/8.00G [00:00<?, ?B/s, 0/2 files]"


def test_a_short_download_says_nothing_and_waits_for_nothing(caplog):
    caplog.set_level(logging.INFO, "hermes")
    began = time.monotonic()
    with shown(Progress(), "owner--repo"):
        pass
    assert caplog.messages == []
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_showing_ends_with_a_block_that_fails(error):
    with pytest.raises(error), shown(Progress(), "owner--repo"):
        raise error


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_one_line_that_changes(monkeypatch):
    monkeypatch.setattr(module, "TERMINAL_SECONDS", 0.01)
    progress, terminal = Progress(total=2 * 10**9, files=3), Terminal()
    with redirect_stderr(terminal), shown(progress, "owner--repo"):
        progress.arrived(10**9)
        progress.finished_file()
        wait_for(lambda: "1/3 files" in terminal.getvalue())
    assert terminal.getvalue().startswith("\r")
    assert terminal.getvalue().endswith("\n")
    last = terminal.getvalue().split("\r")[-1]
    assert last.startswith("owner--repo:  50% 1.00G/2.00G [")
    assert "1/3 files" in last
