"""What the servers of the tests are started with, and what their logs say of predictions."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hermes.devserver import PROJECT, LocalServer

# float32 makes the engine's numbers those of transformers; a short context makes a full one quick.
ENGINE_ARGS = {"dtype": "float32", "max_model_len": 2048}
BLOCK = 128  # tokens: what vLLM gives out at a time on a CPU
# GiB for each worker: vLLM fills it with zeros, and a machine with several servers can take seconds for a GiB.
KV_CACHE = 1
LOCAL = {
    "HERMES_PROFILE": "local",
    "HERMES_ENGINE_ARGS": json.dumps(ENGINE_ARGS),
    "VLLM_CPU_KVCACHE_SPACE": str(KV_CACHE),
    "PYTHONPATH": str(PROJECT),
}
MANY_BLOCKS = 512  # 65,536 tokens of the tiny Llama: 64 MiB
TINY_SLOTS, TINY_BLOCKS = 4, 9  # of the fixture tiny_server; vLLM keeps one block for itself
TINY_CONTEXT = (TINY_BLOCKS - 1) * BLOCK  # all of its KV cache
GRACE = 3  # seconds from the engine's death to the server's exit
LINE = "hermes: prediction: "  # begins the line that the server's log has of each prediction


def prediction_lines(log: Iterable[str]) -> list[dict[str, Any]]:
    """What a log says of predictions."""
    return [json.loads(line.removeprefix(LINE)) for line in log if line.startswith(LINE)]


def serving(
    model: Path, workers: int = 1, engine_args: Mapping[str, Any] | None = None, **environment: str
) -> LocalServer:
    """A server of a tiny model in a folder, with a long context."""
    size = {"max_model_len": 8192, "tensor_parallel_size": workers, "num_gpu_blocks_override": MANY_BLOCKS}
    engine_args = {**ENGINE_ARGS, **size, **(engine_args or {})}
    return LocalServer(
        environment={
            **LOCAL,
            "COG_WEIGHTS": str(model),
            "HERMES_ENGINE_ARGS": json.dumps(engine_args),
            "HERMES_ENGINE_DEATH_GRACE": str(GRACE),
            **({"VLLM_CPU_OMP_THREADS_BIND": "0|1"} if workers == 2 else {}),
            **environment,
        }
    )
