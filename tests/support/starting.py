"""One process that starts services, one after the other, and asks them. It imports vLLM once.

A line of JSON goes in, with the source of the weights, the environment and the inputs of some requests. A line of JSON
comes out: why the service does not start, or the responses.
"""

import asyncio
import ctypes
import gc
import json
import os
import signal
import subprocess
import sys
from unittest.mock import patch

import psutil

from hermes.devserver import PROJECT
from hermes.engine import starting
from hermes.errors import HermesError
from hermes.serving.guard import is_alive
from tests.support.fakes import INPUTS
from tests.support.servers import LOCAL


class Starter:
    """That process, from the side of the tests."""

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=PROJECT,
            env={**os.environ, **LOCAL},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_):
        self._process.communicate(timeout=60)

    def processes(self):
        """All that it has started and that is alive."""
        return [each for each in psutil.Process(self._process.pid).children(recursive=True) if is_alive(each)]

    def hurry(self):
        """From now on, a second of the limit of a start is over at once."""
        self._process.send_signal(signal.SIGUSR1)

    def refusal(self, weights=None, **environment):
        """Why a service does not start."""
        return self._run(weights, environment, [])

    def responses(self, weights, requests, **environment):
        """What a service answers to all these inputs at once: for each the text and the metrics, "error" among them."""
        answers = self._run(weights, environment, requests)
        assert isinstance(answers, list), answers
        return answers

    def _run(self, weights, environment, requests):
        self._process.stdin.write(json.dumps([weights and str(weights), environment, requests]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def hurry(*_):
    starting.POLL_SECONDS = 0.001


def forget():
    """Give back the memory of a service: other tests need it."""
    if registry := sys.modules.get("vllm.tokenizers.registry"):
        registry.cached_get_tokenizer.cache_clear()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


async def run(weights, requests):
    starting.POLL_SECONDS = 1.0
    from hermes.serving import ChatService
    from hermes.settings import Settings

    try:
        settings = Settings.load()
        service = await ChatService.start(settings, weights)
    except HermesError as error:
        return str(error)
    slots = asyncio.Semaphore(settings.slots)
    try:
        return await asyncio.gather(*(answer(service, slots, inputs) for inputs in requests))
    finally:
        service.engine.stop()


async def answer(service, slots, inputs):
    metrics = {}
    async with slots:
        try:
            pieces = [each async for each in service.respond(metrics.__setitem__, **{**INPUTS, **inputs})]
        except HermesError as error:
            return "", {**metrics, "error": str(error)}
    return "".join(pieces), metrics


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, hurry)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # vLLM logs to standard output
    for line in sys.stdin:
        weights, environment, requests = json.loads(line)
        with patch.dict(os.environ, environment):
            print(json.dumps(asyncio.run(run(weights, requests))), file=answers, flush=True)
        forget()
