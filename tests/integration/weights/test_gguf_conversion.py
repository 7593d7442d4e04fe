"""GGUF files through transformers: a Llama of two layers written here, and the packaged SmolLM2. No engine, no GPU."""

import json

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, dequantize, quantize
from safetensors.torch import load_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from hermes.engine.engine import end_tokens
from hermes.errors import WeightsError
from hermes.weights import gguf, smollm2
from tests.support.disks import no_file_larger_than

TOKENS = ["<|end|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet()), "hi"]
HIDDEN, HEADS, KV_HEADS, INTERMEDIATE, BASE = 256, 4, 2, 256, 500_000.0
SHAPES = {"attn_q": HIDDEN, "attn_k": HIDDEN // 2, "attn_v": HIDDEN // 2, "attn_output": HIDDEN} | dict.fromkeys(
    ("ffn_gate", "ffn_up", "ffn_down"), INTERMEDIATE
)


def tensors():
    """Random weights of a Llama in llama.cpp's names; head_dim is 64."""
    draw = np.random.default_rng(0)
    found = {"token_embd": draw.normal(size=(len(TOKENS), HIDDEN)), "output_norm": np.ones(HIDDEN)}
    for block in ("blk.0", "blk.1"):
        found |= {f"{block}.{name}": draw.normal(size=(rows, HIDDEN)) for name, rows in SHAPES.items()}
        found |= {f"{block}.{name}": np.ones(HIDDEN) for name in ("attn_norm", "ffn_norm")}
    return {f"{name}.weight": values.astype(np.float32) for name, values in found.items()}


def write(path, tensors, architecture="llama", **fields):
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_context_length(32768)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(BASE)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3, *[1] * (len(TOKENS) - 3)])
    writer.add_token_merges(["h i"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_chat_template("{{ messages }}")
    for name, value in fields.items():
        writer.add_key_value(name, value, GGUFValueType.get_type(value))
    for name, values in tensors.items():
        if values.ndim == 2:
            writer.add_tensor(name, quantize(values, GGMLQuantizationType.Q8_0), raw_dtype=GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def values_in(file):
    """Tensors of a GGUF file in bfloat16, by its own names."""
    return {
        tensor.name: torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).bfloat16()
        for tensor in GGUFReader(file).tensors
    }


def logits(model):
    with torch.no_grad():
        return model(torch.arange(12)[None]).logits.float()


def test_every_weight_of_the_packaged_model_is_that_of_its_file(small_model):
    converted = load_file(small_model / "model.safetensors")
    in_file = values_in(smollm2.packaged_file())
    assert len(converted) == len(in_file) == 272
    for name, block in (
        ("mlp.down_proj", "ffn_down"),
        ("self_attn.v_proj", "attn_v"),
        ("input_layernorm", "attn_norm"),
    ):
        for layer in range(30):
            assert torch.equal(converted[f"model.layers.{layer}.{name}.weight"], in_file[f"blk.{layer}.{block}.weight"])
    assert torch.equal(converted["model.embed_tokens.weight"], in_file["token_embd.weight"])


def test_a_file_becomes_a_folder_that_can_be_served(tmp_path):
    file = write(tmp_path / "tiny.gguf", tensors(), **{"tokenizer.ggml.eot_token_id": 2})
    folder = gguf.dequantised(file, tmp_path / "model")
    assert sorted(path.name for path in folder.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert end_tokens(folder, tokenizer, len(TOKENS)) == [0, 2]
    assert tokenizer.encode("<|im_start|>hi<|im_end|>") == [1, len(TOKENS) - 1, 2]
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    assert logits(AutoModelForCausalLM.from_pretrained(folder)).isfinite().all()


def test_a_disk_that_takes_no_more_is_named_and_not_the_file(tmp_path):
    file = write(tmp_path / "tiny.gguf", tensors())
    with no_file_larger_than(1_000), pytest.raises(WeightsError) as full:  # safetensors gives the reason as text
        gguf.dequantised(file, tmp_path / "weights" / "model")
    assert str(full.value) == (
        f"E1000 WeightsError: weights '{file}': {tmp_path}/weights can't be written (File too large); "
        "raise the limit on the size of a file (ulimit -f), or set HERMES_WEIGHTS_DIR to a writable folder"
    )
    assert list((tmp_path / "weights").iterdir()) == []


def test_the_stretched_rope_of_llama_3_1_is_kept(tmp_path):
    plain = 1 / BASE ** (np.arange(0, 64, 2) / 64)
    smooth = np.clip((8192 * plain / (2 * np.pi) - 1) / (4 - 1), 0, 1)
    factors = (1 / ((1 - smooth) / 8 + smooth)).astype(np.float32)  # as llama.cpp writes them
    file = write(tmp_path / "llama-3.1.gguf", tensors() | {"rope_freqs.weight": factors})
    model = AutoModelForCausalLM.from_pretrained(gguf.dequantised(file, tmp_path / "model"))
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](model.config, torch.device("cpu"))
    assert np.allclose(frequencies.numpy(), plain / factors, rtol=1e-5)


def test_what_transformers_would_get_wrong_is_refused(tmp_path):
    lacking = {name: values for name, values in tensors().items() if "blk.1.ffn" not in name}
    stretched = {"llama.rope.scaling.original_context_length": 4096}
    refused = {
        write(tmp_path / "lacking.gguf", lacking): "4 of the model's tensors are missing, such as model.layers.1.",
        write(
            tmp_path / "yarn.gguf", tensors(), **{"llama.rope.scaling.type": "yarn"}
        ): "would ignore its stretched context (rope)",
        write(tmp_path / "long.gguf", tensors(), **stretched): "would ignore its stretched context (rope)",
        write(tmp_path / "new.gguf", tensors(), "grok"): "GGUF model with architecture grok is not supported yet.",
    }
    for file, problem in refused.items():
        with pytest.raises(WeightsError) as error:
            gguf.dequantised(file, tmp_path / "model")
        assert problem in str(error.value)
        assert str(error.value).endswith("; serve the model's safetensors instead, from its original repository")
    assert sorted(tmp_path.iterdir()) == sorted(refused)
