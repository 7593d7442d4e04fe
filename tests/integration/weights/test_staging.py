"""A fetch stages its files on the disk: it asks for room, drops what is of no use, and survives a kill."""

import os
import shutil

import pytest

from hermes.weights.progress import Progress
from hermes.weights.source import HubSource
from hermes.weights.staging import Staging
from tests.support.fakes import safetensors
from tests.support.faults import Status
from tests.support.tiny_models import MODEL, cut_off, files_in, listed, refusal, store_in, tar_of

SOURCE = HubSource("org/model")


def test_too_little_room_is_said_before_anything_is_fetched(server, store, archive, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 20_000))
    server.clear()
    numbers = f"it needs 0.0 GB, but the disk of {store.folder} has 0.0 GB free; make room for 0.0 GB more, or set"
    for source in (SOURCE, archive):
        assert numbers in refusal(store.fetch, source)
    assert server.bytes_sent <= 1  # the archive's first, to find out its size


def test_what_is_here_needs_no_room(server, store, archive, monkeypatch):
    for source, path in ((SOURCE, "/cdn/"), (archive, "/model.tar")):
        cut_off(server, path, 20_000)
        refusal(store.fetch, source)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 25_000))
    for source in (SOURCE, archive):
        assert files_in(store.fetch(source).folder) == MODEL


def test_a_part_longer_than_its_file_is_of_no_use(tmp_path):
    staging = Staging(tmp_path / "staging", SOURCE, Progress())
    staging.prepare()
    with staging.part("a", 9) as part:
        part.write(b"12345")
    assert (staging.arrived_bytes("a", 9), staging.arrived_bytes("a", 4), staging.arrived_bytes("b", 9)) == (5, 0, 0)


def test_the_room_is_told_in_gigabytes(tmp_path):
    staging = Staging(tmp_path / "staging", SOURCE, None)
    staging.prepare()
    free = shutil.disk_usage(tmp_path).free
    message = refusal(staging.require_room, free + 7 * 10**12)
    assert f"{(free + 7e12) / 1e9:.1f} GB, but the disk of {tmp_path} has " in message
    assert "make room for 7000.0 GB more, or set HERMES_WEIGHTS_DIR to a larger disk" in message


def test_what_was_staged_of_another_commit_goes(server, store):
    server.fail("/cdn/", Status(404))
    refusal(store.fetch, SOURCE)
    (old,) = store.folder.glob(".*.partial")
    server.add_repo("org/model", MODEL | {"config.json": b"{}"})
    server.fail("/cdn/", Status(404))
    refusal(store.fetch, SOURCE)
    assert [path.name for path in store.folder.glob(".*.partial")] != [old.name]
    assert not old.exists()


def test_a_process_that_was_killed_while_it_moved_a_model_leaves_no_second_one(server, store, monkeypatch):
    store.fetch(SOURCE)
    server.add_repo("org/model", MODEL | {"config.json": b"{}"})
    store.lock(SOURCE)
    monkeypatch.setattr(shutil, "rmtree", lambda path: killed())
    with pytest.raises(KeyboardInterrupt):
        store.fetch(SOURCE)
    monkeypatch.undo()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    assert not (store.folder / SOURCE.key).exists()
    server.clear()
    assert files_in(store.fetch(SOURCE).folder) == MODEL | {"config.json": b"{}"}
    assert listed(store.folder) == [f".{SOURCE.key}.busy", SOURCE.key]
    assert server.bytes_sent == 0


def killed():
    raise KeyboardInterrupt


def test_what_was_staged_before_there_was_a_lock_is_held_to_it(server, store, archive):
    store.fetch(archive)
    lock = store.lock_file.read_bytes()
    other = tar_of({**MODEL, "model.safetensors": safetensors(30_000, seed=9), "z.txt": b"z" * 3000})
    shutil.rmtree(store.folder)
    store.lock_file.unlink()
    server.add_file("/model.tar", other)
    cut_off(server, "/model.tar", 33_000)
    assert "HTTP 404" in refusal(store.fetch, archive)
    assert len(list(store.folder.glob(".*.partial/files/model.safetensors"))) == 1
    store.lock_file.write_bytes(lock)
    assert "model.safetensors is not what weights.lock has" in refusal(store.fetch, archive)


def test_a_folder_that_can_not_be_made_is_said(server, tmp_path):
    (tmp_path / "weights").write_text("a file")
    message = refusal(store_in(tmp_path).fetch, SOURCE)
    assert message.endswith("can't be written (File exists); set HERMES_WEIGHTS_DIR to a writable folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_said(server, store):
    store.folder.mkdir(mode=0o500)
    assert f"can't be written (Permission denied); give user {os.geteuid()} write access to it" in refusal(
        store.fetch, SOURCE
    )
