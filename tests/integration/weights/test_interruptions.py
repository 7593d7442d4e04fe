"""A full disk, Ctrl-C or the failure of a file ends a fetch at once. The next fetch goes on from what is there."""

import gc
import os
import signal
import threading
import time
from contextlib import nullcontext

import psutil
import pytest

from hermes.weights import http
from hermes.weights.source import HubSource
from hermes.weights.staging import MARKER
from tests.support.asking import until
from tests.support.disks import no_file_larger_than
from tests.support.faults import Reset, Stall, Status
from tests.support.tiny_models import MODEL, SHARDS, SMALL, WEIGHTS, files_in, refusal, staged

SOURCE = HubSource("org/model")


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
    assert time.monotonic() - began < http.READ_SECONDS / 2
    server.clear()
    assert files_in(store.fetch(SOURCE).folder) == {
        **SHARDS,
        "config.json": b'{"dim": 8}',
        "tokenizer.json": b'{"a": 1}',
    }


def test_a_disk_that_takes_no_more_is_an_error_and_the_finished_files_stay(server, store):
    with no_file_larger_than(20_000):
        message = refusal(store.fetch, SOURCE)
    problem = f"weights 'hf://org/model@main': {store.folder} can't be written (File too large)"
    assert f"{problem}; raise the limit on the size of a file" in message
    assert files_in(staged(store, "files")).items() <= MODEL.items()
    server.clear()
    assert files_in(store.fetch(SOURCE).folder) == MODEL
    assert 10_000 <= server.bytes_sent < 10_100  # the tokenizer may have been stopped


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
    assert time.monotonic() - began < http.READ_SECONDS / 2
    assert [thread.name for thread in threading.enumerate() if thread not in before and "weights" in thread.name] == []
    assert not (store.folder / SOURCE.key).exists()
    server.clear()
    assert files_in(store.fetch(SOURCE).folder) == MODEL
    assert 10_000 <= server.bytes_sent <= 10_018 + 2 * 4000


@pytest.mark.usefixtures("ctrl_c_interrupts")
def test_ctrl_c_ends_a_first_look_at_a_host_that_is_silent(server, store):
    server.add_repo("org/model", {**SMALL, **SHARDS})
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


def test_no_connection_outlives_a_fetch(server, store):
    store.fetch(SOURCE)
    port = int(server.url.rpartition(":")[2])
    hub_client = 1  # that huggingface_hub keeps one is its own affair

    def opened():
        gc.collect()
        found = [each for each in psutil.Process().net_connections("tcp") if each.raddr and each.raddr.port == port]
        return len([each for each in found if each.status == "ESTABLISHED"])

    until(lambda: opened() <= hub_client, http.READ_SECONDS / 2, "the connections are closed")


def test_xet_files_are_verified_and_interrupted_alike(server, store):
    server.add_repo("org/model", MODEL, xet=True)
    server.fail("/xet-read-token/", Status(503))
    assert files_in(store.fetch(SOURCE).folder) == MODEL
