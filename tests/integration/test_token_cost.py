"""What a token costs on its way from vLLM to coglet: counted, for time would show what else the machine does."""

import subprocess
import sys

from hermes.devserver import PROJECT

# 183 when this was written. Through vLLM's own `generate`, which wakes a task for each token, it was 403.
MOST_BYTECODES = 250


def test_the_way_of_a_token_stays_short():
    counting = [sys.executable, "-m", "tests.support.token_cost"]
    done = subprocess.run(counting, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=True)
    assert float(done.stdout) < MOST_BYTECODES, "bytecodes a token; python -m cProfile shows where they are"
