"""Of the files of a repository, those that vLLM needs are fetched, and no code."""

import pytest

from hermes.weights.hub import MAY_HOLD_CODE, choose

MODEL = ["config.json", "model.safetensors", "tokenizer.json"]
CODE = ["modeling_evil.py", "tokenizer.py", "tokenizer.pkl", "tokenizer.bin", "custom_generate/generate.py", "evil.so"]
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = "model.safetensors.index.json"

CHOICES = {
    "one file": ["model.safetensors"],
    "shards and their index": [*SHARDS, INDEX],
    "shards with longer numbers": ["model-00001-of-000002.safetensors", "model-00002-of-000002.safetensors"],
    "another name": ["pytorch_model.safetensors"],
    "what describes the tokenizer": ["model.safetensors", "merges.txt", "tokenizer.model", "vocab.txt", "a.jinja"],
    "a licence": ["LICENSE.md", "model.safetensors"],
    "only what Mistral writes": ["consolidated.safetensors"],
}
LEFT = {
    "shards beside the same in one file": (SHARDS, ["model.safetensors", "consolidated.safetensors"]),
    "the same in half precision": (["model.safetensors"], ["model.fp16.safetensors", "model.bf16.safetensors"]),
    "the same as Mistral writes it": (SHARDS, ["consolidated-00001-of-00001.safetensors"]),
    "an adapter": (["model.safetensors"], ["adapter_model.safetensors"]),
    "the same in other formats": (
        ["model.safetensors"],
        ["pytorch_model.bin", "tf_model.h5", "model.gguf", "flax_model.msgpack", "onnx/model.onnx", "rust_model.ot"],
    ),
    "folders": (["model.safetensors"], ["original/model.safetensors", "fp16/config.json"]),
    "papers": (["model.safetensors"], ["README.md", ".gitattributes", "train.py", "loss.png"]),
    "our own mark": (["model.safetensors"], [".complete.json"]),
}


@pytest.mark.parametrize("names", CHOICES.values(), ids=CHOICES)
def test_what_vllm_needs_is_chosen(names):
    assert choose(["config.json", *names]) == sorted(["config.json", *names])


@pytest.mark.parametrize(("names", "left"), LEFT.values(), ids=LEFT)
def test_what_vllm_does_not_need_is_left(names, left):
    assert choose(["config.json", *left, *names]) == sorted(["config.json", *names])


PATTERNS = {
    "another format": ((("config.json", "*.fp16.safetensors"), ()), ["config.json", "model.fp16.safetensors"]),
    "a folder": ((("config.json", "sub/*"), ()), ["config.json", "sub/model.safetensors"]),
    "all but some": (((), ("tokenizer*",)), ["config.json", "model.safetensors"]),
    "some but for one": ((("*.json",), ("tokenizer*",)), ["config.json"]),
}


@pytest.mark.parametrize(("patterns", "expected"), PATTERNS.values(), ids=PATTERNS)
def test_patterns_choose_otherwise(patterns, expected):
    names = ["config.json", "model.safetensors", "model.fp16.safetensors", "sub/model.safetensors", "tokenizer.json"]
    assert choose(names, *patterns) == expected


UNSERVABLE = {
    "only pickles": (["config.json", "pytorch_model.bin"], (), "there are no safetensors among its files, and nothing"),
    "nothing": ([], (), "there are no safetensors among its files, and nothing else is loaded"),
    "missing shards": (["config.json", SHARDS[1]], (), "there are 1 of 2 shards of its safetensors, and no index"),
    "a pickle that was asked for": (["config.json", "a.bin"], ("*",), "a.bin may hold code; only safetensors are"),
    "no config": (["model.safetensors"], (), "there is no config.json among its files"),
    "patterns of an adapter": (
        ["config.json", "adapter_config.json", "adapter_model.safetensors", "model.safetensors"],
        ("config.json", "adapter*"),
        "this is a LoRA adapter; merge it into its base model",
    ),
    "patterns without the config": (["config.json", "a.safetensors"], ("*.safetensors",), "there is no config.json"),
}


@pytest.mark.parametrize(("names", "include", "problem"), UNSERVABLE.values(), ids=UNSERVABLE)
def test_what_can_not_be_served_is_refused(names, include, problem):
    with pytest.raises(ValueError, match=problem):
        choose(names, include)


ZERO_BASED = [f"model-{n:05}-of-00003.safetensors" for n in range(4)]


INDEXED = {
    "from zero": (ZERO_BASED[:3], [], ()),
    "a stray shard": (ZERO_BASED[:3], [ZERO_BASED[3]], ()),
    "another set beside it": (ZERO_BASED[:3], ["model.safetensors", "consolidated.safetensors"], ()),
    "names of its own": (["a.safetensors", "b-2.safetensors"], ["c.safetensors"], ()),
    "patterns that leave a stray": (SHARDS, ["x.safetensors"], (("*.json", "model-*"), ())),
}


@pytest.mark.parametrize(("names", "left", "patterns"), INDEXED.values(), ids=INDEXED)
def test_where_there_is_an_index_it_decides(names, left, patterns):
    chosen = choose(["config.json", INDEX, *left, *names], *patterns, read_shards=lambda: frozenset(names))
    assert chosen == sorted(["config.json", INDEX, *names])


NOT_INDEXED = {
    "other shards": (
        SHARDS,
        (),
        (),
        f"its {INDEX} names model-00000-of-00003.safetensors and 2 more, which",
    ),
    "one is missing": (
        ZERO_BASED[:2],
        (),
        (),
        f"its {INDEX} names model-00002-of-00003.safetensors, which is",
    ),
    "patterns that leave one": (ZERO_BASED[:3], ("*.json", "*-00001-*"), (), f"its {INDEX} names model-00000-of"),
    "an exclusion of one": (
        ZERO_BASED[:3],
        (),
        ("*-00001-*",),
        f"its {INDEX} names model-00001-of-00003.safe",
    ),
}


@pytest.mark.parametrize(("names", "include", "exclude", "problem"), NOT_INDEXED.values(), ids=NOT_INDEXED)
def test_an_index_that_names_what_is_not_there_is_refused(names, include, exclude, problem):
    with pytest.raises(ValueError, match=problem):
        choose(["config.json", INDEX, *names], include, exclude, lambda: frozenset(ZERO_BASED[:3]))


def test_code_and_pickles_beside_safetensors_are_left():
    assert choose([*MODEL, *CODE, "pytorch_model.bin", "original/model.pt"]) == MODEL


@pytest.mark.parametrize("ending", MAY_HOLD_CODE)
def test_what_may_hold_code_is_refused_also_when_it_is_asked_for(ending):
    name = f"tokenizer{ending}"
    with pytest.raises(ValueError, match=rf"{name} may hold code; only safetensors are loaded"):
        choose([*MODEL, name], ["*"])
