"""What the servers of the tests are started with, and what their logs say of predictions."""

import json
from collections.abc import Iterable
from typing import Any

from hermes.devserver import PROJECT

# float32 makes the engine's numbers those of transformers; a short context makes a full one quick.
ENGINE_ARGS = {"dtype": "float32", "max_model_len": 2048}
LOCAL = {"HERMES_PROFILE": "local", "HERMES_ENGINE_ARGS": json.dumps(ENGINE_ARGS), "PYTHONPATH": str(PROJECT)}
LINE = "hermes: prediction: "  # begins the line that the server's log has of each prediction


def prediction_lines(log: Iterable[str]) -> list[dict[str, Any]]:
    """What a log says of predictions."""
    return [json.loads(line.removeprefix(LINE)) for line in log if line.startswith(LINE)]
