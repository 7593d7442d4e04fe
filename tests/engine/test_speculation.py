"""What makes vLLM guess tokens ahead."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hermes.engine import speculative
from hermes.engine.cpu_kernels import expand
from hermes.settings import PROFILES


@pytest.mark.parametrize(("on_gpus", "method"), [(True, "ngram_gpu"), (False, "ngram")])
def test_n_grams_are_looked_for_where_the_model_runs(on_gpus, method):
    assert speculative({"dtype": "bfloat16"}, None, on_gpus=on_gpus) == {
        "dtype": "bfloat16",
        "speculative_config": {
            "method": method,
            "num_speculative_tokens": 4,
            "prompt_lookup_min": 2,
            "prompt_lookup_max": 5,
        },
    }


def test_a_draft_model_guesses_three_tokens():
    found = speculative({}, Path("weights/small"), on_gpus=True)["speculative_config"]
    assert found == {"method": "draft_model", "model": "weights/small", "num_speculative_tokens": 3}


def test_a_graph_is_for_the_tokens_of_a_batch_and_each_stream_then_has_more():
    arguments = speculative(PROFILES["production-fp8"].engine_args, Path("small"), on_gpus=True)
    assert arguments["cudagraph_capture_sizes"] == [4, 8, 16, 32, 64, 96, 128]


def test_what_whoever_runs_the_server_says_of_speculation_stays():
    said = {"method": "ngram", "num_speculative_tokens": 1}
    assert speculative({"speculative_config": said}, None, on_gpus=True) == {"speculative_config": said}


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float32])
def test_each_value_is_repeated_for_the_guesses_of_its_request(dtype):
    values, ends, output = torch.tensor([50, 0, 7], dtype=dtype), torch.tensor([2, 2, 5]), torch.empty(5, dtype=dtype)
    expand(output, values, ends, 7, 9)
    assert output.tolist() == [50, 50, 9, 9, 9]


# As vLLM's n-gram proposer does it, without the time of an import of vLLM.
LOOK_FOR_N_GRAMS = """
import numba, numpy, torch
before = torch.get_num_threads()

@numba.njit(parallel=True)
def look(tokens):
    for request in numba.prange(len(tokens)):
        tokens[request] += 1

look(numpy.zeros(2))
print(before, torch.get_num_threads(), numba.threading_layer())
"""


def test_looking_for_n_grams_leaves_torch_its_number_of_threads():
    """numba's pool sets OpenMP's, which torch has, too. With threads on all cores, each waits in busy loops."""
    command = [sys.executable, "-W", "ignore", "-c", LOOK_FOR_N_GRAMS]
    environment = os.environ | PROFILES["local"].environment
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    threads = environment["OMP_NUM_THREADS"]
    assert printed.split() == [threads, threads, "omp"]
