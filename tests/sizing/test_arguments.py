"""Which engine arguments are counted, which leave the plan as it is, and which make it impossible."""

import pytest

from hermes.errors import InvalidConfiguration
from hermes.settings import FOLDER_MAY_SET, PROFILES
from hermes.sizing.arguments import COUNTED, NO_EFFECT, NO_EFFECT_WITH, EngineArguments


@pytest.mark.parametrize("profile", ["production", "production-fp8"])
def test_a_profile_for_gpus_is_planned_whole(profile):
    assert EngineArguments.read(PROFILES[profile].engine_args).not_planned == ()


def test_each_argument_is_of_one_kind():
    kinds = (COUNTED, NO_EFFECT, set(NO_EFFECT_WITH))
    assert sum(map(len, kinds)) == len(set().union(*kinds))
    assert all(name in set().union(*kinds) for name in EngineArguments.model_fields)


@pytest.mark.parametrize(
    ("arguments", "unknown"),
    [
        ({"cpu_offload_gb": 0, "pipeline_parallel_size": 1, "kv_cache_memory_bytes": None, "seed": 3}, ()),
        ({"cpu_offload_gb": 0.5, "seed": 3, "enable_lora": True}, ("cpu_offload_gb", "enable_lora")),
        ({"tensor_parallel_size": 4, "decode_context_parallel_size": 2}, ("decode_context_parallel_size",)),
        ({"enable_chunked_prefill": True}, ()),
        ({"enable_chunked_prefill": False}, ("enable_chunked_prefill",)),
        ({"kernel_config": {"linear_backend": "humming"}}, ("kernel_config",)),
        ({"hf_overrides": {"num_hidden_layers": 2}}, ("hf_overrides",)),
        ({"max_model_len": -1}, ("max_model_len",)),
        ({"pipeline_parallel_size": "1"}, ()),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}, ()),
        ({"speculative_config": {"method": "eagle", "num_speculative_tokens": 2}}, ("speculative_config",)),
        (
            {"speculative_config": {"method": "draft_model", "num_speculative_tokens": 2, "quantization": "fp8"}},
            ("speculative_config",),
        ),
        ({"spec_method": "ngram", "spec_tokens": 2}, ("spec_method", "spec_tokens")),
    ],
    ids=str,
)
def test_what_is_not_counted_is_named(arguments, unknown):
    assert EngineArguments.read(arguments).not_planned == unknown


@pytest.mark.parametrize("name", sorted(FOLDER_MAY_SET - COUNTED - NO_EFFECT))
def test_an_argument_of_a_folder_that_changes_memory_is_named(name):
    assert name in NO_EFFECT_WITH, "what a folder may set is known, one way or the other"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            {"max_model_len": "8k"},
            "max_model_len: Input should be a valid integer, unable to parse string as an integer, ",
        ),
        ({"max_model_len": 0}, "max_model_len: should be greater than 0, or -1 for the longest that fits, not 0"),
        ({"max_num_seqs": {}}, "max_num_seqs: Input should be a valid integer, not {}"),
        ({"gpu_memory_utilization": None}, "gpu_memory_utilization: Input should be a valid number, not None"),
        ({"cudagraph_capture_sizes": [1, "two"]}, "cudagraph_capture_sizes.1: Input should be a valid integer, "),
        ({"cudagraph_capture_sizes": 4}, "cudagraph_capture_sizes: Input should be a valid list, not 4"),
        ({"enforce_eager": "perhaps"}, "enforce_eager: Input should be a valid boolean, "),
        ({"quantization": 8}, "quantization: Input should be a valid string, not 8"),
        ({"kv_cache_dtype": None}, "kv_cache_dtype: Input should be a valid string, not None"),
    ],
    ids=str,
)
def test_a_value_that_vllm_refuses_is_an_error_that_names_it(arguments, problem):
    with pytest.raises(InvalidConfiguration) as raised:
        EngineArguments.read(arguments)
    assert str(raised.value).startswith(f"E1202 InvalidConfiguration: engine_args.{problem}")


def test_an_eager_engine_has_no_graphs():
    assert (
        EngineArguments.read({"enforce_eager": "true", "cudagraph_capture_sizes": [1, 2]}).planned["capture_sizes"]
        == ()
    )
