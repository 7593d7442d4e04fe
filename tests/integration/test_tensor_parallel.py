"""Two tensor-parallel workers compute what one does, and the KV cache is as large as planned.

Their core is spawned from Cog's worker, as on GPUs.
"""

import json
import time

import psutil
import pytest

from hermes.sizing import ModelShape
from hermes.sizing.gpus import GIB
from tests.support.asking import assert_goes_on, kv_cache_tokens, predict, stream, text_of
from tests.support.endings import (
    IN_CHUNKS,
    WORKER_RAISES,
    cogs_server,
    cogs_worker,
    engine_core,
    engine_fails,
    is_started_again,
    with_name,
)
from tests.support.servers import BLOCK, KV_CACHE, serving

STALL_TIMEOUT = 20  # seconds; on a busy machine a start has steps of several
PROMPTS = ["Hello", "What is the capital of France?", "日本語", "one two three four", "x" * 300]


@pytest.fixture(scope="module")
def two_workers(tiny_model):
    """Two tensor-parallel workers, one of which raises at last."""
    environment = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn", "HERMES_STALL_TIMEOUT": str(STALL_TIMEOUT)}
    with serving(tiny_model, 2, {**IN_CHUNKS, "num_gpu_blocks_override": None}, **environment) as server:
        server.wait_until_ready(timeout=300)
        yield server
        engine_fails(server, WORKER_RAISES, 1)
        is_started_again(server)


def greedy(server):
    answers = [predict(server, prompt=prompt, temperature=0, max_tokens=40) for prompt in PROMPTS]
    return [(text_of(each), each["metrics"]["output_token_count"]) for each in answers]


def planned_cache_tokens(model, tensor_parallel_size, size):
    """Tokens that so many bytes for each worker take, by our arithmetic, in float32."""
    shape = ModelShape.from_config(json.loads((model / "config.json").read_text()))
    return size // (BLOCK * shape.kv_bytes_per_token(tensor_parallel_size, cache_bytes=4)) * BLOCK


def test_a_token_takes_the_planned_bytes_of_kv_cache(server, small_model):
    assert kv_cache_tokens(server) == planned_cache_tokens(small_model, 1, KV_CACHE * GIB)


def test_with_two_workers_there_is_room_for_twice_as_many(two_workers, tiny_model):
    of_one, of_two = (planned_cache_tokens(tiny_model, workers, KV_CACHE * GIB) for workers in (1, 2))
    assert kv_cache_tokens(two_workers) == of_two
    assert of_two // of_one == 2


def test_two_workers_give_the_greedy_tokens_of_one(tiny_server, two_workers):
    one = greedy(tiny_server)
    assert len(with_name(two_workers, "VLLM::Worker")) == 2
    assert greedy(two_workers) == one
    assert len({text for text, _ in one}) == len(PROMPTS), "the tiny model must say something of its own to each"


def test_their_core_is_spawned_from_cogs_worker(two_workers):
    assert engine_core(two_workers).parent() == cogs_worker(two_workers)
    assert with_name(two_workers, "VLLM::ForkServe") == []


def pause(server):
    """All of it, as `docker pause`, for longer than any part of it may be silent or stopped."""
    paused = [*with_name(server, "VLLM::"), cogs_worker(server), cogs_server(server)]
    for process in paused:
        process.suspend()
    time.sleep(STALL_TIMEOUT + 1)
    assert {process.status() for process in paused} == {psutil.STATUS_STOPPED}
    for process in paused:
        process.resume()


@pytest.mark.long  # its depth: tests/engine/test_watch.py pauses an engine and its watch
def test_a_pause_of_everything_in_the_middle_of_a_response_ends_nothing(two_workers):
    streamed = stream(two_workers, lambda: pause(two_workers), prompt="Hello", min_tokens=200, max_tokens=200)
    assert streamed.times[-1] - streamed.times[0] > STALL_TIMEOUT, "it was in the middle"
    assert streamed.completed["status"] == "succeeded"
    assert streamed.completed["metrics"]["output_token_count"] == 200
    assert_goes_on(two_workers)
