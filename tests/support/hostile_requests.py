"""Tests send the real server requests that nobody means well with, and watch its time and memory."""

import json
import threading

import httpx
import psutil

from hermes.devserver.predictor import PredictorSource
from hermes.devserver.server import PROJECT
from hermes.environment import tls

SECONDS = 60  # for one case, on a machine that is busy with others; most take less than one
GROWTH = 500_000_000  # bytes, all processes together, at any moment of a case
MEGABYTE = 1_000_000
DEEP = 100_000  # levels of JSON

INPUTS = PredictorSource(PROJECT / "predict.py").inputs()
SHORT = {"prompt": "Hi", "max_tokens": 1}


class Memory:
    """The most that the processes have held in memory, looked at ten times a second."""

    def __init__(self, processes):
        self._processes = processes
        self.before = self.most = self._now()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    @property
    def growth(self):
        return self.most - self.before

    def _look_on(self):
        while not self._over.wait(0.1):
            self.most = max(self.most, self._now())

    def _now(self):
        return sum(resident(process) for process in self._processes)


def resident(process):
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def send(server, body, *, method="POST", path="/predictions", **headers):
    """Send a body of bytes or text, as it is."""
    headers = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.request(method, server.url + path, content=body, headers=headers, timeout=SECONDS, verify=tls())


def with_input(name, value):
    """The body of a prediction with an input whose value is JSON already."""
    return json.dumps({"input": SHORT | {name: "VALUE"}}).replace('"VALUE"', value)


def refused_inputs(response):
    """The names of the inputs that coglet refuses."""
    assert response.status_code == 422, response.text
    return [problem["loc"][-1].partition("/")[0] for problem in response.json()["detail"]]
