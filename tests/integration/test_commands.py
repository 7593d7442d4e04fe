"""The commands as a person types them."""

import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest

from hermes.devserver.server import PROJECT, LocalServer, free_port
from hermes.serving.guard import wait_for_end
from tests.support.asking import QUESTION, predict, until
from tests.support.servers import LOCAL


class Command:
    """A running `python -m hermes ...`, with everything it has started."""

    def __init__(self, *arguments, **environment):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hermes", *arguments],
            cwd=PROJECT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.reads, self.err, self._family = [], b"", {}
        self._readers = [threading.Thread(target=self._read_out), threading.Thread(target=self._read_err)]
        for reader in self._readers:
            reader.start()

    def _read_out(self):
        while some := os.read(self.process.stdout.fileno(), 65536):
            self.reads.append(some)

    def _read_err(self):
        while some := os.read(self.process.stderr.fileno(), 65536):
            self.err += some

    def watch(self):
        """Remember what it has started so far; true while it runs."""
        if self.process.poll() is not None:
            return False
        self._family |= {child.pid: child for child in psutil.Process(self.process.pid).children(recursive=True)}
        return True

    def wait(self, seconds=300):
        """Its exit code, what it printed, and what outlived it by 10 s."""
        until(lambda: not self.watch(), seconds, "the command ends")
        for reader in self._readers:
            reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        alive = list(wait_for_end(self._family.values(), 10))
        return self.process.returncode, b"".join(self.reads).decode(), self.err.decode(), alive


@pytest.mark.timeout(400)
def test_predict_streams_the_answer_to_standard_output_and_leaves_nothing_behind(small_model):
    command = Command("predict", "-i", "prompt=Write a short story.", "-i", "max_tokens=64", "-i", "min_tokens=64")
    code, out, err, alive = command.wait()
    assert (code, alive) == (0, [])
    assert out.endswith("\n")
    assert len(command.reads) > 30, "the answer came in few large pieces"
    lines = err.splitlines()
    assert lines[0] == "weights: profile local serves demo from weights/smollm2-135m-instruct"
    assert lines[1].startswith("engine: starting vLLM")
    assert lines[-1].startswith("64 tokens, the first after 0.")
    assert "Traceback" not in err


@pytest.mark.timeout(400)
def test_serve_answers_until_ctrl_c(small_model):
    port = free_port()
    command = Command("serve", "--port", str(port))
    until(lambda: command.watch() and b"serving at" in command.err, 300, "the server is ready")
    answer = predict(LocalServer(port=port), prompt=QUESTION, temperature=0)
    assert "".join(answer["output"]) == "The capital of France is Paris."
    command.process.send_signal(signal.SIGINT)
    code, out, err, alive = command.wait(60)
    assert (code, out, alive) == (0, "", [])
    assert err.endswith(f"serving at http://127.0.0.1:{port}; Ctrl-C to stop\nstopping\n")


def test_a_server_that_cannot_start_is_one_line_and_exit_code_1():
    code, out, err, alive = Command("predict", "-i", "prompt=Hi", HERMES_PROFILE="production").wait(60)
    assert (code, out, alive) == (1, "", [])
    assert err.startswith("E1204 NoAccelerator: the production profile needs 2 CUDA devices and 0 were found; ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=lambda end: end.name)
def test_ending_it_while_it_starts_leaves_nothing(small_model, end):
    command = Command("predict", "-i", "prompt=Hi", **LOCAL)
    until(lambda: command.watch() and len(command._family) >= 3, 60, "the engine's process has begun")
    command.process.send_signal(end)
    code, out, err, alive = command.wait(60)
    assert (code, out, alive) == (130, "", [])
    assert "Traceback" not in err
