"""Two tensor-parallel workers compute what one does."""

import json

import pytest
from asking import predict
from conftest import ENGINE_ARGS, LOCAL

from hermes.serving.server import LocalServer

PROMPTS = ["Hello", "What is the capital of France?", "日本語", "one two three four", "x" * 300]


def greedy(model, tensor_parallel_size, **environment):
    """Greedy answers of a server on `model`, and how many worker processes it has."""
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
        workers = [process for process in server.processes() if process.name().startswith("VLLM::Worker")]
    assert server.processes() == []
    return answers, len(workers)


@pytest.mark.timeout(900)
def test_two_workers_give_the_greedy_tokens_of_one(tiny_model):
    one, workers_of_one = greedy(tiny_model, 1)
    two, workers_of_two = greedy(tiny_model, 2, VLLM_CPU_OMP_THREADS_BIND="0|1")
    assert (workers_of_one, workers_of_two) == (1, 2)
    assert two == one
    assert len({text for text, _ in one}) == len(PROMPTS), "the tiny model must say something of its own to each"
