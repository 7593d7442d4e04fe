import gc
import hashlib
import json
import os
import resource
import signal
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import psutil
import pytest

from hermes.weights import http
from hermes.weights.source import HubSource
from hermes.weights.staging import MARKER
from tests.support.asking import until
from tests.support.fakes import safetensors
from tests.support.faults import Corrupt, Html, NoRange, Reset, Stall, Status, Truncate, WrongLength
from tests.support.hub_server import HubServer
from tests.support.tiny_models import MODEL, QUICK, WEIGHTS, files_in, refusal, store_in

SOURCE = HubSource("org/model")
SHARDS = {f"model-0000{n}-of-00004.safetensors": safetensors(30_000 - n, n) for n in range(1, 5)}


@pytest.fixture
def server(monkeypatch, tmp_path):
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))  # of hf_xet's logs
        server.add_repo("org/model", MODEL)
        yield server


@pytest.fixture
def store(tmp_path):
    return store_in(tmp_path)


def staged(store, name):
    (found,) = store.folder.glob(f".*.partial/{name}")
    return found


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
    monkeypatch.setattr(http, "READ_SECONDS", 0.3)
    store = store_in(tmp_path, patience=replace(QUICK, attempts=10))  # a busy machine is silent, too
    shards = {
        f"model-{n:05}-of-{len(FAULTS):05}.safetensors": safetensors(30_000 - n, n) for n in range(1, len(FAULTS) + 1)
    }
    server.add_repo("org/model", {"config.json": b"{}", **shards})
    for shard, fault in zip(shards.values(), FAULTS, strict=True):
        server.fail(hashlib.sha256(shard).hexdigest(), fault)
    assert files_in(store.fetch(SOURCE).folder) == {"config.json": b"{}", **shards}
    assert server._faults == []


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 269060552\n"
NO_WEIGHTS = {
    "a pointer of git-lfs": (
        POINTER,
        "is a pointer of git-lfs and not the file itself; run `git lfs pull` in its clone",
    ),
    "a page": (b"<!DOCTYPE html>" * 2000, "does not begin as safetensors do; fetch it again from its origin"),
    "a header longer than the file": ((1 << 40).to_bytes(8, "little") + b"{" * 9, "does not begin as safetensors do"),
}


@pytest.mark.parametrize(("content", "problem"), NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_what_is_no_safetensors_is_refused_before_the_bulk(server, store, content, problem):
    name = min(SHARDS)
    server.add_repo("org/model", {"config.json": b"{}", **SHARDS, name: content})
    assert f"weights 'hf://org/model@main': {name} {problem}" in refusal(store.fetch, SOURCE)
    assert server.bytes_sent == len(b"{}")


@pytest.mark.parametrize("fault", [Status(503), Reset(3), Html()], ids=repr)
def test_faults_that_pass_are_not_seen_at_the_first_look_either(server, store, fault):
    server.fail("/cdn/", fault, looks=True)
    assert files_in(store.fetch(SOURCE).folder) == MODEL
    assert server._faults == []


FOR_EVER = {
    "a busy server": (Status(503), "HTTP 503 Service Unavailable"),
    "a signature that has run out": (Status(403), "HTTP 403 Forbidden"),
    "a page instead": (Html(), "the host has 56 bytes instead of 30000"),
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


def test_the_host_is_given_the_time_that_it_asks_for(server, store):
    server.fail("/cdn/", Status(429, retry_after=1))
    began = time.monotonic()
    store.fetch(SOURCE)
    assert time.monotonic() - began >= QUICK.longest_retry_after


def test_a_wrong_checksum_is_fetched_once_more(server, store, caplog):
    server.fail("/cdn/", Corrupt(at=5))
    server.fail("config.json", Corrupt(at=5))
    assert files_in(store.fetch(SOURCE).folder) == MODEL
    assert caplog.messages == [
        "weights: config.json has the wrong checksum; it is fetched once more",
        "weights: model.safetensors has the wrong checksum; it is fetched once more",
    ]


WRONG = {
    "of a large file": ("model.safetensors", "/cdn/", "SHA-256 0bf1411"),
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


def test_what_is_there_is_not_fetched_again(server, store):
    server.fail("/cdn/", Reset(20_000))
    server.fail("/cdn/", Status(404))
    assert "there is nothing (HTTP 404 Not Found); check the address and your access" in refusal(store.fetch, SOURCE)
    assert staged(store, "parts/model.safetensors").read_bytes() == WEIGHTS[:20_000]
    server.clear()
    assert (
        10_000 <= store.fetch(SOURCE).fetched_bytes == server.bytes_sent < 10_100
    )  # small files may have been stopped


def test_when_one_file_fails_the_others_stop_and_stay(server, store):
    server.add_repo("org/model", {**MODEL, **SHARDS})
    server.fail("/cdn/", Stall(2000, seconds=20), times=3)
    server.fail("/cdn/", Status(404))
    began = time.monotonic()
    assert "HTTP 404" in refusal(store.fetch, SOURCE)
    assert time.monotonic() - began < 10
    server.clear()
    assert files_in(store.fetch(SOURCE).folder) == {
        **SHARDS,
        "config.json": b'{"dim": 8}',
        "tokenizer.json": b'{"a": 1}',
    }


@contextmanager
def no_file_larger_than(size):
    """A write beyond it fails as one to a full disk does, with another number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more_is_an_error_and_the_finished_files_stay(server, store):
    model = {name: MODEL[name] for name in ("config.json", "model.safetensors")}
    server.add_repo("org/model", model)
    with no_file_larger_than(20_000):
        message = refusal(store.fetch, SOURCE)
    assert f"weights 'hf://org/model@main': {store.folder} can't be written (File too large); make room or" in message
    assert files_in(staged(store, "files")) == {"config.json": MODEL["config.json"]}
    server.clear()
    assert files_in(store.fetch(SOURCE).folder) == model
    assert server.bytes_sent == 10_000


def test_a_disk_that_is_full_at_the_very_end_costs_nothing_more(server, store):
    server.fail("/cdn/", Status(404))
    refusal(store.fetch, SOURCE)
    marker = staged(store, "files") / f".{MARKER}.{os.getpid()}"
    marker.symlink_to("/dev/full")
    assert f"{store.folder} can't be written (No space left on device)" in refusal(store.fetch, SOURCE)
    assert not (store.folder / SOURCE.key).exists()
    marker.unlink(missing_ok=True)
    server.clear()
    assert files_in(store.fetch(SOURCE).folder) == MODEL
    assert server.bytes_sent == 0


@pytest.fixture
def ctrl_c_interrupts():
    """Also where these tests were started with SIGINT ignored, as a shell does in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_interrupts")
def test_ctrl_c_leaves_what_has_come_and_no_thread_or_connection(server, store, monkeypatch):
    for name in ("PIECE", "LEAST"):
        monkeypatch.setattr(http, name, 4000)
    seen = []
    monkeypatch.setattr("hermes.weights.store.shown", lambda progress, _: nullcontext(seen.append(progress)))
    server.fail("/cdn/", Stall(20_000), times=None)

    def interrupt():
        until(lambda: seen[0].done >= 20_000 - 2 * 4000, 30, "the client has what it takes at once")
        os.kill(os.getpid(), signal.SIGINT)

    server.on_bytes(20_018, threading.Thread(target=interrupt).start)
    before, began = threading.enumerate(), time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        store.fetch(SOURCE)
    assert time.monotonic() - began < 5
    assert [thread.name for thread in threading.enumerate() if thread not in before and "weights" in thread.name] == []
    assert not (store.folder / SOURCE.key).exists()
    server.clear()
    assert files_in(store.fetch(SOURCE).folder) == MODEL
    assert 10_000 <= server.bytes_sent <= 10_018 + 2 * 4000


@pytest.mark.usefixtures("ctrl_c_interrupts")
def test_ctrl_c_ends_a_first_look_at_a_host_that_is_silent(server, store):
    server.add_repo("org/model", {"config.json": b"{}", **SHARDS})
    server.fail("/cdn/", Stall(0), times=None, looks=True)

    def interrupt():
        until(lambda: len(server.looks) >= 2 * len(SHARDS), 30, "each shard is looked at, on the hub and its CDN")
        os.kill(os.getpid(), signal.SIGINT)

    before, began = threading.enumerate(), time.monotonic()
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        store.fetch(SOURCE)
    assert time.monotonic() - began < http.READ_SECONDS / 2
    assert [thread.name for thread in threading.enumerate() if thread not in before and "weights" in thread.name] == []
    assert len(server.looks) == 2 * len(SHARDS), "nobody went on looking"


def test_one_file_that_is_no_safetensors_ends_the_looks_at_the_others(server, store):
    bad, *others = sorted(SHARDS)
    server.add_repo("org/model", {"config.json": b"{}", **SHARDS, bad: POINTER})
    for name in others:
        server.fail(hashlib.sha256(SHARDS[name]).hexdigest(), Stall(0), times=None, looks=True)
    began = time.monotonic()
    assert f"{bad} is a pointer of git-lfs" in refusal(store.fetch, SOURCE)
    assert time.monotonic() - began < http.READ_SECONDS / 2
    assert len(server.looks) <= 2 * len(SHARDS)


@pytest.mark.parametrize("fault", [Truncate(5), Corrupt(at=3), Html(), Reset(5)], ids=repr)
def test_faults_that_pass_are_not_seen_in_the_index_either(server, store, fault):
    index = json.dumps({"weight_map": {name: name for name in SHARDS}}).encode()
    model = {"config.json": b"{}", "model.safetensors.index.json": index, **SHARDS}
    server.add_repo("org/model", model)
    server.fail("model.safetensors.index.json", fault)
    assert files_in(store.fetch(SOURCE).folder) == model
    assert server._faults == []


def test_an_index_that_stays_wrong_is_an_error_that_says_what_was_found(server, store):
    server.add_repo("org/model", {"config.json": b"{}", "model.safetensors.index.json": b"[]", **SHARDS})
    server.fail("model.safetensors.index.json", Corrupt(at=0), times=None)
    message = refusal(store.fetch, SOURCE)
    assert "failed 3 times in a row (model.safetensors.index.json: expected git's SHA-1 0637a08" in message
    assert ", found " in message


def test_no_connection_outlives_a_fetch(server, store):
    store.fetch(SOURCE)
    gc.collect()
    port = int(server.url.rpartition(":")[2])
    hub_client = 1  # that huggingface_hub keeps one is its own affair
    opened = [each for each in psutil.Process().net_connections("tcp") if each.raddr and each.raddr.port == port]
    assert len([each for each in opened if each.status == "ESTABLISHED"]) <= hub_client


def test_xet_files_are_verified_and_interrupted_alike(server, store):
    server.add_repo("org/model", MODEL, xet=True)
    server.fail("/xet-read-token/", Status(503))
    assert files_in(store.fetch(SOURCE).folder) == MODEL
