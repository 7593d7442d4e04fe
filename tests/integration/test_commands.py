"""`python -m hermes predict` as a person types it; test_weights_serving.py has `serve`."""

import signal
import threading

import pytest

from hermes.devserver import LocalServer
from tests.support.asking import until
from tests.support.running import Command
from tests.support.servers import LOCAL

# of a company that thought of no server on this machine
PROXIES = {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9", "NO_PROXY": "[::1]"}


@pytest.mark.timeout(400)
def test_predict_streams_the_answer_to_standard_output_and_leaves_nothing_behind(small_model):
    inputs = ("-i", "prompt=Write a short story.", "-i", "max_tokens=192", "-i", "min_tokens=192")
    command = Command("predict", *inputs, **PROXIES)
    code, out, err, alive = command.wait()
    assert (code, alive) == (0, [])
    assert out.endswith("\n")
    assert len(command.reads) > 5, "the answer came in few large pieces"
    lines = err.splitlines()
    assert lines[0] == "weights: profile local serves demo from weights/smollm2-135m-instruct"
    assert lines[1].startswith("engine: starting vLLM")
    assert lines[-1].startswith("192 tokens, the first after ")
    assert "Traceback" not in err


def test_a_server_that_cannot_start_is_one_line_and_exit_code_1():
    code, out, err, alive = Command("predict", "-i", "prompt=Hi", HERMES_PROFILE="production").wait(60)
    assert (code, out, alive) == (1, "", [])
    assert err.startswith("E1204 NoAccelerator: the production profile needs 2 CUDA devices and 0 were found; ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("end", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM])
def test_ending_it_while_it_starts_leaves_nothing(small_model, end):
    command = Command("predict", "-i", "prompt=Hi", **LOCAL)
    until(lambda: command.watch() and len(command.family) >= 3, 60, "the engine's process has begun")
    command.process.send_signal(end)
    code, out, err, alive = command.wait(60)
    assert (code, out, alive) == (130, "", [])
    assert "Traceback" not in err


def test_ctrl_c_before_the_server_is_known_to_have_begun_leaves_nothing(monkeypatch):
    server = LocalServer(environment=LOCAL)
    start = threading.Thread.start

    def start_and_be_interrupted(thread):
        start(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_and_be_interrupted)
        with pytest.raises(KeyboardInterrupt), server:
            pytest.fail("it was not interrupted")
    assert server.exit_status is not None
    assert server.processes() == []
