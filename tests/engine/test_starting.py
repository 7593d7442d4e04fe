"""A start ends in time, says why it failed, and leaves no process. The processes are real, and none of vLLM's."""

import subprocess
import sys

import psutil
import pytest

from hermes.engine import starting
from hermes.engine.start_log import StartLog
from hermes.engine.starting import UNEXPLAINED, EngineStart
from hermes.errors import EngineFailed, InvalidConfiguration
from hermes.serving.guard import is_alive
from tests.support.asking import until

SLEEP = "import time; print('ready', flush=True); time.sleep(60)"
TITLED = f"import setproctitle; setproctitle.setproctitle('VLLM::EngineCore'); {SLEEP}"
CORE = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); input()"  # and its worker


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(starting, "POLL_SECONDS", 0.01)


@pytest.fixture
def log(tmp_path):
    return StartLog(tmp_path)


@pytest.fixture
def run():
    """Starts processes, and returns when they run. At last none is left."""
    processes = []

    def run(code):
        command = [sys.executable, "-c", code]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert processes[-1].stdout.readline() == b"ready\n"
        return processes[-1]

    yield run
    for process in processes:
        with process:
            process.kill()


def failure(start, inside):
    """What a start raises in which this happens."""
    with pytest.raises(BaseException) as raised, start:
        inside()
    return raised.value


def test_a_start_in_time_leaves_everything_as_it_is(log, run):
    with EngineStart(100_000, log):
        process = run(SLEEP)
    assert process.poll() is None


def test_a_start_that_takes_too_long_ends_with_what_it_has_started(log, run):
    before = run(SLEEP)
    start = EngineStart(0.05, log)
    core = run(CORE)
    error = failure(start, lambda: core.wait(30))  # as vLLM: without a limit of its own
    advice = "set HERMES_START_TIMEOUT higher if it only loads slowly"
    said = f"it was not ready after 0.05 s; {advice}; its processes logged last: nothing"
    assert str(error) == f"E1200 EngineStartFailed: vLLM did not start: {said}; the server's log has more"
    assert before.poll() is None, "it is none of the engine"


def test_a_start_that_takes_too_long_tells_the_last_line_of_each_process(log, run, tmp_path):
    start = EngineStart(0.05, log)
    core, helper, silent = run(SLEEP), run(SLEEP), run(TITLED)
    (tmp_path / str(core.pid)).write_text("EngineCore: one\nEngineCore: two\n")
    error = failure(start, lambda: [each.wait(30) for each in (core, helper, silent)])
    assert f"its processes logged last: EngineCore: two; process {silent.pid}: nothing; the" in str(error)


def test_the_workers_of_a_core_that_has_died_end_with_the_start(log, run):
    start = EngineStart(100_000, log)
    core = run(CORE)
    (worker,) = psutil.Process(core.pid).children()

    def the_core_dies():
        until(lambda: worker in start._started, 10, "it is known")
        core.kill()
        core.wait(30)
        raise RuntimeError("Engine core initialization failed.")

    assert isinstance(failure(start, the_core_dies), RuntimeError)
    until(lambda: not is_alive(worker), 10, "the worker has ended")


@pytest.mark.parametrize("error", [InvalidConfiguration("model", "it does not know ChatML"), KeyboardInterrupt()])
def test_what_is_not_of_the_engine_stays_and_ends_the_engine(log, run, error):
    start = EngineStart(100_000, log)
    process = run(SLEEP)

    def inside():
        raise error

    assert failure(start, inside) is error
    process.wait(10)


@pytest.mark.parametrize(
    ("logged", "cause"), [("no such kernel", "no such kernel"), (None, f"the engine has died ({UNEXPLAINED})")]
)
def test_an_engine_that_dies_in_its_first_request_has_not_started(log, tmp_path, logged, cause):
    if logged:
        (tmp_path / "cause").write_text(logged)

    def inside():
        raise EngineFailed("the engine has died")

    error = failure(EngineStart(100_000, log), inside)
    assert str(error) == f"E1200 EngineStartFailed: vLLM did not start: {cause}; the server's log has more"
