"""An archive comes from any host, and an interrupted one goes on where it can."""

import gzip
import time
from dataclasses import dataclass, replace

import pytest

from hermes.weights import http, reader
from hermes.weights.remote import Patience
from hermes.weights.safetensors import HEAD
from hermes.weights.source import ArchiveSource
from tests.support.fakes import safetensors
from tests.support.faults import Corrupt, FaultOfServer, Html, Reset, Status
from tests.support.file_server import FileServer
from tests.support.replies import Reply
from tests.support.tiny_models import MODEL, PACKERS, files_in, refusal, store_in, tar_of

TAR = tar_of(MODEL)
END = len(TAR.rstrip(b"\0")) // 512 * 512 + 512  # of the last file; the end mark comes next


@pytest.fixture
def server():
    with FileServer() as server:
        yield server


def cut_off(server, after):
    """The archive comes to that byte, and no further; its first byte is asked for once more, and alone."""

    def strike():
        server.fail("/model.tar", Status(404))
        server._server.hang_up()

    server.clear()
    server.on_bytes(1 + after, strike)


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("suffix", PACKERS)
def test_an_archive_comes_from_any_host(server, store, suffix, ranges):
    data = PACKERS[suffix](TAR)
    source = ArchiveSource(server.add_file(f"/model{suffix}", data, ranges=ranges))
    assert files_in(store.fetch(source).folder) == MODEL
    assert len(data) <= server.bytes_sent <= len(data) * (1 + (not ranges)) + 1


@pytest.mark.parametrize("after", [100, 5000, 20_000, 31_744, END])
def test_an_interrupted_archive_goes_on_in_the_middle_of_a_file(server, store, monkeypatch, after):
    for name, value in {"SKIPPED": 600, "LITTLE": 600}.items():
        monkeypatch.setattr(reader, name, value)
    monkeypatch.setattr(http, "PIECE", 1000)
    source = ArchiveSource(server.add_file("/model.tar", TAR))
    cut_off(server, after)
    assert "there is nothing (HTTP 404 Not Found)" in refusal(store.fetch, source)
    found = store.fetch(source)
    assert files_in(found.folder) == MODEL
    assert found.fetched_bytes <= len(TAR) - after + HEAD + 3000  # of a tar, and what comes with it


def test_the_config_of_an_interrupted_archive_is_admitted_again(server, tmp_path):
    source = ArchiveSource(server.add_file("/model.tar", TAR))
    cut_off(server, 20_000)
    refusal(store_in(tmp_path).fetch, source)
    server.clear()
    seen = []
    store_in(tmp_path, admit=lambda config: seen.append(config.read_bytes())).fetch(source)
    assert seen == [MODEL["config.json"]]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_without_ranges_or_in_a_compressed_archive_all_of_it_is_fetched_again(server, store, suffix):
    source = ArchiveSource(server.add_file(f"/model{suffix}", data := PACKERS[suffix](TAR), ranges=False))
    server.fail("/model.tar", Reset(20_000), times=2)
    server.fail("/model.tar", Status(404))
    refusal(store.fetch, source)
    server.clear()
    assert files_in(store.fetch(source).folder) == MODEL
    assert len(data) <= server.bytes_sent <= 2 * len(data)


def test_an_archive_that_changes_on_the_way_is_not_mixed(server, store):
    source = ArchiveSource(server.add_file("/model.tar", TAR))
    new = {**MODEL, "model.safetensors": safetensors(30_000, seed=9)}
    server.fail("/model.tar", Reset(20_000), skip=1)  # the first byte is asked for alone
    server.on_bytes(20_001, lambda: server.add_file("/model.tar", tar_of(new)))
    assert "it changed during the download; start again" in refusal(store.fetch, source)
    assert files_in(store.fetch(source).folder) == new
    assert list(store.folder.glob(".*.partial")) == []


class Plain(FileServer):
    """Says nothing of what a file was when."""

    def reply_to(self, call):
        reply = super().reply_to(call)
        reply.headers.pop("ETag", None)
        return reply


def test_what_can_not_be_told_from_another_archive_is_not_gone_on_with(store):
    with Plain() as server:
        source = ArchiveSource(server.add_file("/model.tar", TAR))
        cut_off(server, 20_000)
        refusal(store.fetch, source)
        new = {**MODEL, "model.safetensors": safetensors(30_000, seed=9)}
        server.add_file("/model.tar", tar_of(new))
        assert files_in(store.fetch(source).folder) == new


def test_a_corrupt_byte_in_a_locked_archive_costs_one_file(server, store):
    source = ArchiveSource(server.add_file("/model.tar", TAR))
    folder = store.fetch(source).folder
    (folder / "config.json").unlink()
    server.clear()
    server.fail("/model.tar", Corrupt(at=9000))
    assert files_in(store.fetch(source).folder) == MODEL


@dataclass(frozen=True)
class Compressed(FaultOfServer):
    """The host packs what it was to send as it is."""

    def spoil(self, reply):
        return Reply.of(gzip.compress(TAR), {"Content-Encoding": "gzip"})


@dataclass(frozen=True)
class Loop(FaultOfServer):
    def spoil(self, reply):
        return Reply.text(301, "here", {"Location": "/model.tar"})


LASTING = {
    "a page": (Html(), "sent a page of HTML in place of the file"),
    "compressed": (Compressed(), "the host sends the file compressed, with Content-Encoding 'gzip'"),
    "a loop": (Loop(), "its host redirects in a loop"),
    "a long wait": (Status(429, retry_after=3600), "its host asks to wait 3600 s, and a fetch waits at most 600 s"),
}


@pytest.mark.parametrize(("fault", "said"), LASTING.values(), ids=LASTING)
def test_a_fault_that_does_not_pass_ends_within_five_seconds(server, tmp_path, fault, said):
    source = ArchiveSource(server.add_file("/model.tar", TAR))
    server.fail("/model.tar", fault, times=None)
    began = time.monotonic()
    assert said in refusal(store_in(tmp_path, patience=Patience()).fetch, source)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_compressed_archive_may_be_compressed_once_more_on_its_way(server, store, suffix, times):
    packed = TAR
    for _ in range(times):
        packed = gzip.compress(packed)
    server.add_file(f"/model{suffix}", packed)
    server.fail(f"/model{suffix}", Labelled(), times=None)
    assert files_in(store.fetch(ArchiveSource(f"{server.url}/model{suffix}")).folder) == MODEL


@dataclass(frozen=True)
class Labelled(FaultOfServer):
    """As Apache sends each file whose name ends with .gz."""

    def spoil(self, reply):
        return replace(reply, headers={**reply.headers, "Content-Encoding": "x-gzip"})
