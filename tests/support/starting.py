"""One process that starts services which cannot start, one after the other. It imports vLLM once.

A line of JSON goes in, with the source of the weights and the environment. A line of JSON comes out, with the error.
"""

import asyncio
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
        self._process.stdin.write(json.dumps([weights and str(weights), environment]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def hurry(*_):
    starting.LOOK_SECONDS = 0.001


def error_of(weights, environment):
    starting.LOOK_SECONDS = 1
    from hermes.serving import ChatService
    from hermes.settings import Settings

    with patch.dict(os.environ, environment):
        try:
            asyncio.run(ChatService.start(Settings.load(), weights))
        except HermesError as error:
            return str(error)
    return "it has started"


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, hurry)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # vLLM logs to standard output
    for line in sys.stdin:
        print(json.dumps(error_of(*json.loads(line))), file=answers, flush=True)
