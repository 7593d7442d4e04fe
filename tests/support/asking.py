"""What integration tests do with a Cog server, as its callers do it."""

import re
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import wraps

import httpx
import pytest

from hermes.client import PredictionRefused
from hermes.client.cog import stream_prediction
from hermes.devserver import LocalServer, ServerFailed
from hermes.environment import tls
from tests.support.servers import LOCAL, prediction_lines

QUESTION = "What is the capital of France? Answer in one sentence."
LONG = {"prompt": "Count to a million.", "min_tokens": 1900, "max_tokens": 1900}


@dataclass
class Streamed:
    """One prediction over SSE: each piece with the second it came, and the completed prediction."""

    pieces: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)  # since the request was sent
    completed: dict = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def text(self):
        return "".join(self.pieces)


def three_chances(test):
    """For a test that times something: a shared machine pauses for seconds at times, a defect is there each time."""

    @wraps(test)
    def tried(*args, **kwargs):
        for _ in range(2):
            try:
                return test(*args, **kwargs)
            except AssertionError as slow:
                print(f"tried again, in case the machine had paused: {slow}")
        return test(*args, **kwargs)

    return tried


def stream(server, when_streaming=None, **inputs):
    """Run a prediction over SSE to its end; `when_streaming` is called once its first piece is there."""
    streamed, started = Streamed(), time.monotonic()
    for name, data in stream_prediction(server.url, inputs):
        if name == "output":
            streamed.pieces.append(data["chunk"])
            streamed.times.append(time.monotonic() - started)
            if when_streaming and len(streamed.pieces) == 1:
                when_streaming()
        elif name == "completed":
            streamed.completed = data
    streamed.seconds = time.monotonic() - started
    return streamed


def once_a_slot_is_free(ask, seconds=5):
    """What `ask` gives. coglet frees a slot a moment after the last event of its prediction, and until then refuses."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except PredictionRefused as refused:
            if refused.status != httpx.codes.CONFLICT or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextmanager
def streaming(server, **inputs):
    """A prediction that streams, dropped at the end of the block."""
    with closing(stream_prediction(server.url, inputs)) as events:
        while next(events)[0] != "output":
            pass
        yield events


def post(server, prediction_id=None, **inputs):
    """Run a prediction without SSE and return the response."""
    path, method = (f"/predictions/{prediction_id}", "PUT") if prediction_id else ("/predictions", "POST")
    return httpx.request(method, server.url + path, json={"input": inputs}, timeout=120, verify=tls())


def predict(server, **inputs):
    """Run a prediction without SSE that has to succeed."""
    prediction = post(server, **inputs).json()
    assert prediction["status"] == "succeeded", prediction
    return prediction


def text_of(prediction):
    """The answer as one text: how it is cut into pieces depends on how busy the machine is."""
    return "".join(prediction["output"])


def failure(server, **inputs):
    """Run a prediction that has to fail, and return its error."""
    response = post(server, **inputs)
    prediction = response.json()
    assert (response.status_code, prediction["status"]) == (200, "failed"), prediction
    return prediction["error"]


def lines_in_log(server):
    """What the server's log says of each prediction, in the order of their ends; it can come after the answer."""
    return prediction_lines(list(server.log))


def kv_cache_tokens(server):
    """How many tokens vLLM says that its KV cache takes."""
    said = re.search(r"KV cache size: ([\d,]+) tokens", server.health()["setup"]["logs"])
    return int(said[1].replace(",", ""))


def until(condition, seconds, what):
    """Wait for a condition to hold and return the seconds it took; fail with `what` when it does not."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.01)
    return time.monotonic() - started


def assert_goes_on(server):
    """The next caller is served, and the server calls itself ready."""
    assert predict(server, prompt="Hi", max_tokens=1)["metrics"]["output_token_count"] == 1
    assert server.health()["status"] == "READY"


def refusal(environment, timeout=120):
    """Start a server that cannot get ready: what it says, the seconds it took, and what else it had started."""
    started = time.monotonic()
    with LocalServer(environment={**LOCAL, **environment}) as server:
        with pytest.raises(ServerFailed) as failed:
            server.wait_until_ready(timeout)
        seconds = time.monotonic() - started
        health = server.health()
        assert health["status"] == "SETUP_FAILED"
        assert str(failed.value) in health["setup"]["logs"]
        names = {process.name() for process in server.processes()}
    assert server.processes() == []
    return str(failed.value), seconds, health, names
