"""A model in a folder on this disk."""

import hashlib
import json
import os
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from hermes.errors import WeightsError
from hermes.weights import safetensors as safetensors_of_ours
from hermes.weights.folder import appearing_whole, files_of, in_place
from hermes.weights.http import PIECE
from tests.support.fakes import safetensors

SHARD = safetensors(PIECE + 3)
FILES = {"config.json": b"{}", "model.safetensors": SHARD, "tokenizer.json": b"{ }"}


@pytest.fixture
def model(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_model_is_used_where_it_is(model):
    assert in_place(model) == model


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing", "there is no such folder; name the folder of a model"),
        ("config.json", "there is no such folder; name the folder of a model"),
        ("empty", "there is no config.json in it; name the folder of a model"),
        ("x" * 300, "it can't be read (File name too long); check the path and its permissions"),
    ],
)
def test_what_is_no_model_is_refused_with_what_is_wrong(model, name, problem):
    (model / "empty").mkdir()
    for use in (in_place, files_of):
        with pytest.raises(WeightsError) as raised:
            use(model / name)
        assert str(raised.value) == f"E1000 WeightsError: weights '{model / name}': {problem}"


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ("owner/repo", "hf://owner/repo is the repository on the hub"),
        ("owner/repo@v1.5", "hf://owner/repo@v1.5 is the repository on the hub"),
        ("huggingface.co/owner/repo", "hf://owner/repo is the repository on the hub"),
        ("hf.co/owner/repo/tree/dev", "hf://owner/repo@dev is the repository on the hub"),
        ("../repo", "name the folder of a model"),
        ("owner/repo/sub", "name the folder of a model"),
        ("repo", "name the folder of a model"),
    ],
)
def test_a_path_that_looks_like_a_repository_is_told_how_to_name_it(model, monkeypatch, path, step):
    (model / "cwd").mkdir()
    monkeypatch.chdir(model / "cwd")
    with pytest.raises(WeightsError) as raised:
        in_place(model.__class__(path))
    assert str(raised.value).endswith(f"weights '{path}': there is no such folder; {step}")


def test_the_files_of_a_model_are_listed_with_their_bytes(model):
    found = files_of(model)
    assert {file.name: b"".join(file.read(0)) for file in found} == FILES
    assert [(file.size, file.sha256, file.git_sha1) for file in found] == [
        (len(content), None, None) for content in FILES.values()
    ]


@pytest.mark.parametrize("offset", [0, 1, PIECE - 1, PIECE, PIECE + 1, len(SHARD), len(SHARD) + 1])
def test_a_file_is_read_from_any_offset(model, offset):
    shard = files_of(model)[1]
    assert hashlib.sha256(b"".join(shard.read(offset))).digest() == hashlib.sha256(SHARD[offset:]).digest()


def test_only_what_is_part_of_a_model_is_listed(model):
    for name in (".complete.json", "pytorch_model.bin", "README.md", "consolidated.safetensors"):
        (model / name).write_bytes(b"x")
    (model / "folder.json").mkdir()
    assert [file.name for file in files_of(model)] == list(FILES)


def test_links_are_followed_as_in_the_hubs_own_cache(model, tmp_path_factory):
    snapshot = tmp_path_factory.mktemp("snapshot")
    for name in FILES:
        (snapshot / name).symlink_to(model / name)
    assert [(file.name, file.size) for file in files_of(snapshot)] == [
        (file.name, file.size) for file in files_of(model)
    ]


def test_a_model_without_safetensors_is_refused(model):
    (model / "model.safetensors").unlink()
    with pytest.raises(
        WeightsError, match=r"there are no safetensors among its files.*; name the folder of a model with"
    ):
        files_of(model)


SHARDS = {f"model-0000{n}-of-00002.safetensors": safetensors(100 + n, n, tensor=name) for n, name in enumerate("abc")}
INDEX = json.dumps({"weight_map": dict(zip("ab", sorted(SHARDS), strict=False))}).encode()


def sharded(model, **files):
    """The model in two shards, numbered from zero, and a stray one."""
    (model / "model.safetensors").unlink()
    for name, content in {**SHARDS, "model.safetensors.index.json": INDEX, **files}.items():
        (model / name).write_bytes(content)
    return model


def test_the_index_says_which_shards_are_the_model(model):
    names = ["config.json", *sorted(SHARDS)[:2], "model.safetensors.index.json", "tokenizer.json"]
    assert [file.name for file in files_of(sharded(model))] == names


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 269060552\n"
AGAIN = "; fetch it again from its origin, or name another model"
NO_PLAIN = "; name the folder of a model with safetensors"
BROKEN = {
    "an index of another model": (
        {"model.safetensors.index.json": INDEX.replace(b"of-00002", b"of-00009")},
        "its model.safetensors.index.json names model-00000-of-00009.safetensors and 1 more, which is not there"
        f"{NO_PLAIN}",
    ),
    "a tokenizer that was cut": (
        {"tokenizer.json": b'{"version": "1.0", "added_tok'},
        f"tokenizer.json is not a JSON object (Unterminated string starting at: line 1 column 20 (char 19)){AGAIN}",
    ),
    "a page in place of a configuration": (
        {"generation_config.json": b"<html>"},
        f"generation_config.json is not a JSON object (Expecting value: line 1 column 1 (char 0)){AGAIN}",
    ),
    "a list in place of a configuration": (
        {"tokenizer_config.json": b"3"},
        f"tokenizer_config.json is not a JSON object ('int' object is not iterable){AGAIN}",
    ),
    "an index of nothing": (
        {"model.safetensors.index.json": b'{"weight_map": {}}'},
        f"its model.safetensors.index.json names no safetensors{NO_PLAIN}",
    ),
    "an index that is none": (
        {"model.safetensors.index.json": POINTER},
        f"its model.safetensors.index.json is not an index of safetensors{NO_PLAIN}",
    ),
    "a pointer of git-lfs": (
        {min(SHARDS): POINTER},
        "model-00000-of-00002.safetensors is a pointer of git-lfs and not the file itself; "
        "run `git lfs pull` in its clone",
    ),
    "a header longer than the file": (
        {min(SHARDS): (101).to_bytes(8, "little") + b"{" + bytes(99)},
        f"model-00000-of-00002.safetensors does not begin as safetensors do{AGAIN}",
    ),
    "a shard cut short": (
        {min(SHARDS): SHARDS[min(SHARDS)][:-9]},
        "model-00000-of-00002.safetensors is damaged or cut short: its header describes 30 bytes of tensors, "
        f"but 21 bytes follow{AGAIN}",
    ),
    "a shard with more at its end": (
        {min(SHARDS): SHARDS[min(SHARDS)] + b"\n"},
        "model-00000-of-00002.safetensors is damaged or cut short: its header describes 30 bytes of tensors, "
        f"but 31 bytes follow{AGAIN}",
    ),
    "a tensor that only the index has": (
        {min(SHARDS): SHARDS[max(SHARDS)]},
        "model-00000-of-00002.safetensors is damaged or cut short: model.safetensors.index.json names its tensor 'a', "
        f"which it does not have{AGAIN}",
    ),
    "an empty config": ({"config.json": b""}, f"config.json is empty{AGAIN}"),
    "an empty tokenizer": ({"tokenizer.model": b""}, f"tokenizer.model is empty{AGAIN}"),
    "an empty vocabulary": ({"vocab.txt": b""}, f"vocab.txt is empty{AGAIN}"),
    "a pointer of git-lfs for a tokenizer": (
        {"tokenizer.json": POINTER},
        "tokenizer.json is a pointer of git-lfs and not the file itself; run `git lfs pull` in its clone",
    ),
    "nothing": (
        {min(SHARDS): b""},
        f"model-00000-of-00002.safetensors is empty{AGAIN}",
    ),
}


@pytest.mark.parametrize(("files", "problem"), BROKEN.values(), ids=BROKEN)
def test_weights_that_can_not_be_loaded_are_refused(model, files, problem):
    with pytest.raises(WeightsError) as raised:
        files_of(sharded(model, **files))
    assert str(raised.value) == f"E1000 WeightsError: weights '{model}': {problem}"


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors", "generation_config.json", "merges.txt"])
def test_a_link_that_leads_nowhere_is_named(model, name):
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to("blobs/4d7a")
    said = f"{name} is a link to blobs/4d7a, which is not there{AGAIN}"
    with pytest.raises(WeightsError, match=re.escape(said)):
        files_of(model)


def test_a_config_that_is_a_link_to_nowhere_is_named(model):
    (model / "config.json").unlink()
    (model / "config.json").symlink_to("../blobs/1")
    for use in (in_place, files_of):
        with pytest.raises(WeightsError, match=r"config.json is a link to ../blobs/1, which is not there; fetch it"):
            use(model)


def test_what_is_not_a_file_is_named(model):
    (model / "tokenizer.json").unlink()
    os.mkfifo(model / "tokenizer.json")
    with pytest.raises(WeightsError, match=r"tokenizer.json is not a file; fetch it again"):
        files_of(model)


@pytest.mark.parametrize(
    "name",
    ["README.md", "README.json", "chat.jinja", "images\\fig.png", "pytorch_model.bin", "consolidated.safetensors"],
)
def test_a_link_to_nowhere_that_is_no_part_of_the_model_is_left(model, name):
    (model / name).symlink_to("nowhere")
    assert [file.name for file in files_of(model)] == list(FILES)


@pytest.mark.parametrize("content", [b"", POINTER], ids=["empty", "a pointer"])
def test_a_file_that_no_model_loads_may_be_anything(model, content):
    (model / "trainer_state.json").write_bytes(content)
    assert [file.name for file in files_of(model)] == sorted([*FILES, "trainer_state.json"])


@pytest.mark.parametrize("config", [{}, {"config.json": b"{}"}], ids=["alone", "with a config"])
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin"])
def test_an_adapter_is_refused_with_what_to_do(tmp_path, name, config):
    for file, content in {"adapter_config.json": b"{}", name: SHARD, **config}.items():
        (tmp_path / file).write_bytes(content)
    with pytest.raises(
        WeightsError, match=r"this is a LoRA adapter; merge it into its base model, with peft's merge_and_unload\(\)"
    ):
        files_of(tmp_path)


def test_an_index_larger_than_any_is_not_read(model, monkeypatch):
    monkeypatch.setattr(safetensors_of_ours, "LARGEST_INDEX", len(INDEX) - 1)
    with pytest.raises(WeightsError, match=rf"its model.safetensors.index.json is {len(INDEX)} bytes; at most"):
        files_of(sharded(model))


def test_a_file_that_is_gone_meanwhile_is_named(model):
    shard = files_of(model)[1]
    (model / shard.name).unlink()
    with pytest.raises(WeightsError, match=r"model.safetensors': it can't be read \(No such file or directory\)"):
        list(shard.read(0))


def test_another_user_can_read_what_appeared_whole(tmp_path):
    (plain := tmp_path / "plain").mkdir()
    (plain / "config.json").write_text("{}")
    with appearing_whole(tmp_path / "model") as unfinished:
        save_file({"ones": np.ones(1)}, unfinished / "model.safetensors")
    assert (tmp_path / "model").stat().st_mode == plain.stat().st_mode
    assert (tmp_path / "model/model.safetensors").stat().st_mode == (plain / "config.json").stat().st_mode
