"""Two tensor-parallel workers compute what one does, and the KV cache is as large as planned."""

import json

import pytest

from hermes.devserver.server import LocalServer
from hermes.sizing import ModelShape
from hermes.sizing.gpus import GIB
from tests.support.asking import kv_cache_tokens, predict
from tests.support.servers import ENGINE_ARGS, LOCAL

BLOCK = 128  # tokens: what vLLM gives out at a time on a CPU

PROMPTS = ["Hello", "What is the capital of France?", "日本語", "one two three four", "x" * 300]


def greedy(model, tensor_parallel_size, **environment):
    """Greedy answers of a server on `model`, how many worker processes it has, and tokens in its KV cache."""
    engine_args = {**ENGINE_ARGS, "max_model_len": 512, "tensor_parallel_size": tensor_parallel_size}
    environment = {
        **LOCAL,
        "COG_WEIGHTS": str(model),
        "HERMES_ENGINE_ARGS": json.dumps(engine_args),
        **environment,
    }
    with LocalServer(environment=environment) as server:
        server.wait_until_ready(timeout=300)
        answers = []
        for prompt in PROMPTS:
            prediction = predict(server, prompt=prompt, temperature=0, max_tokens=40)
            answers.append(("".join(prediction["output"]), prediction["metrics"]["output_token_count"]))
        cache = kv_cache_tokens(server)
        workers = [process for process in server.processes() if process.name().startswith("VLLM::Worker")]
    assert server.processes() == []
    return answers, len(workers), cache


def planned_cache_tokens(model, tensor_parallel_size):
    """Tokens that 2 GiB for each worker take, by our arithmetic, in float32."""
    shape = ModelShape.from_config(json.loads((model / "config.json").read_text()))
    return 2 * GIB // (BLOCK * shape.kv_bytes_per_token(tensor_parallel_size, cache_bytes=4)) * BLOCK


def test_a_token_of_the_small_model_takes_the_planned_bytes_of_kv_cache(server, small_model):
    assert kv_cache_tokens(server) == planned_cache_tokens(small_model, 1)


@pytest.mark.timeout(900)
def test_two_workers_give_the_greedy_tokens_of_one(tiny_model):
    one, workers_of_one, cache_of_one = greedy(tiny_model, 1)
    two, workers_of_two, cache_of_two = greedy(tiny_model, 2, VLLM_CPU_OMP_THREADS_BIND="0|1")
    assert (workers_of_one, workers_of_two) == (1, 2)
    assert two == one
    assert len({text for text, _ in one}) == len(PROMPTS), "the tiny model must say something of its own to each"
    assert (cache_of_one, cache_of_two) == tuple(planned_cache_tokens(tiny_model, size) for size in (1, 2))
