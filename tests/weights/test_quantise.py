"""A model in 8 bits: the scales, the whole folder, and what happens when it is killed on the way."""

import json
import math
import subprocess
import sys
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from hermes.devserver.server import PROJECT
from hermes.errors import WeightsError
from hermes.sizing.shape import ModelShape, Quantisation
from hermes.weights import quantise as quantising
from hermes.weights.quantise import quantise, quantised, scheme_for
from tests.support.fakes import LLAMA_70B

MOST = 448.0  # the largest number of float8_e4m3fn
SMALLEST = 2.0**-9  # its smallest above 0
with warnings.catch_warnings():  # the import of compressed-tensors compiles a function, and torch warns of itself
    warnings.simplefilter("ignore")
    BLOCKS, CHANNELS = scheme_for([(256, 128)]), scheme_for([(256, 129)])


def dequantised(weight, scale):
    rows, columns = weight.shape[0] // scale.shape[0], weight.shape[1] // scale.shape[1]
    return weight.float() * scale.repeat_interleave(rows, 0).repeat_interleave(columns, 1)


@st.composite
def matrices(draw):
    """Random matrices of whole blocks, of any size of numbers, with some rows and blocks of zeros."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    rows, columns = (128 * draw(st.integers(1, 3)) for _ in range(2))
    matrix = torch.randn(rows, columns, generator=generator) * 10.0 ** draw(st.floats(-6, 3))
    matrix[draw(st.integers(0, rows - 1))] = 0
    if draw(st.booleans()):
        matrix[:128, :128] = 0
    return matrix.to(draw(st.sampled_from([torch.bfloat16, torch.float32])))


@pytest.mark.parametrize("scheme", [BLOCKS, CHANNELS], ids=["blocks", "channels"])
@given(matrix=matrices())
@settings(max_examples=30, deadline=None)
def test_each_weight_is_as_near_as_the_format_allows(scheme, matrix):
    """Three bits of mantissa: within 1/16 of the weight, or half of the smallest number times the scale."""
    weight, scale = quantised(matrix, scheme)
    error = (dequantised(weight, scale) - matrix.float()).abs()
    step = SMALLEST / 2 * dequantised(torch.ones_like(matrix), scale)
    assert (error <= torch.maximum(matrix.float().abs() / 16, step) * 1.0001).all()
    assert (weight.dtype, scale.dtype) == (torch.float8_e4m3fn, torch.float32)


@pytest.mark.parametrize(("scheme", "shape"), [(BLOCKS, (2, 3)), (CHANNELS, (256, 1))], ids=["blocks", "channels"])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_the_largest_weight_of_a_block_or_row_is_the_largest_number(scheme, shape, seed):
    matrix = torch.randn(256, 384, generator=torch.Generator().manual_seed(seed))
    weight, scale = quantised(matrix, scheme)
    assert scale.shape == shape
    rows, columns = 256 // shape[0], 384 // shape[1]
    blocks = weight.float().unflatten(0, (-1, rows)).unflatten(2, (-1, columns)).abs()
    assert (blocks.amax((1, 3)) == MOST).all()
    largest = matrix.unflatten(0, (-1, rows)).unflatten(2, (-1, columns)).abs().amax((1, 3))
    assert torch.allclose(scale * MOST, largest, rtol=1e-6)


def tensors(layers, size=128, seed=0):
    """Some of the tensors of a Llama with these layers."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"self_attn.q_proj": (size, size), "mlp.down_proj": (size, 2 * size), "input_layernorm": (size,)}
    return {
        f"model.layers.{layer}.{name}.weight": torch.randn(*shape, generator=generator).bfloat16()
        for layer in layers
        for name, shape in shapes.items()
    }


ENDS = {"model.embed_tokens.weight": torch.ones(64, 128).bfloat16(), "lm_head.weight": torch.ones(64, 128).bfloat16()}


def write_model(folder, shards, **config):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], **config}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.py").write_text("")
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / name, metadata={"format": "pt"})
    where = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model", [{**tensors([0]), **ENDS}, tensors([1, 2])])


def files_in(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_model_becomes_one_of_the_same_tensors_and_their_scales(model, tmp_path):
    out = quantise(model, tmp_path / "fp8")
    index = json.loads((out / "model.safetensors.index.json").read_text())
    found = {name: tensor for shard in out.glob("*.safetensors") for name, tensor in load_file(shard).items()}
    assert index["weight_map"].keys() == found.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.values())
    linear = {name for name in found if name.endswith("_proj.weight")}
    assert {found[name].dtype for name in linear} == {torch.float8_e4m3fn}
    assert {name for name in found if name.endswith("_scale")} == {f"{name}_scale" for name in linear}
    kept = {**tensors([0]), **ENDS, **tensors([1, 2])}
    assert all(torch.equal(found[name], kept[name]) for name in kept.keys() - linear)
    assert sorted(files_in(out)) == sorted({*files_in(model)} - {"model.py"})


def test_the_config_says_how(model, tmp_path):
    config = json.loads((quantise(model, tmp_path / "fp8") / "config.json").read_text())
    said = config.pop("quantization_config")
    assert config == {"architectures": ["LlamaForCausalLM"]}
    [group] = said["config_groups"].values()
    wanted = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "block", "block_structure": [128, 128]}
    assert wanted.items() <= group["weights"].items()
    assert (said["quant_method"], said["format"], said["ignore"]) == (
        "compressed-tensors",
        "float-quantized",
        ["lm_head"],
    )
    assert group["targets"] == ["Linear"]
    assert (group["input_activations"]["dynamic"], group["input_activations"]["group_size"]) == (True, 128)
    assert ModelShape.from_config(LLAMA_70B | {"quantization_config": said}).quantisation == Quantisation(
        "compressed-tensors", 8, in_blocks=True
    )


def test_one_matrix_that_is_no_whole_blocks_makes_it_a_scale_a_row(tmp_path):
    out = quantise(write_model(tmp_path / "model", [tensors([0]), tensors([1], size=96)]), tmp_path / "fp8")
    found = {name: tensor for shard in out.glob("*.safetensors") for name, tensor in load_file(shard).items()}
    assert found["model.layers.0.mlp.down_proj.weight_scale"].shape == (128, 1)
    assert (
        json.loads((out / "config.json").read_text())["quantization_config"]["config_groups"]["group_0"]["weights"][
            "strategy"
        ]
        == "channel"
    )


def test_the_plan_reads_such_a_checkpoint():
    llama = {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 2,
        "hidden_size": 128,
        "num_attention_heads": 2,
    }
    sizes = {"num_key_value_heads": 1, "vocab_size": 64, "intermediate_size": 256, "max_position_embeddings": 64}
    said = quantising._quantization_config(BLOCKS)
    shape = ModelShape.from_config({**llama, **sizes, "quantization_config": said})
    assert (shape.quantisation.method, shape.quantisation.bits_per_weight) == ("compressed-tensors", 8)


def test_the_same_model_gives_the_same_bytes(model, tmp_path):
    assert files_in(quantise(model, tmp_path / "one")) == files_in(quantise(model, tmp_path / "two"))


class Killed(BaseException):
    """As if the process ended."""


def killed_after(monkeypatch, count):
    plain, written = quantising._write_shard, []

    def write(source, *rest):
        if len(written) == count:
            raise Killed
        written.append(source.name)
        plain(source, *rest)

    monkeypatch.setattr(quantising, "_write_shard", write)
    return written


def test_a_run_that_was_killed_goes_on_with_the_next_shard(model, tmp_path, monkeypatch):
    whole = files_in(quantise(model, tmp_path / "whole"))
    with monkeypatch.context() as patched:
        first = killed_after(patched, 1)
        with pytest.raises(Killed):
            quantise(model, tmp_path / "fp8")
    assert not (tmp_path / "fp8").exists()
    second = killed_after(monkeypatch, 9)
    assert files_in(quantise(model, tmp_path / "fp8")) == whole
    assert (first, second) == (["model-00001-of-00002.safetensors"], ["model-00002-of-00002.safetensors"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fp8", "model", "whole"]


def test_what_is_left_of_another_model_is_not_used(model, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        killed_after(patched, 1)
        with pytest.raises(Killed):
            quantise(model, tmp_path / "fp8")
    changed = tensors([0], seed=1)
    save_file({**changed, **ENDS}, model / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    written = killed_after(monkeypatch, 9)
    found = load_file(quantise(model, tmp_path / "fp8") / "model-00001-of-00002.safetensors")
    assert len(written) == 2
    weight = "model.layers.0.mlp.down_proj.weight"
    assert torch.equal(found[weight].float(), quantised(changed[weight], BLOCKS)[0].float())


def refused(model, out):
    with pytest.raises(WeightsError) as raised:
        quantise(model, out)
    assert not [path for path in out.parent.iterdir() if path.name.endswith(".safetensors")]
    return str(raised.value)


def test_what_cannot_be_quantised_is_refused_with_the_reason(model, tmp_path):
    (tmp_path / "there").mkdir()
    assert "it is there already; delete it, or choose another path" in refused(model, tmp_path / "there")
    fp8 = quantise(model, tmp_path / "fp8")
    assert "it is quantised already; name a model in 16 bits" in refused(fp8, tmp_path / "again")
    experts = {"model.layers.0.block_sparse_moe.experts.0.w1.weight": torch.ones(128, 128)}
    mixtral = write_model(tmp_path / "mixtral", [experts])
    problem = "its tensor model.layers.0.block_sparse_moe.experts.0.w1.weight is of no kind that is known here"
    assert problem in refused(mixtral, tmp_path / "out")
    shard = model / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    assert f"{shard.name} is damaged or cut short: its header describes " in refused(model, tmp_path / "out")


BAD = {
    "NaN in a matrix": ("model.layers.1.mlp.down_proj.weight", math.nan),
    "an infinity in a matrix": ("model.layers.2.self_attn.q_proj.weight", math.inf),
    "an infinity below zero": ("model.layers.1.self_attn.q_proj.weight", -math.inf),
    "NaN in a norm": ("model.layers.2.input_layernorm.weight", math.nan),
    "an infinity in a norm": ("model.layers.1.input_layernorm.weight", math.inf),
}


@pytest.mark.parametrize("size", [128, 96], ids=["blocks", "channels"])
@pytest.mark.parametrize(("tensor", "number"), BAD.values(), ids=BAD)
def test_a_number_that_is_none_is_refused_with_its_tensor_and_file(tmp_path, tensor, number, size):
    shard = tensors([1, 2], size)
    shard[tensor].view(-1)[-1] = number
    message = refused(write_model(tmp_path / "model", [tensors([0], size), shard]), tmp_path / "out")
    assert f"model-00002-of-00002.safetensors': its tensor {tensor} has a NaN or an infinity; fetch it" in message
    assert not (tmp_path / "out").exists()


def test_the_rotary_embeddings_in_files_of_llama_2_stay_as_they_are(tmp_path):
    rotary = {
        f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": 1 / 1e4 ** (torch.arange(0, 64, 2) / 64)
        for layer in range(3)
    }
    out = quantise(write_model(tmp_path / "model", [{**tensors([0, 1, 2]), **rotary}]), tmp_path / "fp8")
    found = load_file(out / "model-00001-of-00001.safetensors")
    assert all(torch.equal(found[name], values) for name, values in rotary.items())


PEAKS = """
import resource, sys
from pathlib import Path
from hermes.weights.quantise import quantise
for folder in map(Path, sys.argv[1:]):
    quantise(folder, folder.with_suffix(".fp8"))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_only_one_shard_is_in_memory(tmp_path):
    """Eight shards take hardly more than two."""
    shard = tensors(range(20), size=512)  # 31 MB
    models = [write_model(tmp_path / f"of-{count}", [shard] * count) for count in (2, 8)]
    command = [sys.executable, "-c", PEAKS, *map(str, models)]
    done = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, timeout=500)
    two, eight = map(int, done.stdout.split())
    size = sum(tensor.nbytes for tensor in shard.values()) / 1024
    assert eight - two < (8 - 2) / 2 * size, f"KiB at the peak: {two} and {eight}; a shard has {size:.0f}"
