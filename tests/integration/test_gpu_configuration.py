"""Each way to serve the 70B on two A100 80 GB, as vLLM itself resolves it, and the plan beside vLLM's own arithmetic.

vLLM runs on a faked CUDA platform, in a process of its own. Nothing is loaded, and no kernel runs. What vLLM measures
on a GPU (activations, CUDA graphs, libraries) stays the plan's estimate.
"""

import pytest

from hermes.settings import Settings
from hermes.sizing.arguments import NO_EFFECT_WITH
from tests.support.vllm_on_gpus import Case, inspect
from tests.test_docs import rows

FP8 = "production-fp8"
STREAMER = {"load_format": "runai_streamer", "model_loader_extra_config": {"concurrency": 16, "distributed": True}}
SERVED = {
    "bf16": Case(),
    "bf16, n-grams": Case(speculation="ngram"),
    "bf16, a draft of 8 B": Case(speculation="draft"),
    "fp8 while loading": Case(FP8),
    "fp8 while loading, n-grams": Case(FP8, speculation="ngram"),
    "fp8 while loading, a draft of 8 B": Case(FP8, speculation="draft"),
    "packed fp8": Case(FP8, "packed"),
    "packed fp8, n-grams": Case(FP8, "packed", "ngram"),
    "packed fp8, a draft of 8 B": Case(FP8, "packed", "draft"),
    "awq on one GPU": Case("production", "awq", engine_args={"tensor_parallel_size": 1}),
}
READ = {
    "text": Case(
        engine_args={
            "max_model_len": "4096",
            "max_num_seqs": "16",
            "max_num_batched_tokens": "1000",
            "cudagraph_capture_sizes": ["8", 2, 2000],
            "speculative_config": {"method": "ngram_gpu", "num-speculative-tokens": "1"},
        }
    ),
    "eager": Case(engine_args={"enforce_eager": "true"}),
    "streamer": Case(engine_args=STREAMER),
}
CAPTURED = [(3, 0, 2048), (200, 0, 210), (100, 7, 512), (256, 3, 8192), (7, 2, 20), (600, 1, 2048)]


def capturing(sequences, guesses, tokens):
    """A case of so many sequences, guesses for each and tokens in a batch, for the sizes that vLLM chooses."""
    speculation = {"method": "ngram_gpu", "num_speculative_tokens": guesses}
    arguments = {"max_num_seqs": sequences, "max_num_batched_tokens": tokens, "max_model_len": 1024}
    return Case(engine_args={**arguments, **({"speculative_config": speculation} if guesses else {})}, builds=False)


ON_H100 = {
    "fp8 while loading": Case(FP8),
    "packed fp8": Case(FP8, "packed"),
    "a cache in fp8": Case(engine_args={"kv_cache_dtype": "fp8"}),
    "a checkpoint with a cache in fp8": Case(FP8, "cache8"),
}

pytestmark = pytest.mark.xdist_group("gpu configuration")


@pytest.fixture(scope="module")
def found():
    return inspect({**SERVED, **READ, **{str(each): capturing(*each) for each in CAPTURED}})


@pytest.fixture(scope="module")
def on_h100():
    return inspect(ON_H100, name="NVIDIA H100 80GB HBM3", capability=[9, 0], processors=132)


@pytest.mark.parametrize("name", SERVED)
def test_vllm_takes_each_way_to_serve_and_makes_the_same_of_it(found, name):
    config, quick = found[name], SERVED[name].profile == FP8
    assert (config["runner"], config["grammars"], config["async"]) == ("V2", "guidance", True)
    assert (config["graphs"], config["attention"]) == ("FULL_AND_PIECEWISE", ["FLASH_ATTN"])
    assert config["batch"] == [1024 if quick else 2048, 32]
    assert config["executor"] == ("uni" if "one GPU" in name else "mp")
    guessing = {None: None, "ngram": ["ngram_gpu", 4], "draft": ["draft_model", 3]}
    assert config["speculation"] == guessing[SERVED[name].speculation]


@pytest.mark.parametrize(
    ("name", "count", "largest"),
    [
        ("bf16", 11, 64),
        ("bf16, n-grams", 42, 320),
        ("bf16, a draft of 8 B", 35, 256),
        ("fp8 while loading", 7, 32),
        ("fp8 while loading, n-grams", 7, 160),
        ("packed fp8, a draft of 8 B", 7, 128),
    ],
)
def test_so_many_batch_sizes_get_a_graph(found, name, count, largest):
    assert (len(found[name]["sizes"]), max(found[name]["sizes"])) == (count, largest)


def test_fp8_runs_the_same_kernel_from_a_file_as_while_loading(found):
    """On an A100 vLLM would take Humming for the file, which compiles at run time in a folder that is not kept."""
    for name in SERVED:
        kernels = {"fp8": ["MarlinFP8ScaledMMLinearKernel"], "awq": ["MarlinLinearKernel"], "bf16": []}
        assert found[name]["kernels"] == kernels[next(kind for kind in kernels if kind in name)]


@pytest.mark.long
def test_a_gpu_that_multiplies_in_8_bits_does_so_from_a_file_as_while_loading(on_h100):
    for name in ("fp8 while loading", "packed fp8"):
        assert on_h100[name]["kernels"] == ["CutlassFp8BlockScaledMMKernel"]


def test_the_streamer_reads_the_files_and_changes_nothing_else(found):
    assert found["streamer"]["load_format"] == "runai_streamer"
    assert {**found["streamer"], "load_format": "safetensors"} == found["bf16"]


def test_text_is_read_as_vllm_reads_it(found):
    assert (found["text"]["length"], found["text"]["batch"]) == (4096, [1000, 16])
    assert (found["text"]["sizes"], found["text"]["speculation"]) == ([2, 8], ["ngram_gpu", 1])
    assert (found["eager"]["sizes"], found["eager"]["graphs"]) == ([], "NONE")


def test_the_plan_knows_the_arguments_of_this_vllm_and_their_defaults(found):
    assert found["arguments"] == []
    assert NO_EFFECT_WITH["kernel_config"] == (Settings().defaults.engine_args["kernel_config"],)


@pytest.mark.parametrize(
    ("gpus", "name"),
    [
        *(("A100", name) for name in (*SERVED, *READ)),
        *(pytest.param("H100", name, marks=pytest.mark.long) for name in ON_H100),
    ],
)
def test_the_plan_is_vllms_own_arithmetic(request, gpus, name):
    """To the token, for what vLLM computes: weights with Marlin's scales, bytes of a token, graphs, the cache."""
    counted = request.getfixturevalue("found" if gpus == "A100" else "on_h100")[name]
    plan, parts = counted["plan"], counted["plan"]["bytes_per_gpu"]
    assert parts["weights"] + parts["scale"] == pytest.approx(counted["weights"][0], rel=1e-3)
    assert parts["draft"] == sum(counted["weights"][1:])
    assert plan["capture_sizes"] == counted["sizes"]
    assert [plan["max_num_batched_tokens"], plan["max_num_seqs"]] == counted["batch"]
    assert plan["kv_bytes_per_token_per_gpu"] == counted["kv_bytes_per_token"]
    assert plan["fits"] == (counted["kv_tokens"] > 0)
    assert not plan["fits"] or plan["kv_tokens"] == counted["kv_tokens"]
    needed, one_byte_less = counted["least"][1] > 0, counted["least"][0] > 0
    assert (needed, one_byte_less) == (True, False), "vLLM starts with what the plan requires, and not with less"


@pytest.mark.parametrize("batch", CAPTURED)
def test_the_plan_has_the_batch_sizes_that_vllm_captures(found, batch):
    assert found[str(batch)]["plan"]["capture_sizes"] == found[str(batch)]["sizes"]


def test_the_table_of_combinations_is_the_plans(found):
    def row(name):
        plan, sizes = found[name]["plan"], found[name]["sizes"]
        parts = {part: f"{size / 2**30:.1f} GiB" for part, size in plan["bytes_per_gpu"].items()}
        loaded = sum(plan["bytes_per_gpu"][part] for part in ("weights", "scale", "draft"))
        room = [parts["kv"], f"{plan['kv_tokens']:,}", f"{plan['full_conversations']:.1f}"]
        speed = f"{plan['decode_tokens_per_second']:.0f} tokens/s" if plan["fits"] else "-"
        return [
            name,
            f"{loaded / 2**30:.1f} GiB",
            f"{len(sizes)} to {max(sizes)}",
            *(room if plan["fits"] else ["does not fit", "-", "-"]),
            speed,
        ]

    table = rows("sizing.md", "## Eight combinations")
    assert len(table) == 8
    assert table == [row(name) for name, *_ in table]
