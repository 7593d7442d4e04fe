"""What the first bytes of a file tell: our check refuses what the safetensors package refuses, and says why."""

import json
import random

import pytest
from safetensors import SafetensorError, safe_open

from hermes.errors import WeightsError
from hermes.weights.safetensors import BITS, HEAD, chosen_safetensors, is_adapter, require_tokenizer, require_whole
from tests.support.tiny_models import refusal

NAME = "model.safetensors"
HEADER = {
    "a": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
    "b": {"dtype": "F32", "shape": [], "data_offsets": [12, 16]},
    "c": {"dtype": "F8_E4M3", "shape": [0, 7], "data_offsets": [16, 16]},
    "__metadata__": {"format": "pt"},
}


def shard(header, size=16):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


def checked(content, tensors=()):
    """Check the bytes of a file. Returns how many of them were read."""
    read = []

    def next_bytes(start, end):
        assert start == sum(read), "it reads on"
        read.append(end - start)
        return content[start:end]

    require_whole("m", NAME, len(content), next_bytes, tensors)
    return sum(read)


def changed(name="a", **values):
    return HEADER | {name: HEADER[name] | values}


WHOLE = {
    "tensors": shard(HEADER),
    "no tensors": shard({}, 0),
    "no metadata": shard(changed() | {"__metadata__": None}),
    "blanks after the header": shard(json.dumps(HEADER).encode() + b"   "),
    "four bits": shard({"a": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}, 2),
    "a tensor named metadata": shard({"metadata": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, 1),
    "the rotary embedding of Llama 2": shard(
        {"model.layers.0.self_attn.rotary_emb.inv_freq": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    ),
}
BROKEN = {
    "cut short by a byte": (shard(HEADER, 15), "its header describes 16 bytes of tensors, but 15 bytes follow"),
    "cut short by a tensor": (shard(HEADER, 12), "its header describes 16 bytes of tensors, but 12 bytes follow"),
    "no data": (shard(HEADER, 0), "its header describes 16 bytes of tensors, but 0 bytes follow"),
    "longer": (shard(HEADER, 17), "its header describes 16 bytes of tensors, but 17 bytes follow"),
    "data without tensors": (shard({}, 9), "its header describes 0 bytes of tensors, but 9 bytes follow"),
    "not JSON": (shard(b'{"a": '), "its header is not valid (Invalid JSON: EOF while parsing"),
    "not UTF-8": (shard(b'{"\xff": 1}'), "its header is not valid (Invalid JSON: "),
    "a list for a tensor": (shard({"a": [1]}), "its header is not valid ('a' Input should be "),
    "no shape": (shard({"a": {"dtype": "U8", "data_offsets": [0, 1]}}), "is not valid ('a' 'shape' Field required"),
    "half a length": (shard(changed(shape=[2.5, 3])), "its header is not valid ('a' 'shape' 0 Input should be a valid"),
    "a negative length": (shard(changed(shape=[-2, -3])), "its header is not valid ('a' 'shape' 0 Input should be "),
    "metadata of numbers": (
        shard(HEADER | {"__metadata__": {"a": 1}}),
        "is not valid ('__metadata__' 'a' Input",
    ),
    "an unknown type": (shard(changed(dtype="Q4_0")), "its tensor 'a' has the unknown type 'Q4_0'"),
    "a type of torch": (shard(changed(dtype="bfloat16")), "its tensor 'a' has the unknown type 'bfloat16'"),
    "a type of more bits": (shard(changed(dtype="F32")), "tensor 'a' has 12 bytes, which are not [2, 3] of F32"),
    "another shape": (shard(changed(shape=[2, 4])), "its tensor 'a' has 12 bytes, which are not [2, 4] of BF16"),
    "half a byte": (
        shard({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}}, 2),
        "its tensor 'a' has 2 bytes, which are not [3] of F4",
    ),
    "a hole": (
        shard(changed("b", data_offsets=[13, 17]), 17),
        "its tensor 'b' begins at byte 13, but the one before it ends at byte 12",
    ),
    "an overlap": (
        shard(changed("b", data_offsets=[8, 12]), 12),
        "its tensor 'b' begins at byte 8, but the one before it ends at byte 12",
    ),
    "a hole at the beginning": (
        shard({"a": {"dtype": "U8", "shape": [1], "data_offsets": [3, 4]}}, 4),
        "its tensor 'a' begins at byte 3, but the one before it ends at byte 0",
    ),
    "an end before its beginning": (shard(changed(data_offsets=[0, -12])), "is not valid ('a' 'data_offsets' 1 Input"),
}
NO_BEGINNING = {
    "a header longer than the file": (10_000).to_bytes(8, "little") + b"{}",
    "a header longer by one": (3).to_bytes(8, "little") + b"{}",
    "a header of no bytes": bytes(8) + b"{}",
    "nothing but a length": (2).to_bytes(8, "little"),
    "a few bytes": b"{}",
    "a page": b"<!DOCTYPE html>" * 9,
    "zeros": bytes(900),
    "a list": shard(b"[]"),
}


def is_accepted(content):
    try:
        checked(content)
    except WeightsError:
        return False
    return True


def package_takes(content, folder):
    (folder / NAME).write_bytes(content)
    try:
        with safe_open(folder / NAME, framework="np"):
            return True
    except SafetensorError:
        return False


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
def test_a_whole_file_is_accepted(tmp_path, content):
    checked(content)
    assert package_takes(content, tmp_path)


@pytest.mark.parametrize(("content", "problem"), BROKEN.values(), ids=BROKEN)
def test_a_broken_header_or_a_wrong_size_is_refused_with_the_reason(tmp_path, content, problem):
    message = refusal(checked, content)
    assert message.startswith("E1000 WeightsError: weights 'm': model.safetensors is damaged or cut short: ")
    assert problem in message
    assert message.endswith("; fetch it again from its origin, or name another model")
    assert not package_takes(content, tmp_path)


@pytest.mark.parametrize("content", NO_BEGINNING.values(), ids=NO_BEGINNING)
def test_another_file_is_refused(tmp_path, content):
    assert "model.safetensors does not begin as safetensors do" in refusal(checked, content)
    assert not package_takes(content, tmp_path)


@pytest.mark.parametrize("dtype", BITS)
def test_the_package_knows_the_types_and_their_sizes(tmp_path, dtype):
    size = BITS[dtype]  # bytes of eight elements
    content = shard({"a": {"dtype": dtype, "shape": [8], "data_offsets": [0, size]}}, size)
    checked(content)
    assert package_takes(content, tmp_path)


def test_any_other_byte_in_a_header_is_judged_as_the_package_does(tmp_path):
    draw, whole = random.Random(0), shard(HEADER)
    for _ in range(600):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 1, 2))):
            content[draw.randrange(len(whole) - 16)] = draw.choice(b'0123456789{}[]":,-.ab FU')
        assert is_accepted(bytes(content)) == package_takes(bytes(content), tmp_path), bytes(content)


def test_only_the_header_is_read():
    assert checked(shard({"a": {"dtype": "U8", "shape": [1 << 20], "data_offsets": [0, 1 << 20]}}, 1 << 20)) == HEAD
    long = {f"{n}": {"dtype": "U8", "shape": [1000], "data_offsets": [1000 * n, 1000 * n + 1000]} for n in range(1000)}
    assert checked(shard(long, 1_000_000)) == 8 + len(json.dumps(long))


@pytest.mark.parametrize(
    ("tensors", "missing"), [({"d"}, "d"), ({"a", "b", "z", "y"}, "y"), ({"__metadata__"}, "__metadata__")]
)
def test_a_tensor_that_only_the_index_has_is_named(tensors, missing):
    problem = f"model.safetensors.index.json names its tensor '{missing}', which it does not have"
    assert problem in refusal(checked, shard(HEADER), tensors)
    checked(shard(HEADER), {"a", "c"})


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n"
READ_AT_START = [
    *("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json", "tokenizer.model.v3"),
    *("vocab.txt", "merges.txt", "special_tokens_map.json", "added_tokens.json", "params.json", "tekken.json"),
    *("model.safetensors.index.json", "consolidated.safetensors.index.json", "quantize_config.json"),
]


def checked_as(name, content):
    require_whole("m", name, len(content), lambda start, end: content[start:end])


@pytest.mark.parametrize("name", READ_AT_START)
def test_what_a_model_loads_is_neither_empty_nor_a_pointer(name):
    assert f"{name} is empty" in refusal(checked_as, name, b"")
    assert f"{name} is a pointer of git-lfs" in refusal(checked_as, name, POINTER)
    checked_as(name, b"{}")


@pytest.mark.parametrize("name", ["trainer_state.json", "README.json", "LICENSE", "sub/config.json", "a.jinja"])
def test_what_no_model_loads_may_be_anything(name):
    checked_as(name, b"")
    checked_as(name, POINTER)


ADAPTERS = [
    ["adapter_config.json", "adapter_model.safetensors", "README.md"],
    ["adapter_config.json", "adapter_model.bin", "training_args.bin", "tokenizer.json"],
    ["adapter_config.json", "adapter_model.safetensors", "config.json", "tokenizer.json"],
]
NO_ADAPTERS = [
    ["adapter_config.json", "adapter_model.safetensors", "model.safetensors"],
    ["adapter_config.json", "pytorch_model-00001-of-00002.bin"],
    ["config.json"],
    [],
]


@pytest.mark.parametrize("names", ADAPTERS)
def test_an_adapter_is_refused_with_what_to_do(names):
    with pytest.raises(
        ValueError, match=r"this is a LoRA adapter; merge it into its base model, with peft's merge_and_unload\(\)"
    ):
        chosen_safetensors(names)


@pytest.mark.parametrize("names", NO_ADAPTERS)
def test_a_model_with_or_without_an_adapter_is_none(names):
    assert not is_adapter(names)


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer.json",
        "tokenizer.model",
        "spiece.model",
        "vocab.json",
        "vocab.txt",
        "tekken.json",
        "tokenizer.model.v3",
        "tokenizer.mm.model.v11m1",
    ],
)
def test_a_tokenizer_of_any_kind_is_one(name):
    require_tokenizer("m", ["config.json", name])


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "special_tokens_map.json", "tokenizer.json.bak", "tokenizer.model.bak"]
)
def test_what_is_only_about_a_tokenizer_is_none(name):
    said = "there is no tokenizer among its files; add its tokenizer.json, or name another model; a draft"
    assert said in refusal(require_tokenizer, "m", ["config.json", name])
