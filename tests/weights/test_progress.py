"""What is said of a download while it goes on, and that nothing is said after it."""

import io
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr

import pytest

from hermes.weights import progress as module
from hermes.weights.progress import Progress, duration, line, shown


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
        "12.3 of 141.1 GB (8 %), 612 MB/s, 3 min 30 s left, 2 of 38 files",
    ),
    "a small one": (
        Progress(total=2_000_000, files=3, done=500_000),
        1e6,
        "0.5 of 2.0 MB (25 %), 1 MB/s, 2 s left, 0 of 3",
    ),
    "nothing comes": (Progress(total=2 * 10**9, files=1), 0.0, "0.0 of 2.0 GB (0 %), 0 MB/s, 0 of 1 files"),
    "an archive of unknown size": (Progress(done=5 * 10**9, files_done=4), 5e6, "5.0 GB, 5 MB/s, 4 files"),
    "a small archive of unknown size": (Progress(done=5_100_000), 5e6, "5.1 MB, 5 MB/s, 0 files"),
    "nothing to fetch": (Progress(total=0, files=1), 0.0, "0.0 MB, 0 MB/s, 0 of 1 files"),
    "at the end": (
        Progress(total=10**9, files=2, done=10**9, files_done=2),
        1e8,
        "1.0 of 1.0 GB (100 %), 100 MB/s, 0 s left, 2 of 2 files",
    ),
    "more than was announced": (
        Progress(total=10**9, done=2 * 10**9),
        1e8,
        "2.0 of 1.0 GB (200 %), 100 MB/s, 0 s left",
    ),
}


@pytest.mark.parametrize(("progress", "rate", "text"), LINES.values(), ids=LINES)
def test_a_line_says_what_is_known(progress, rate, text):
    assert line(progress, rate).startswith(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (45.4, "45 s"),
        (59.6, "1 min 0 s"),
        (210, "3 min 30 s"),
        (3599.5, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_a_duration_in_words(seconds, text):
    assert duration(seconds) == text


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
    assert first.startswith("weights: 4.0 of 8.0 GB (50 %), ")
    assert first.endswith(" s left, 0 of 2 files")
    assert second == "weights: 4.0 of 8.0 GB (50 %), 0 MB/s, 0 of 2 files"


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


@pytest.fixture
def terminal(monkeypatch):
    for name, value in {"TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


def test_a_terminal_gets_a_bar(terminal):
    progress = Progress(total=2 * 10**9, files=3)
    with redirect_stderr(terminal), shown(progress, "owner--repo"):
        progress.arrived(10**9)
        progress.finished_file()
    last = terminal.getvalue().splitlines()[-2]  # after it comes the cursor
    assert "owner--repo" in last
    assert "1.0/2.0 GB" in last
    assert "1/3 files" in last


def test_the_bar_lets_go_of_the_terminal_when_the_download_fails(terminal):
    def fail():
        wait_for(lambda: "owner--repo" in terminal.getvalue())
        raise ValueError

    with pytest.raises(ValueError), redirect_stderr(terminal), shown(Progress(), "owner--repo"):
        fail()
    assert terminal.getvalue().rstrip("\n").endswith("\x1b[?25h")  # the cursor is visible again
