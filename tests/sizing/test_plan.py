"""Whether a model fits, against what vLLM has reported of real GPUs, and what is said of it."""

import json
import math
from dataclasses import replace

import pytest

from hermes.settings import Settings
from hermes.sizing.arguments import EngineArguments
from hermes.sizing.gpus import GIB, GPUS, parse_gpus
from hermes.sizing.plan import plan_memory
from hermes.sizing.report import describe
from hermes.sizing.shape import KNOWN_SHAPES, ModelShape, Quantisation

THETA_70B = KNOWN_SHAPES["NousResearch/Hermes-2-Theta-Llama-3-70B"]
THETA_8B = KNOWN_SHAPES["NousResearch/Hermes-2-Theta-Llama-3-8B"]
CODE_LLAMA_7B = ModelShape(
    layers=32,
    hidden=4096,
    heads=32,
    kv_heads=32,
    head_dim=128,
    vocab=32016,
    intermediate=11008,
    tied_embeddings=False,
    context_tokens=16384,
)


def plan(gpus, shape=THETA_70B, **settings):
    count, gpu = parse_gpus(gpus)
    return plan_memory(shape, gpu, count, **settings)


@pytest.mark.parametrize(
    ("gpus", "shape", "quantization", "weights", "activations", "libraries", "graphs", "kv_without_graphs"),
    [
        pytest.param("2xH100", THETA_70B, "fp8_per_channel", 33.88, 1.96, 2.10, 1.79, 37.28, id="Llama 70B fp8 on two"),
        pytest.param(
            "4xH100", THETA_70B, "fp8_per_channel", 16.96, 1.97, 2.21, 1.66, 54.09, id="Llama 70B fp8 on four"
        ),
        pytest.param("1xH100", THETA_8B, None, 14.99, 1.89, 0.25, 0.91, 58.11, id="Llama 8B"),
        pytest.param("1xH100", CODE_LLAMA_7B, None, 12.56, 0.77, 0.25, 0.89, 61.66, id="CodeLlama 7B"),
    ],
)
def test_the_estimate_is_close_to_what_vllm_reported(
    gpus, shape, quantization, weights, activations, libraries, graphs, kv_without_graphs
):
    """vLLM 0.19, gpu_memory_utilization 0.95, in GiB; it did not yet take the graphs from the KV cache."""
    estimate = plan(gpus, shape, quantization=quantization, max_num_seqs=1024, max_num_batched_tokens=8192)
    assert estimate.weights_bytes / GIB == pytest.approx(weights, abs=0.06)
    assert estimate.activation_bytes / GIB == pytest.approx(activations, abs=0.08)
    assert estimate.runtime_bytes / GIB == pytest.approx(libraries, abs=0.12)
    assert estimate.graph_bytes / GIB == pytest.approx(graphs, abs=0.35)
    assert (estimate.kv_bytes + estimate.graph_bytes) / GIB == pytest.approx(kv_without_graphs, abs=0.2)


def test_two_a100_serve_the_70b_to_five_full_conversations():
    served = plan("2xA100-80GB")
    assert served.fits
    assert served.weights_bytes / GIB == pytest.approx(65.7, abs=0.05)
    assert served.kv_bytes / GIB == pytest.approx(7, abs=0.5)
    assert served.kv_tokens == pytest.approx(45_000, rel=0.05)
    assert math.floor(served.full_conversations) == served.clients(8192) == 5
    assert 29 < served.decode_tokens_per_second < 30


@pytest.mark.parametrize(
    ("gpus", "quantization", "kv_tokens", "conversations", "tokens_per_second"),
    [
        ("2xA100-80GB", None, 43_664, 5, 29),
        ("2xH100", None, 43_920, 5, 48),
        ("1xA100-80GB", None, 0, 0, 15),
        ("1xA100-80GB", "fp8_per_block", 17_680, 2, 28),
        ("1xA100-80GB", "awq", 121_312, 14, 54),
        ("2xA100-80GB", "fp8_per_block", 249_296, 30, 57),
    ],
)
def test_the_table_of_the_readme(gpus, quantization, kv_tokens, conversations, tokens_per_second):
    served = plan(gpus, quantization=quantization)
    assert served.fits == (conversations > 0)
    assert served.kv_tokens == kv_tokens
    assert math.floor(served.full_conversations) == conversations
    assert round(served.decode_tokens_per_second) == tokens_per_second


def test_the_fp8_profile_has_30_full_conversations_and_its_own_graphs():
    served = plan(
        "2xA100-80GB", **EngineArguments.read(Settings(profile="production-fp8").arguments({}, quantised=False)).planned
    )
    assert (served.kv_tokens, math.floor(served.full_conversations)) == (251_264, 30)
    assert (len(served.capture_sizes), served.activation_bytes) == (7, 1024 * (3 * 14336 + 4 * 8192) * 2)


def test_marlin_repeats_the_scale_of_a_block_for_each_of_its_rows():
    """Where GPUs multiply blocks in 8 bits, and for scales of whole rows, nothing is repeated."""
    matrices = THETA_70B.linear_parameters
    assert plan("2xA100-80GB", quantization="fp8_per_block").scale_bytes == matrices // 2 // 128 * 2
    assert plan("2xA100-80GB", quantization="fp8_per_block").scale_bytes / GIB == pytest.approx(0.498, abs=0.001)
    assert plan("2xH100", quantization="fp8_per_block").scale_bytes == 0
    assert plan("2xA100-80GB", quantization="fp8_per_channel").scale_bytes == 0
    packed = replace(THETA_70B, quantisation=Quantisation("compressed-tensors", 8, in_blocks=True))
    assert plan("2xA100-80GB", packed).kv_tokens == plan("2xA100-80GB", quantization="fp8_per_block").kv_tokens


def test_guesses_make_more_graphs_and_more_tokens_of_a_pass():
    alone, guessing = plan("2xA100-80GB"), plan("2xA100-80GB", num_speculative_tokens=4)
    assert (len(guessing.capture_sizes), guessing.capture_sizes[-1]) == (42, 320)
    assert (alone.kv_tokens, guessing.kv_tokens) == (43_664, 35_728)
    assert guessing.decode_tokens_per_second == 5 * alone.decode_tokens_per_second
    assert guessing.gains.endswith("(4.4 x 8,192) and at most 147 tokens/s if every draft token is accepted")


def test_a_draft_takes_its_weights_a_place_in_the_step_and_its_part_of_each_token():
    alone = plan("2xA100-80GB", quantization="fp8_per_block", num_speculative_tokens=3)
    with_draft = plan("2xA100-80GB", quantization="fp8_per_block", num_speculative_tokens=3, draft=THETA_8B)
    assert with_draft.draft_bytes == THETA_8B.weights_bytes(2) == pytest.approx(8.03e9, rel=1e-3)
    assert (alone.step_tokens, with_draft.step_tokens) == (2048, 2048 - 32)
    activations = alone.activation_bytes - with_draft.activation_bytes
    assert alone.kv_bytes - with_draft.kv_bytes == with_draft.draft_bytes - activations
    assert (alone.kv_bytes_per_token, with_draft.kv_bytes_per_token) == (160 * 1024, 224 * 1024)
    assert with_draft.pass_bytes == alone.pass_bytes + 3 * (with_draft.draft_bytes - 128256 * 4096)
    assert not plan("2xA100-80GB", num_speculative_tokens=3, draft=THETA_8B).fits, "beside bf16 there is no room for it"
    assert "draft model         7.5 GiB, 8.0 G x 2 bytes over 2, for speculative decoding" in describe(with_draft)


def test_a_draft_keeps_its_tokens_as_the_model_does():
    """Both have one kv_cache_dtype, which the model's own scheme sets as well."""
    in_8_bits = {"num_speculative_tokens": 3, "draft": replace(THETA_8B, cache_bytes=1)}
    with pytest.raises(ValueError, match="the kv_cache_scheme of the draft model is not that of the model"):
        plan("2xA100-80GB", quantization="fp8_per_block", **in_8_bits)
    assert plan("2xA100-80GB", cache_bytes=2, **in_8_bits).kv_bytes_per_token == 224 * 1024
    one = replace(THETA_70B, cache_bytes=1)
    assert plan("2xA100-80GB", one, num_speculative_tokens=3, draft=THETA_8B).kv_bytes_per_token == 112 * 1024


def test_a_draft_that_cannot_be_split_is_named():
    odd = replace(THETA_8B, heads=31)
    assert (
        plan("2xA100-80GB", num_speculative_tokens=3, draft=odd).problem
        == "the draft model: 31 attention heads can't be split over 2 GPUs"
    )


def test_the_cost_is_the_price_by_the_tokens_of_an_hour():
    served = plan("2xA100-80GB")
    assert served.full_tokens_per_second == pytest.approx(
        31 * 2039e9 / (served.pass_bytes + 31 * 1400 * served.kv_bytes_per_token)
    )
    for rate, who in ((served.decode_tokens_per_second, "one client"), (served.full_tokens_per_second, "all clients")):
        [row] = [
            line for line in describe(served, price=10.08).splitlines() if line.endswith(f"{rate:,.1f} tokens/s x 10^6")
        ]
        assert f"${10.08 / 3600 / rate * 1e6:,.2f} tokens, {who}, at least $10.08 / 3,600 / " in row
    assert "a million" not in describe(served)


def test_no_more_callers_than_max_num_seqs():
    assert plan("2xA100-80GB", quantization="fp8_per_block", max_num_seqs=16).clients(1_400) == 16


def test_the_32k_variant_has_room_for_one_full_conversation():
    served = plan("2xA100-80GB", replace(THETA_70B, context_tokens=32768))
    assert (served.fits, math.floor(served.full_conversations), served.clients(8192)) == (True, 1, 5)


def test_a_shorter_conversation_is_suggested_where_a_full_one_does_not_fit():
    long = plan("2xA100-80GB", replace(THETA_70B, context_tokens=131072))
    assert not long.fits
    assert long.suggestions[0] == "max_model_len 43,520 fits, for one conversation at a time"
    assert replace(long, max_model_len=43520).fits
    assert not replace(long, max_model_len=43520 + 256).fits


def test_what_cannot_be_split_does_not_fit_and_counts_no_tokens():
    three = plan("3xH100")
    assert (three.fits, three.kv_tokens, three.clients(100)) == (False, 0, 0)
    assert describe(three).splitlines()[2:] == [
        "does not fit: 64 attention heads can't be split over 3 GPUs",
        "- 2x H100 would give 43,920 tokens of KV cache (5.4 x 8,192) and at most 48 tokens/s",
    ]


def test_with_more_gpus_than_kv_heads_a_further_gpu_saves_weights_only():
    eight, sixteen = plan("8xL40S"), plan("16xL40S")
    assert sixteen.kv_bytes_per_token == eight.kv_bytes_per_token
    assert sixteen.weights_bytes > eight.weights_bytes / 2


def test_a_kv_cache_in_8_bits_holds_twice_the_tokens():
    assert plan("2xA100-80GB", cache_bytes=1).kv_tokens == pytest.approx(2 * plan("2xA100-80GB").kv_tokens, abs=16)


def test_a_long_batch_takes_from_the_kv_cache():
    """0.3 GiB for 2,048 tokens; a batch of many short answers is bounded by its logits instead."""
    assert plan("2xA100-80GB").activation_bytes == 2048 * (3 * 14336 + 4 * 8192) * 2
    assert plan("2xA100-80GB", max_num_batched_tokens=8192).activation_bytes == 8192 * (3 * 14336 + 4 * 8192) * 2
    assert plan("2xA100-80GB", max_num_seqs=1024).activation_bytes == 1024 * 128256 * 16


@pytest.mark.parametrize(("max_num_seqs", "sizes"), [(1, 2), (4, 4), (32, 11), (64, 19), (256, 51), (1024, 51)])
def test_vllm_captures_graphs_for_so_many_batch_sizes(max_num_seqs, sizes):
    assert len(plan("2xA100-80GB", max_num_seqs=max_num_seqs).capture_sizes) == sizes


def test_the_exact_size_of_the_safetensors_is_used_where_they_are_served_as_they_are():
    size = 141_107_497_872
    assert plan("2xA100-80GB", weights_bytes=size).weights_bytes == pytest.approx(size / 2, rel=1e-4)
    assert plan("1xA100-80GB", weights_bytes=size).weights_bytes == size
    assert plan("1xA100-80GB", weights_bytes=size, quantization="fp8_per_block") == plan(
        "1xA100-80GB", quantization="fp8_per_block"
    )


def test_a_checkpoint_that_is_quantised_already_stays_as_it_is():
    stored = replace(THETA_70B, quantisation=Quantisation("awq", 4, 128))
    assert plan("1xA100-80GB", stored) == plan("1xA100-80GB", stored, quantization="awq")
    assert plan("1xA100-80GB", stored).suggestions == ()
    with pytest.raises(ValueError, match="quantization is 'fp8_per_block'; the checkpoint is awq"):
        plan("1xA100-80GB", stored, quantization="fp8_per_block")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"max_model_len": 8193}, "max_model_len is 8,193; the context of the model is 8,192 tokens"),
        ({"max_model_len": 0}, "max_model_len is 0; the context of the model is 8,192 tokens"),
        ({"max_num_seqs": 0}, "count, max_num_seqs, max_num_batched_tokens and cache_bytes must be at least 1"),
        ({"gpu_memory_utilization": 95}, "gpu_memory_utilization is 95; it must be above 0 and at most 1"),
        (
            {"quantization": "int2"},
            "quantization is 'int2'; known are fp8_per_block, fp8_per_channel, fp8_per_tensor, awq",
        ),
    ],
)
def test_settings_that_vllm_would_refuse_are_refused(settings, problem):
    with pytest.raises(ValueError) as raised:
        plan("2xA100-80GB", **settings)
    assert str(raised.value) == problem


DESCRIBED = """\
LlamaForCausalLM, 70,553,706,496 parameters in 16 bits, on 1x A100-80GB

each GPU           79.1 GiB, as CUDA reports it
for vLLM           75.2 GiB, x 0.95 (gpu_memory_utilization)
weights           131.4 GiB, 141.1 GB over 1: 70,553,706,496 x 2 bytes
activations         0.5 GiB, 2,048 tokens x (3 x 28,672 / 1 + 4 x 8,192) x 2 bytes
CUDA graphs         0.4 GiB, 11 batch sizes x 80 layers x 0.5 MiB
libraries           0.2 GiB, as measured
KV cache          -57.4 GiB: so much is missing
a token             320 KiB, 80 layers x 8 KV heads x 128 x 2 (key, value) x 2 bytes, on each GPU
tokens                0 in all
clients               0 of 8,192 tokens at once, or 0 of 1,400 (max_num_seqs 32)
one client         14.7 tokens/s at most, 2,039 GB/s / 139.0 GB that a pass reads
all clients           0 tokens/s at most, 0 of 1,400 with their KV cache

does not fit: needs 135.1 GiB, has 75.2 GiB
- fp8 weight-only (Marlin) would give 17,680 tokens of KV cache (2.2 x 8,192) and at most 28
  tokens/s: quantization fp8_per_block in engine_args, done while loading
- awq would give 121,312 tokens of KV cache (14.8 x 8,192) and at most 54 tokens/s: needs a
  checkpoint quantised that way
- 2x A100-80GB would give 43,664 tokens of KV cache (5.3 x 8,192) and at most 29 tokens/s"""


def test_the_whole_arithmetic_is_shown():
    assert describe(plan("1xA100-80GB")) == DESCRIBED


def test_gpus_that_multiply_in_8_bits_are_offered_plain_fp8():
    assert plan("2xH100").suggestions[0].startswith("fp8 would give 252,816 tokens")


def test_small_gpus_are_warned_of_what_is_taken_before_vllm_counts():
    small = KNOWN_SHAPES["NousResearch/Hermes-2-Theta-Llama-3-8B"]
    assert (
        plan("4xA10G", small)
        .suggestions[-1]
        .startswith("gpu_memory_utilization 0.93, if vLLM does not find that much free")
    )


@pytest.mark.parametrize("shape", [THETA_70B, THETA_8B])
@pytest.mark.parametrize("quantization", [None, "fp8_per_block", "awq"])
@pytest.mark.parametrize("gpu", GPUS)
def test_a_description_is_for_100_columns_and_a_plan_goes_into_json(shape, quantization, gpu):
    for count, draft in ((1, None), (2, THETA_8B), (3, None), (8, THETA_8B)):
        settings = {"max_num_seqs": 1024, "draft": draft, "num_speculative_tokens": 3 if draft else 0}
        described = plan_memory(shape, GPUS[gpu], count, quantization=quantization, **settings)
        assert max(map(len, describe(described, price=1234.5).splitlines())) <= 100
        assert json.loads(json.dumps(described.as_dict())) == described.as_dict()


def test_a_plan_for_machines():
    assert plan("1xA100-80GB", quantization="fp8_per_block").as_dict() == {
        "gpu": "A100-80GB",
        "count": 1,
        "max_model_len": 8192,
        "gpu_memory_utilization": 0.95,
        "max_num_seqs": 32,
        "max_num_batched_tokens": 2048,
        "num_speculative_tokens": 0,
        "parameters": 70_553_706_496,
        "quantization": "fp8_per_block",
        "bytes_per_gpu": {
            "budget": 80_737_332_101,
            "weights": 72_656_371_712,
            "scale": 1_069_547_520,
            "draft": 0,
            "activation": 486_539_264,
            "graph": 461_373_440,
            "runtime": 268_435_456,
            "kv": 5_795_064_709,
            "needed": 77_631_864_832,
        },
        "capture_sizes": [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64],
        "kv_bytes_per_token_per_gpu": 327_680,
        "kv_tokens": 17_680,
        "full_conversations": 2.16,
        "decode_tokens_per_second": 28.5,
        "full_tokens_per_second": 317.2,
        "fits": True,
        "problem": None,
        "suggestions": [],
    }
