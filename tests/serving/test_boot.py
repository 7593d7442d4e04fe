"""Work beside the download, and the report of what setup() spent its time on."""

import json
import logging
import threading
import time
from pathlib import Path

import pytest

from hermes.serving.boot import REPORT, Beside, log_boot
from hermes.weights import Weights

WEIGHTS = Weights(Path("m"), 141_107_500_000, plan_seconds=0.5, download_seconds=230.5, verify_seconds=0.25)


class Work:
    """Goes on until it is let go."""

    def __init__(self, error=None):
        self.go = threading.Event()
        self.error = error

    def __call__(self):
        assert self.go.wait(5)
        if self.error:
            raise self.error


def joined(beside):
    """The seconds that were saved, and those that it took to hear it."""
    began = time.monotonic()
    beside.join()
    return beside.saved, time.monotonic() - began


def test_work_that_is_done_before_anybody_waits_was_saved():
    beside = Beside(lambda: time.sleep(0.02))
    time.sleep(0.04)  # meanwhile, a download
    saved, waited = joined(beside)
    assert beside.seconds >= 0.02
    assert beside.seconds - waited <= saved <= beside.seconds


def test_the_seconds_that_work_was_waited_for_are_not_saved():
    work = Work()
    beside = Beside(work)
    timer = threading.Timer(0.02, work.go.set)
    timer.start()
    saved, waited = joined(beside)
    timer.join()
    assert max(0, beside.seconds - waited) <= saved < beside.seconds


def test_who_waits_twice_has_saved_no_more():
    work = Work()
    beside = Beside(work)
    timer = threading.Timer(0.02, work.go.set)
    timer.start()
    beside.join()
    saved = beside.saved
    beside.join()
    assert beside.saved == pytest.approx(saved, abs=0.005)
    timer.join()


@pytest.mark.parametrize("error", [ValueError("no such module"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_what_the_work_raised_is_raised_where_it_is_waited_for(error):
    work = Work(error)
    beside = Beside(work)
    work.go.set()
    for _ in range(2):
        with pytest.raises(type(error)) as raised:
            beside.join()
        assert raised.value is error


def test_an_end_before_the_work_is_done_does_not_wait_for_it():
    work = Work()
    Beside(work)
    [thread] = [thread for thread in threading.enumerate() if thread.name == "beside"]
    assert thread.daemon
    work.go.set()
    thread.join()


def test_the_report_is_one_line_with_words_and_json(caplog):
    caplog.set_level(logging.INFO, "hermes")
    phases = {"imports": 1.25, "load": 60.123456, "warm_up": 16.0}
    log_boot(WEIGHTS, phases, total=307.4, saved=5.75, context_tokens=8192)
    [line] = caplog.messages
    to_read, for_machines = line.split(REPORT)
    assert to_read == (
        "boot: 307.4 s, 8192 tokens of context: plan 0.5, download 230.5 (141.1 GB at 612 MB/s), verify 0.2, "
        "imports 1.2, load 60.1, warm-up 16.0; importing vLLM beside the download saved 5.8"
    )
    assert json.loads(for_machines) == {
        "plan": 0.5,
        "download": 230.5,
        "verify": 0.25,
        "imports": 1.25,
        "load": 60.12,
        "warm_up": 16.0,
        "total": 307.4,
        "saved": 5.75,
        "fetched_bytes": 141_107_500_000,
    }


def test_of_a_model_that_was_there_no_download_is_told(caplog):
    caplog.set_level(logging.INFO, "hermes")
    log_boot(Weights(Path("m")), {"imports": 6.0, "load": 25.0}, total=31.2, saved=0.0, context_tokens=2048)
    assert caplog.messages[0].split(REPORT)[0] == "boot: 31.2 s, 2048 tokens of context: imports 6.0, load 25.0"


def test_a_download_that_took_no_time_has_a_rate(caplog):
    caplog.set_level(logging.INFO, "hermes")
    log_boot(Weights(Path("m"), 1000), {"imports": 6.0}, total=6.1, saved=0.0, context_tokens=2048)
    assert "download 0.0 (0.0 GB at 1 MB/s)" in caplog.messages[0]
