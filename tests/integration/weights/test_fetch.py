"""A fetch checks each file, and bears the faults of a host that pass."""

import hashlib
import time
from dataclasses import replace
from functools import partial

import pytest

from hermes.settings import Settings
from hermes.weights import http, open_store
from hermes.weights.pack import pack, predictor_config
from hermes.weights.safetensors import INDEX, require_heads
from hermes.weights.source import HubSource
from tests.support.fakes import safetensors, tensors_header
from tests.support.faults import Corrupt, Html, NoRange, Reset, Stall, Status, Truncate, WrongLength
from tests.support.tiny_models import MODEL, QUICK, SHARDS, SHARDS_INDEX, SMALL, files_in, refusal, staged, store_in

SOURCE = HubSource("org/model")

FAULTS = [
    Status(503),
    Status(502),
    Status(429),
    Status(403),  # a signature that has run out
    Reset(0),
    Reset(7000),
    Truncate(0),
    Truncate(7000),
    Stall(0),
    Stall(7000),
    Html(),
    WrongLength(-9),
    WrongLength(9),
    Corrupt(at=20_000),
]


def test_faults_that_pass_are_not_seen(server, tmp_path, monkeypatch):
    monkeypatch.setattr(http, "READ_SECONDS", 2)
    store = store_in(tmp_path, patience=replace(QUICK, attempts=30))  # a busy machine is silent, too
    shards = {
        f"model-{n:05}-of-{len(FAULTS):05}.safetensors": safetensors(30_000 - n, n) for n in range(1, len(FAULTS) + 1)
    }
    server.add_repo("org/model", {**SMALL, **shards})
    for shard, fault in zip(shards.values(), FAULTS, strict=True):
        server.fail(hashlib.sha256(shard).hexdigest(), fault)
    assert files_in(store.fetch(SOURCE).folder) == {**SMALL, **shards}
    assert server._faults == []


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 269060552\n"
NO_WEIGHTS = {
    "a pointer of git-lfs": (
        POINTER,
        "is a pointer of git-lfs and not the file itself; run `git lfs pull` in its clone",
    ),
    "a header longer than the file": ((1 << 40).to_bytes(8, "little") + b"{" * 9, "does not begin as safetensors do"),
}


@pytest.mark.parametrize(("content", "problem"), NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_what_is_no_safetensors_is_refused_before_the_bulk(server, store, content, problem):
    name = min(SHARDS)
    server.add_repo("org/model", {**SMALL, **SHARDS, name: content})
    assert f"weights 'hf://org/model@main': {name} {problem}" in refusal(store.fetch, SOURCE)
    assert server.bytes_sent == len(b"{}")


def described(size, dtype="U8"):
    return tensors_header({"1": size}).replace(b"U8", dtype.encode())


def shard(header, size):
    return len(header).to_bytes(8, "little") + header + bytes(size)


BROKEN = {
    "cut short": (SHARDS[min(SHARDS)][:-1000], "its header describes 29923 bytes of tensors, but 28923 bytes follow"),
    "longer": (SHARDS[min(SHARDS)] + bytes(7), "its header describes 29923 bytes of tensors, but 29930 bytes follow"),
    "a header that is not JSON": (shard(b'{"1": [', 20_000), "its header is not valid (Invalid JSON: "),
    "an unknown type": (shard(described(20_000, "Q8_0"), 20_000), "its tensor '1' has the unknown type 'Q8_0'"),
    "a type of another size": (
        shard(described(20_000, "F32"), 20_000),
        "its tensor '1' has 20000 bytes, which are not",
    ),
    "a tensor that only the index has": (SHARDS[max(SHARDS)], f"{INDEX} names its tensor '1', which it does not have"),
    "a long header that is cut": (shard(b"{" + b" " * 9000, 20_000), "its header is not valid (Invalid JSON: "),
    "nothing": (b"", f"{min(SHARDS)} is empty"),
}


@pytest.mark.parametrize("way", ["fetch", "lock", "pack"])
@pytest.mark.parametrize(("content", "problem"), BROKEN.values(), ids=BROKEN)
def test_broken_weights_are_refused_before_the_bulk(server, store, content, problem, way):
    model = {**SMALL, INDEX: SHARDS_INDEX, **SHARDS, min(SHARDS): content}
    server.add_repo("org/model", model)
    message = refusal(way_in(store, way))
    assert f"weights 'hf://org/model@main': {min(SHARDS)} is " in message
    assert problem in message
    assert server.bytes_sent < 10_000, "the small files, and the rest of a long header"


def way_in(store, way):
    """A function that takes the model on one of its ways."""
    if way == "pack":
        return lambda: require_heads(SOURCE, store.contents(SOURCE), QUICK)
    return partial(getattr(store, way), SOURCE)


@pytest.mark.parametrize("way", ["fetch", "lock"])
@pytest.mark.parametrize("left", [[], ["tokenizer_config.json"], ["LICENSE", "chat_template.jinja"]])
def test_a_model_without_a_tokenizer_is_refused_before_the_bulk(server, tmp_path, left, way):
    server.add_repo("org/model", {"config.json": b"{}", **SHARDS, **dict.fromkeys(left, b"{}")})
    problem = "weights 'hf://org/model@main': there is no tokenizer among its files; add its tokenizer.json"
    assert problem in refusal(getattr(store_in(tmp_path), way), SOURCE)
    assert server.bytes_sent == 0
    assert getattr(store_in(tmp_path, admit_files=lambda *_: None), way)(SOURCE)


def test_the_settings_say_which_model_needs_no_tokenizer(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server.add_repo("org/model", {"config.json": b"{}", **SHARDS})
    assert "there is no tokenizer" in refusal(open_store(Settings()).fetch, SOURCE)
    assert "there is no tokenizer" in refusal(open_store(Settings(speculation="hf://org/other")).fetch, SOURCE)
    open_store(Settings(speculation="hf://org/model")).fetch(SOURCE)
    open_store(Settings(engine_args={"tokenizer": "/tokenizer"})).fetch(replace(SOURCE, include=("*",)))


@pytest.mark.parametrize("way", ["fetch", "lock", "pack"])
def test_an_index_is_fetched_once(server, store, tmp_path, way):
    server.add_repo("org/model", {**SMALL, INDEX: SHARDS_INDEX, **SHARDS})
    server.clear()
    if way == "pack":
        files = store.contents(SOURCE)
        require_heads(SOURCE, files, QUICK)
        pack(files, predictor_config(None, {}), tmp_path / "m.tar", QUICK)
    else:
        getattr(store, way)(SOURCE)
    fetched = [each.path for each in server.requests if each.method == "GET" and "/resolve-cache/" in each.path]
    assert sum(INDEX in path for path in fetched) == 1
    assert len(fetched) == len({*fetched}) == 3


@pytest.mark.parametrize("fault", [Status(503), Reset(3), Html()], ids=repr)
def test_faults_that_pass_are_not_seen_at_the_first_look_either(server, store, fault):
    server.fail("/cdn/", fault, looks=True)
    assert files_in(store.fetch(SOURCE).folder) == MODEL
    assert server._faults == []


FOR_EVER = {
    "a busy server": (Status(503), "HTTP 503 Service Unavailable"),
    "a signature that has run out": (Status(403), "HTTP 403 Forbidden"),
    "silence": (Stall(0), "TimeoutError: timed out"),
}


@pytest.mark.parametrize(("fault", "cause"), FOR_EVER.values(), ids=FOR_EVER)
def test_a_fault_that_stays_is_an_error_that_names_the_file_and_the_cause(server, store, monkeypatch, fault, cause):
    monkeypatch.setattr(http, "READ_SECONDS", 0.1 if fault == Stall(0) else 30.0)
    server.fail("/cdn/", fault, times=None)
    assert refusal(store.fetch, SOURCE) == (
        "E1000 WeightsError: weights 'hf://org/model@main: model.safetensors': the download failed 3 times in a row "
        f"({cause}); start again when the cause is gone; a fetch resumes where it can"
    )
    assert not (store.folder / SOURCE.key).exists()


def test_a_page_that_stays_is_named_after_a_second_attempt(server, store):
    server.fail("/cdn/", Html(), times=None, looks=True)
    said = "model.safetensors': the host, or a proxy, sent a page of HTML in place of the file; take a host"
    assert said in refusal(store.fetch, SOURCE)
    assert len([asked for asked in server.looks if "/cdn/" in asked.path]) == 2


def test_a_host_that_always_breaks_off_is_borne_as_long_as_something_comes(server, store):
    server.fail("/cdn/", Reset(9000), times=None)
    assert files_in(store.fetch(SOURCE).folder) == MODEL
    assert server.bytes_sent == sum(map(len, MODEL.values()))


def test_a_host_without_ranges_sends_it_again_from_its_beginning(server, store):
    server.fail("/cdn/", Reset(9000))
    server.fail("/cdn/", NoRange())
    assert files_in(store.fetch(SOURCE).folder) == MODEL
    assert server.bytes_sent == sum(map(len, MODEL.values())) + 9000


def test_signatures_may_run_out_on_the_way(server, store):
    server.fail("/cdn/", Reset(9000))
    server.on_bytes(9000, server.expire_signatures)
    assert files_in(store.fetch(SOURCE).folder) == MODEL


def test_the_host_is_given_the_time_that_it_asks_for(server, tmp_path):
    store = store_in(tmp_path, patience=replace(QUICK, longest_retry_after=1.5))
    server.fail("/cdn/", Status(429, retry_after=1))
    began = time.monotonic()
    store.fetch(SOURCE)
    assert time.monotonic() - began >= 1


def test_a_host_that_asks_for_more_is_not_waited_for(server, store):
    server.fail("/cdn/", Status(503, retry_after=7))
    assert "its host asks to wait 7 s, and a fetch waits at most 0 s (HTTP 503" in refusal(store.fetch, SOURCE)


def test_a_wrong_checksum_is_fetched_once_more(server, store, caplog):
    server.fail("/cdn/", Corrupt(at=5))
    server.fail("config.json", Corrupt(at=5))
    assert files_in(store.fetch(SOURCE).folder) == MODEL
    assert caplog.messages == [
        "weights: config.json has the wrong checksum; it is fetched once more",
        "weights: model.safetensors has the wrong checksum; it is fetched once more",
    ]


WRONG = {
    "of a large file": ("model.safetensors", "/cdn/", "SHA-256 c13f0c5"),
    "of a small file": ("config.json", "config.json", "git's SHA-1 5e37e83"),
}


@pytest.mark.parametrize(("name", "path", "expected"), WRONG.values(), ids=WRONG)
def test_a_checksum_that_stays_wrong_is_an_error_that_says_what_was_found(server, store, name, path, expected):
    server.fail(path, Corrupt(at=5), times=None)
    message = refusal(store.fetch, SOURCE)
    assert f"{name} had the wrong checksum in two downloads: expected {expected}" in message
    assert ", found " in message
    assert not (store.folder / SOURCE.key).exists()
    assert not staged(store, "parts").joinpath(name).exists()


@pytest.mark.parametrize("size", [20_000, 40_000], ids=["too short", "too long"])
def test_a_part_that_is_damaged_on_the_disk_is_fetched_again(server, store, size):
    server.fail("/cdn/", Status(404))
    refusal(store.fetch, SOURCE)
    staged(store, "parts").joinpath("model.safetensors").write_bytes(bytes(size))
    assert files_in(store.fetch(SOURCE).folder) == MODEL


def test_one_file_that_is_no_safetensors_ends_the_looks_at_the_others(server, store):
    bad, *others = sorted(SHARDS)
    server.add_repo("org/model", {**SMALL, **SHARDS, bad: POINTER})
    for name in others:
        server.fail(hashlib.sha256(SHARDS[name]).hexdigest(), Stall(0), times=None, looks=True)
    began = time.monotonic()
    assert f"{bad} is a pointer of git-lfs" in refusal(store.fetch, SOURCE)
    assert time.monotonic() - began < http.READ_SECONDS / 2
    assert len(server.looks) <= 2 * len(SHARDS)


@pytest.mark.parametrize("fault", [Truncate(5), Corrupt(at=3), Html(), Reset(5)], ids=repr)
def test_faults_that_pass_are_not_seen_in_the_index_either(server, store, fault):
    model = {**SMALL, INDEX: SHARDS_INDEX, **SHARDS}
    server.add_repo("org/model", model)
    server.fail("model.safetensors.index.json", fault)
    assert files_in(store.fetch(SOURCE).folder) == model
    assert server._faults == []


def test_an_index_that_stays_wrong_is_an_error_that_says_what_was_found(server, store):
    server.add_repo("org/model", {**SMALL, "model.safetensors.index.json": b"[]", **SHARDS})
    server.fail("model.safetensors.index.json", Corrupt(at=0), times=None)
    message = refusal(store.fetch, SOURCE)
    assert "failed 3 times in a row (model.safetensors.index.json: expected git's SHA-1 0637a08" in message
    assert ", found " in message
