"""What makes vLLM guess tokens ahead."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hermes.engine import engine_arguments
from hermes.engine.cpu_kernels import expand
from hermes.errors import InvalidConfiguration
from hermes.settings import PROFILES, Settings


def arguments(profile="production", draft=None, **settings):
    """The engine arguments of these settings, on a model without a predictor_config.json."""
    given = Settings(profile=profile, **settings)
    completed = given.model_copy(update={"engine_args": given.arguments({}, quantised=False)})
    return engine_arguments(completed, draft)


NGRAM = {"method": "ngram", "num_speculative_tokens": 1}


@pytest.mark.parametrize(("profile", "method"), [("production", "ngram_gpu"), ("local", "ngram")])
def test_n_grams_are_looked_for_where_the_model_runs(profile, method):
    assert arguments(profile, speculation="ngram")["speculative_config"] == {
        "method": method,
        "num_speculative_tokens": 4,
        "prompt_lookup_min": 2,
        "prompt_lookup_max": 5,
    }


def test_a_draft_model_guesses_three_tokens():
    found = arguments(draft=Path("weights/small"), speculation="hf://me/small")["speculative_config"]
    assert found == {"method": "draft_model", "model": "weights/small", "num_speculative_tokens": 3}


def test_without_speculation_nothing_guesses():
    assert arguments() == {"max_num_seqs": 32, **PROFILES["production"].engine_args}


def test_a_graph_is_for_the_tokens_of_a_batch_and_each_request_then_has_more():
    found = arguments("production-fp8", Path("small"), speculation="hf://me/small")
    assert found["cudagraph_capture_sizes"] == [4, 8, 16, 32, 64, 96, 128]


@pytest.mark.parametrize("setting", [None, "ngram"])
def test_a_speculative_config_of_the_operator_stays_and_the_sizes_of_the_profile_fit_it(setting):
    found = arguments("production-fp8", speculation=setting, engine_args={"speculative_config": NGRAM})
    assert found["speculative_config"] == NGRAM
    assert found["cudagraph_capture_sizes"] == [2, 4, 8, 16, 32, 48, 64]


@pytest.mark.parametrize("sizes", [[5, 10], [1, 2, 4, 8, 16, 24, 32]], ids=["others", "the profile's"])
def test_sizes_of_the_operator_stay(sizes):
    found = arguments("production-fp8", speculation="ngram", engine_args={"cudagraph_capture_sizes": sizes})
    assert found["cudagraph_capture_sizes"] == sizes


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"method": "ngram"}, "speculative_config.num_speculative_tokens: Field required"),
        (
            {"method": "ngram", "num_speculative_tokens": 0},
            "speculative_config.num_speculative_tokens: Input should be ",
        ),
        (
            {"method": "ngram", "num_speculative_tokens": None},
            "speculative_config.num_speculative_tokens: Input should",
        ),
        ("ngram", "speculative_config: Input should be a valid dictionary"),
    ],
)
def test_a_speculative_config_that_does_not_say_how_many_tokens_is_a_typed_error(profile, config, key):
    with pytest.raises(InvalidConfiguration, match=rf"E1202 InvalidConfiguration: engine_args\.{key}"):
        arguments(profile, engine_args={"speculative_config": config})


def test_text_is_the_number_that_it_stands_for():
    given = {"max_model_len": "4096", "max_num_seqs": "16", "tensor_parallel_size": 2.0}
    speculation = {"method": "ngram", "num-speculative-tokens": "4"}
    found = arguments(engine_args={**given, "speculative_config": speculation})
    assert [found[name] for name in given] == [4096, 16, 2]
    assert found["speculative_config"] == {"method": "ngram", "num_speculative_tokens": 4}


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
