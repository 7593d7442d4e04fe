"""Of an archive, the members that are the model are unpacked. What could not be loaded is refused."""

import logging
import re
import subprocess
import tarfile

import pytest

from hermes.weights.source import ArchiveSource
from tests.support.archives import unpack
from tests.support.fakes import safetensors
from tests.support.tiny_models import MODEL, SMALL, files_in, refusal, store_in, tar_of

SHARD_1, SHARD_2, SHARD_3 = (safetensors(2_000 + n, n, tensor=name) for n, name in enumerate("abc"))
INDEX = b'{"weight_map": {"a": "model-00000-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"}}'
SHARDED = {  # numbered from zero
    **SMALL,
    "model-00000-of-00002.safetensors": SHARD_1,
    "model-00001-of-00002.safetensors": SHARD_2,
    "model.safetensors.index.json": INDEX,
}
STRAY = {"model-00002-of-00002.safetensors": SHARD_3}


def folder(name):
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


ADAPTER = {"adapter_config.json": b"{}", "adapter_model.safetensors": SHARD_1}
LEFT_OUT = {
    "the original weights, before": ({"original/model.safetensors": b"x", **MODEL}, MODEL),
    "the original weights, after": ({**MODEL, "original/consolidated.00.safetensors": b"x"}, MODEL),
    "pickles": (
        {"pytorch_model.bin": b"x", **MODEL, "optimizer.pt": b"x", "original/consolidated.00.pth": b"x"},
        MODEL,
    ),
    "code": ({**MODEL, "modeling_evil.py": b"x"}, MODEL),
    "a stray shard behind the index": ({**SHARDED, **STRAY}, SHARDED),
    "a stray shard before the index": ({**STRAY, **SHARDED}, SHARDED),
    "a weight of any name": (
        {"images\\fig.bin": b"x", "a\u3000.pt": b"x", "\u200b.py": b"x", "x" * 300 + ".pkl": b"x", **MODEL},
        MODEL,
    ),
    "a shard of any name in a folder": ({"config.json": b"{}", **MODEL, "a\u200b/b.safetensors": b"x"}, MODEL),
    "files with names that are not printable, too long or of another system": (
        {**MODEL, "images\\fig.png": b"x", "README\u3000.md": b"x", "x" * 300 + ".txt": b"x", "\x1b[2J.txt": b"x"},
        MODEL,
    ),
    "small files with such names in a folder": ({"a/b\u200b.json": b"x", "a\\/tokenizer.json": b"x", **MODEL}, MODEL),
    "no name": ({**MODEL, "": b"x"}, MODEL),
    "a folder with such a name": (
        {**{name: folder(name) for name in ("img\u3000", "a\\b", "x" * 300)}, **MODEL},
        MODEL,
    ),
    "an adapter": ({**ADAPTER, **MODEL}, {"adapter_config.json": b"{}", **MODEL}),
    "an adapter behind the model": ({**MODEL, **ADAPTER}, {"adapter_config.json": b"{}", **MODEL}),
    "the whole beside its shards": ({**SHARDED, "model.safetensors": SHARD_3}, SHARDED),
}


@pytest.mark.parametrize(("packed", "model"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_would_not_be_fetched_of_a_repository_is_left_out(server, store, packed, model):
    source = ArchiveSource(server.add_file("/model.tar", tar_of(packed)))
    folder = store.fetch(source).folder
    assert files_in(folder) == model
    (folder / "config.json").unlink()
    assert files_in(store.fetch(source).folder) == model, "also when it is held to the lock"


PARTS = {
    "no weights": ({"config.json": b"{}"}, "there are no safetensors among its files, and nothing else is loaded"),
    "only pickles": ({"config.json": b"{}", "pytorch_model.bin": b"x"}, "there are no safetensors among its files"),
    "a shard is missing": (
        {name: data for name, data in SHARDED.items() if "00001" not in name},
        "its model.safetensors.index.json names model-00001-of-00002.safetensors, which is not there",
    ),
    "an index of another model": (
        {"config.json": b"{}", "model.safetensors": SHARD_1, "model.safetensors.index.json": INDEX},
        "its model.safetensors.index.json names model-00000-of-00002.safetensors and 1 more, which is not there",
    ),
    "shards without an index": ({"config.json": b"{}", **STRAY}, "there are 1 of 2 shards of its safetensors, and no"),
    "an index that is none": (
        {**SHARDED, "model.safetensors.index.json": b"[]"},
        "its model.safetensors.index.json is no",
    ),
    "a model in a folder": (
        {f"model/{name}": data for name, data in MODEL.items()},
        "the model is in its folder 'model'; pack it again",
    ),
    "a model in a folder, its config last": (
        {f"a/b/{name}": MODEL[name] for name in reversed(MODEL)},
        "the model is in its folder 'a/b'; pack it again",
    ),
    "a pointer of git-lfs": (
        {"config.json": b"{}", "model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"},
        "model.safetensors is a pointer of git-lfs and not the file itself; run `git lfs pull` in its clone",
    ),
    "a page for a model": (
        {"config.json": b"{}", "model.safetensors": b"<!DOCTYPE html>" * 9},
        "model.safetensors does not begin as safetensors do; fetch it again from its origin",
    ),
    "an adapter": (
        {"adapter_config.json": b"{}", "adapter_model.safetensors": SHARD_1},
        "this is a LoRA adapter; merge it into its base model, with peft's merge_and_unload()",
    ),
    "a shard cut short": (
        {**SHARDED, "model-00000-of-00002.safetensors": SHARD_1[:-5]},
        "model-00000-of-00002.safetensors is damaged or cut short: its header describes 1926 bytes of tensors, but",
    ),
    "a shard with more at its end": (
        {**MODEL, "model.safetensors": SHARD_1 + b"\n"},
        "model.safetensors is damaged or cut short: its header describes 1926 bytes of tensors, but 1927 bytes follow",
    ),
    "a tensor that only the index before it has": (
        {"model.safetensors.index.json": INDEX, **SHARDED, "model-00000-of-00002.safetensors": SHARD_3},
        "model-00000-of-00002.safetensors is damaged or cut short: model.safetensors.index.json names its tensor 'a'",
    ),
    "a tensor that only the index after it has": (
        {**SHARDED, "model-00001-of-00002.safetensors": SHARD_3},
        "model-00001-of-00002.safetensors is damaged or cut short: model.safetensors.index.json names its tensor 'b'",
    ),
    "a pointer of git-lfs for a tokenizer": (
        {**MODEL, "tokenizer.json": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"},
        "tokenizer.json is a pointer of git-lfs and not the file itself",
    ),
    "an empty tokenizer": ({**MODEL, "tokenizer.model": b""}, "tokenizer.model is empty"),
    "an empty vocabulary": ({**MODEL, "vocab.txt": b""}, "vocab.txt is empty"),
    "an empty model": ({"config.json": b"{}", "model.safetensors": b""}, "model.safetensors is empty"),
}


@pytest.mark.parametrize(("packed", "problem"), PARTS.values(), ids=PARTS)
def test_what_could_not_be_loaded_is_refused(tmp_path, packed, problem):
    assert f": {problem}" in refusal(unpack, tmp_path, tar_of(packed))


NEEDED = ["tokenizer\u3000.model", "a\\b.json", "model\u200b.safetensors", "./\x1b.json", "x" * 251 + ".json"]


@pytest.mark.parametrize("name", NEEDED)
def test_what_would_be_fetched_of_a_repository_is_refused_by_its_name(tmp_path, name):
    said = (
        f": {name.removeprefix('./')!r} is {'too long for a' if len(name) > 255 else 'not a safe'} file name; pack it"
    )
    assert said in refusal(unpack, tmp_path, tar_of({**MODEL, name: SHARD_1}))


def test_the_log_names_what_is_left_out_for_its_name(tmp_path, caplog):
    caplog.set_level(logging.INFO, "hermes")
    assert unpack(tmp_path, tar_of({"a\u200b.md": b"x", **MODEL, "images\\fig.png": b"x"})) == MODEL
    assert caplog.messages == [
        "weights: http://host/model.tar: 'a\\u200b.md' is not a safe file name; it is left out",
        "weights: http://host/model.tar: 'images\\\\fig.png' is not a safe file name; it is left out",
    ]


def test_an_archive_without_a_tokenizer_is_refused(server, tmp_path):
    model = {name: data for name, data in MODEL.items() if name != "tokenizer.json"}
    source = ArchiveSource(server.add_file("/model.tar", tar_of(model)))
    assert "there is no tokenizer among its files; add its tokenizer.json" in refusal(store_in(tmp_path).fetch, source)
    assert files_in(store_in(tmp_path, admit_files=lambda *_: None).fetch(source).folder) == model


def test_what_is_in_the_wrong_place_or_no_weights_is_refused_before_the_bulk(server, store):
    bulk = safetensors(40 << 20)
    for name in ("model/a.safetensors", "a.safetensors"):
        broken = bulk if "/" in name else bytes(len(bulk))
        folder = name.rpartition("a.")[0]
        source = ArchiveSource(server.add_file("/model.tar", tar_of({f"{folder}config.json": b"{}", name: broken})))
        server.clear()
        refusal(store.fetch, source)
        assert server.bytes_sent < len(bulk) / 2


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin"])
def test_an_adapter_is_refused_before_the_bulk(server, store, name):
    bulk = safetensors(40 << 20)
    source = ArchiveSource(server.add_file("/model.tar", tar_of({"adapter_config.json": b"{}", name: bulk})))
    assert "this is a LoRA adapter; merge it" in refusal(store.fetch, source)
    assert server.bytes_sent < len(bulk) / 2


def test_the_advice_makes_an_archive_that_can_be_unpacked(tmp_path):
    """As in the hub's own cache, where the files of a model are links to blobs; and with holes."""
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    folder.mkdir()
    for number, (name, data) in enumerate(MODEL.items()):
        (blobs / str(number)).write_bytes(data)
        (folder / name).symlink_to(blobs / str(number))
    (folder / "again.json").hardlink_to(blobs / "0")
    (folder / "twice.json").hardlink_to(blobs / "0")
    with (folder / "holes.txt").open("wb") as file:
        file.truncate(1 << 20)
    model = {
        **MODEL,
        "again.json": MODEL["config.json"],
        "twice.json": MODEL["config.json"],
        "holes.txt": bytes(1 << 20),
    }
    archive = tmp_path / "model.tar"
    subprocess.run(["tar", "-S", "-C", str(folder), "-cf", str(archive), "."], check=True)
    message = refusal(unpack, tmp_path / "1", archive.read_bytes())
    advised = re.search(r"`(tar [^`]+)`", message)[1].replace("FOLDER", str(folder)).replace("model.tar", str(archive))
    subprocess.run(advised.split(), check=True)
    assert unpack(tmp_path / "2", archive.read_bytes()) == model


def test_no_model_is_no_model(server, store):
    source = ArchiveSource(server.add_file("/model.tar", tar_of({"a.txt": b"a"})))
    assert "there is no config.json at its top; pack it again" in refusal(store.fetch, source)
    assert not (store.folder / source.key).exists()
