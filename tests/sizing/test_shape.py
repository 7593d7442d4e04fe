"""What config.json says of a model, and the GPUs that a plan knows."""

import json

import pytest

from hermes.devserver.server import PROJECT
from hermes.sizing.gpus import GPUS, parse_gpus
from hermes.sizing.shape import KNOWN_SHAPES, ModelShape, Quantisation
from tests.support.fakes import LLAMA_70B

THETA_70B = KNOWN_SHAPES["NousResearch/Hermes-2-Theta-Llama-3-70B"]
THETA_8B = KNOWN_SHAPES["NousResearch/Hermes-2-Theta-Llama-3-8B"]
LLAMA = LLAMA_70B | {"torch_dtype": "bfloat16"}
SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "dtype": "bfloat16",
    "tie_word_embeddings": True,
}
QWEN2_7B = {
    "architectures": ["Qwen2ForCausalLM"],
    "num_hidden_layers": 28,
    "hidden_size": 3584,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
}


BLOCKS = {"weights": {"num_bits": 8, "block_structure": [128, 128]}, "input_activations": {"num_bits": 8}}


def shape(**changes):
    return ModelShape.from_config({**LLAMA, **changes})


def test_a_config_in_the_hubs_words_gives_the_shape_of_the_70b():
    assert shape() == THETA_70B


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        pytest.param(THETA_70B, 70_553_706_496, id="70B"),
        pytest.param(THETA_8B, 8_030_261_248, id="8B"),
        pytest.param(ModelShape.from_config(SMOLLM2), 134_515_008, id="tied embeddings"),
        pytest.param(ModelShape.from_config(QWEN2_7B), 7_615_616_512, id="biases of Qwen2"),
    ],
)
def test_parameters_are_counted_exactly(model, parameters):
    assert (model.parameters, model.weights_bytes()) == (parameters, 2 * parameters)


def test_the_prepared_small_model_has_the_shape_that_is_written_here():
    path = PROJECT / "weights" / "smollm2-135m-instruct" / "config.json"
    config = json.loads(path.read_text()) if path.is_file() else SMOLLM2
    assert ModelShape.from_config(config) == ModelShape.from_config(SMOLLM2)


def test_a_token_in_the_kv_cache_of_the_70b_is_320_kib():
    assert [THETA_70B.kv_bytes_per_token(gpus) for gpus in (1, 2, 4, 8)] == [327_680, 163_840, 81_920, 40_960]
    assert THETA_70B.kv_bytes_per_token(2, cache_bytes=1) == 81_920


def test_with_more_gpus_than_kv_heads_each_head_is_kept_more_than_once():
    assert THETA_70B.kv_bytes_per_token(16) == THETA_70B.kv_bytes_per_token(8)
    twice_the_kv_matrices = 80 * 2 * 8 * 128 * 8192 * 2
    norms = 2 * THETA_70B.norm_parameters
    split = 2 * THETA_70B.parameters - norms
    assert THETA_70B.weights_bytes(8) == split / 8 + norms
    assert THETA_70B.weights_bytes(16) == (split + twice_the_kv_matrices) / 16 + norms


@pytest.mark.parametrize(
    ("config", "gpus", "problem"),
    [
        (LLAMA, 2, None),
        (LLAMA, 16, None),
        (LLAMA, 3, "64 attention heads can't be split over 3 GPUs"),
        (SMOLLM2, 2, "9 attention heads can't be split over 2 GPUs"),
        (SMOLLM2, 9, "1,536 MLP columns can't be split over 9 GPUs"),
        ({**SMOLLM2, "intermediate_size": 1800, "vocab_size": 49100}, 9, "49,152 rows of vocabulary can't be split"),
        ({**LLAMA, "num_key_value_heads": 16, "num_attention_heads": 96, "vocab_size": 576}, 24, "28,672 MLP columns"),
        ({**LLAMA, "num_key_value_heads": 12}, 8, "12 KV heads can't be split over 8 GPUs"),
    ],
)
def test_gpus_have_to_divide_the_model(config, gpus, problem):
    found = ModelShape.from_config(config).split_problem(gpus)
    assert found == problem or found.startswith(problem)


def test_what_a_config_may_leave_out_has_the_defaults_of_its_library():
    config = {key: value for key, value in LLAMA.items() if key not in ("num_key_value_heads", "torch_dtype")}
    model = ModelShape.from_config({**config, "head_dim": None})
    assert (model.kv_heads, model.head_dim, model.dtype_bytes, model.tied_embeddings) == (64, 128, 2, False)


@pytest.mark.parametrize(
    ("changes", "extras"),
    [
        ({}, 0),
        ({"attention_bias": True}, (64 + 8 + 8) * 128 + 8192),
        ({"mlp_bias": True}, 2 * 28672 + 8192),
        ({"architectures": ["Qwen2ForCausalLM"]}, (64 + 8 + 8) * 128),
        ({"architectures": ["Qwen3ForCausalLM"]}, 2 * 128),
    ],
)
def test_biases_and_norms_of_a_layer_are_counted(changes, extras):
    assert shape(**changes).layer_extras == extras


@pytest.mark.parametrize(
    ("rope", "tokens"),
    [
        ({}, 8192),
        ({"rope_scaling": None}, 8192),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, 32768),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 8192),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}, 8192),
        ({"max_position_embeddings": 32768}, 32768),
    ],
)
def test_the_context_is_what_vllm_makes_of_the_rope_settings(rope, tokens):
    assert shape(**rope).context_tokens == tokens


@pytest.mark.parametrize(
    ("declared", "quantisation", "bits"),
    [
        (None, None, 16),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, Quantisation("awq", 4, 128), 4.15625),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, Quantisation("gptq", 8), 8),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, Quantisation("fp8", 8), 8),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, Quantisation("fp8", 8, in_blocks=True), 8),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8}}}},
            Quantisation("compressed-tensors", 8),
            8,
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": BLOCKS}},
            Quantisation("compressed-tensors", 8, in_blocks=True),
            8,
        ),
    ],
)
def test_a_quantised_checkpoint_keeps_its_embeddings_in_16_bits(declared, quantisation, bits):
    model = shape(quantization_config=declared)
    rest = 2 * (THETA_70B.embedding_parameters + THETA_70B.norm_parameters)
    assert model.quantisation == quantisation
    assert model.weights_bytes() == THETA_70B.linear_parameters * bits / 8 + rest


def compressed(cache):
    weights = {"num_bits": 8, "type": "float", "strategy": "channel"}
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"g": {"weights": weights}},
        "kv_cache_scheme": cache,
    }


def test_a_checkpoint_says_that_its_cache_is_in_8_bits():
    assert shape(quantization_config=compressed({"num_bits": 8, "type": "float"})).cache_bytes == 1
    assert shape(quantization_config=compressed(None)).cache_bytes == shape().cache_bytes == 2


def test_a_sliding_window_that_is_not_used_is_none():
    assert shape(sliding_window=131072, use_sliding_window=False, layer_types=["full_attention"] * 80) == THETA_70B


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"hidden_size": None}, "config.json has no hidden_size"),
        ({"vocab_size": "many"}, "config.json: vocab_size is 'many', not a positive whole number"),
        ({"num_hidden_layers": 0}, "config.json: num_hidden_layers is 0, not a positive whole number"),
        ({"architectures": None}, "config.json has no architectures"),
        ({"architectures": ["MixtralForCausalLM"]}, "config.json: MixtralForCausalLM is not supported, only Llama"),
        ({"torch_dtype": "int3"}, "config.json: dtype is 'int3', not one of bfloat16, float16, float32"),
        ({"rope_scaling": [4]}, "config.json: rope_scaling is [4], not an object"),
        ({"rope_scaling": {"type": "linear", "factor": "4"}}, "config.json: the RoPE factor is '4', not a number"),
        ({"quantization_config": {"quant_method": "magic"}}, "config.json: quant_method is 'magic', not one of awq"),
        ({"quantization_config": {"quant_method": "awq"}}, "config.json has no bits"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "config.json has no num_bits"),
        (
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 64]}},
            "config.json: blocks of [64, 64] are not planned, only of [128, 128]",
        ),
        (
            {
                "quantization_config": {
                    "quant_method": "compressed-tensors",
                    "config_groups": {"group_0": BLOCKS | {"input_activations": None}},
                }
            },
            "config.json: vLLM 0.32 can't load fp8 blocks that have no input_activations; quantise again",
        ),
        (
            {"quantization_config": compressed({"num_bits": 4, "type": "float"})},
            "config.json: kv_cache_scheme has 4 num_bits, not 8",
        ),
        ({"sliding_window": 4096}, "config.json: a KV cache with a sliding window is not planned"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "config.json: a KV cache with a sliding window is"),
        (
            {"architectures": ["DeepseekV3ForCausalLM"]},
            "config.json: DeepseekV3ForCausalLM is not supported, only Llama",
        ),
    ],
)
def test_a_config_that_cannot_be_counted_says_which_key(changes, problem):
    with pytest.raises(ValueError) as raised:
        shape(**changes)
    assert str(raised.value).startswith(problem)


@pytest.mark.parametrize(
    ("text", "count", "name"),
    [
        ("2xA100-80GB", 2, "A100-80GB"),
        ("2x A100 80GB", 2, "A100-80GB"),
        (" 4 X a100-40gb ", 4, "A100-40GB"),
        ("h100", 1, "H100"),
        ("8×H200", 8, "H200"),
        ("1xL40S", 1, "L40S"),
        ("2*a10g", 2, "A10G"),
        ("T4", 1, "T4"),
        ("8x NVIDIA B200", 8, "B200"),
        ("4xL4", 4, "L4"),
        ("h20", 1, "H20"),
        ("GH200", 1, "GH200"),
        ("2x B300", 2, "B300"),
        ("b100", 1, "B100"),
        ("2x NVIDIA RTX PRO 6000 Blackwell", 2, "RTX-PRO-6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 1, "RTX-PRO-6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 1, "RTX-PRO-6000"),
        ("8x NVIDIA H100 80GB HBM3", 8, "H100"),
        ("2x NVIDIA A100-SXM4-80GB", 2, "A100-80GB"),
        ("NVIDIA A100-SXM4-40GB", 1, "A100-40GB"),
        ("Tesla T4", 1, "T4"),
        ("NVIDIA GH200 480GB", 1, "GH200"),
        ("NVIDIA B300 SXM6 AC", 1, "B300"),
    ],
)
def test_gpus_are_read_as_people_write_them(text, count, name):
    assert parse_gpus(text) == (count, GPUS[name])


@pytest.mark.parametrize(
    "text", ["", "2x", "0xH100", "2xA100", "2x RTX 4090", "two H100", "-1xH100", "H100 NVL", "H100 PCIe"]
)
def test_other_gpus_are_refused_with_the_names_of_the_known(text):
    with pytest.raises(ValueError, match=r"known are T4, L4, A10G, .*, H100, .*, B300$"):
        parse_gpus(text)
