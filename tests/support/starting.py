"""One process that starts services which cannot start, one after the other. It imports vLLM once.

A line of JSON goes in, with the source of the weights and the environment. A line of JSON comes out, with the error.
"""

import asyncio
import json
import os
import subprocess
import sys
from unittest.mock import patch

from hermes.devserver import PROJECT
from hermes.errors import HermesError
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

    def refusal(self, weights=None, **environment):
        """Why a service does not start."""
        self._process.stdin.write(json.dumps([weights and str(weights), environment]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def error_of(weights, environment):
    from hermes.serving import ChatService
    from hermes.settings import Settings

    with patch.dict(os.environ, environment):
        try:
            asyncio.run(ChatService.start(Settings.load(), weights))
        except HermesError as error:
            return str(error)
    return "it has started"


if __name__ == "__main__":
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # vLLM logs to standard output
    for line in sys.stdin:
        print(json.dumps(error_of(*json.loads(line))), file=answers, flush=True)
