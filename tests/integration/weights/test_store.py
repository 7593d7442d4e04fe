"""The store keeps each model whole, alone in its folder and as it is locked. It never shows a secret."""

import hashlib
import json
import os
import shutil
import threading
from contextlib import nullcontext
from dataclasses import replace

import pytest
from pydantic import SecretStr

from hermes.errors import WeightsError
from hermes.weights import http, hub
from hermes.weights.lock import read_lock_file
from hermes.weights.remote import Patience
from hermes.weights.source import ArchiveSource, HubSource
from hermes.weights.staging import MARKER
from tests.support.faults import Corrupt, NoRange, Reset, Stall, Status, Truncate
from tests.support.tiny_models import (
    MODEL,
    WEIGHTS,
    cut_off,
    everything_said,
    files_in,
    listed,
    refusal,
    store_in,
    tar_of,
)

SOURCE = HubSource("org/model")
SIZE = sum(map(len, MODEL.values()))


def held(store, source=SOURCE):
    return read_lock_file(store.lock_file).model_for(str(source))


def relock(store, name, source=SOURCE, **changes):
    """Write another lock of the same model."""
    lock = held(store, source)
    files = tuple(file.model_copy(update=changes) if file.name == name else file for file in lock.files)
    document = {"version": 1, "models": [lock.model_copy(update={"files": files}).model_dump(mode="json")]}
    store.lock_file.write_text(json.dumps(document))


def test_a_fetched_model_is_alone_in_a_folder_with_a_mark_and_locked(server, store):
    found = store.fetch(SOURCE)
    lock = held(store)
    assert listed(store.folder) == [f".{SOURCE.key}.busy", SOURCE.key]
    assert listed(found.folder) == [MARKER, *sorted(MODEL)]
    assert {file.name: (file.size, file.sha256) for file in lock.files} == {
        name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in MODEL.items()
    }
    marker = json.loads((found.folder / MARKER).read_bytes())
    assert (marker["digest"], marker["lock"]) == (lock.digest, lock.model_dump(mode="json"))
    assert (found.fetched_bytes, found.plan_seconds > 0, found.download_seconds > 0) == (SIZE, True, True)


@pytest.mark.parametrize("kind", ["hub", "archive"])
def test_the_progress_ends_at_its_total_after_whatever_went_wrong(server, store, archive, monkeypatch, kind):
    seen = []
    monkeypatch.setattr("hermes.weights.store.shown", lambda progress, _: nullcontext(seen.append(progress)))
    source, path = (SOURCE, "/cdn/") if kind == "hub" else (archive, "/model.tar")
    cut_off(server, path, 20_000)
    refusal(store.fetch, source)
    for fault in (Status(503), Truncate(3000), Reset(3000), NoRange(), Corrupt(7)):
        server.fail(path, fault)
    store.fetch(source)
    assert [(progress.done, progress.files_done) for progress in seen[1:]] == [(seen[1].total, 3)]


def test_each_revision_has_a_folder_of_its_own(server, store):
    main, tagged = store.fetch(SOURCE).folder, store.fetch(replace(SOURCE, revision="v1")).folder
    assert main != tagged
    assert files_in(main) == files_in(tagged) == MODEL
    assert [(folder, lock.source) for folder, lock in store.models()] == sorted(
        [(main, "hf://org/model@main"), (tagged, "hf://org/model@v1")]
    )


@pytest.mark.parametrize("kind", ["hub", "archive"])
def test_a_model_that_is_here_needs_no_network(server, store, archive, kind):
    source = SOURCE if kind == "hub" else archive
    folder = store.fetch(source).folder
    server.close()
    store.lock_file.unlink()
    again = store.fetch(source)
    assert (again.folder, again.fetched_bytes) == (folder, 0)
    assert held(store, source).digest == json.loads((folder / MARKER).read_bytes())["digest"]


def test_a_store_that_can_not_be_written_serves_what_is_here(server, store, monkeypatch, caplog):
    store.fetch(SOURCE)
    store.lock_file.unlink()
    store.lock_file.parent.joinpath(f".weights.lock.{os.getpid()}").symlink_to("/dev/full")
    assert files_in(store.fetch(SOURCE).folder) == MODEL
    assert caplog.messages[-1] == (
        f"weights: {store.lock_file} can't be written ([Errno 28] No space left on device); the next fetch may differ"
    )


def test_without_a_mark_a_full_folder_is_not_trusted(server, store):
    folder = store.folder / SOURCE.key
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "model.safetensors").write_bytes(bytes(30_000))
    assert files_in(store.fetch(SOURCE).folder) == MODEL


@pytest.mark.parametrize("damage", [None, b"", WEIGHTS + b"."], ids=["lost", "emptied", "longer"])
@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_of_a_damaged_model_only_what_is_damaged_is_fetched(server, store, caplog, name, damage):
    path = store.fetch(SOURCE).folder / name
    path.unlink() if damage is None else path.write_bytes(damage)
    server.clear()
    assert files_in(store.fetch(SOURCE).folder) == MODEL
    assert server.bytes_sent == len(MODEL[name])
    assert f"weights: {SOURCE} is here, but its file {name} is missing or has another size" in caplog.messages


def test_a_damaged_archive_is_fetched_again(server, store, archive):
    (store.fetch(archive).folder / "tokenizer.json").unlink()
    assert files_in(store.fetch(archive).folder) == MODEL


def test_a_lock_holds_a_model_where_it_was_when_its_branch_moves_on(server, store):
    store.fetch(SOURCE)
    server.add_repo("org/model", MODEL | {"config.json": b"{}"})
    shutil.rmtree(store.folder)
    assert files_in(store.fetch(SOURCE).folder) == MODEL


def test_without_a_lock_the_branch_counts(server, store):
    store.fetch(SOURCE)
    server.add_repo("org/model", MODEL | {"config.json": b"{}"})
    shutil.rmtree(store.folder)
    store.lock_file.unlink()
    assert files_in(store.fetch(SOURCE).folder) == MODEL | {"config.json": b"{}"}


def test_another_lock_makes_another_model(server, store, caplog):
    store.fetch(SOURCE)
    server.add_repo("org/model", MODEL | {"config.json": b"{}"})
    moved = store.lock(SOURCE)
    assert files_in(store.fetch(SOURCE).folder) == MODEL | {"config.json": b"{}"}
    assert (held(store), [lock for _, lock in store.models()]) == (moved, [moved])
    assert f"weights: {SOURCE} is here, but its files are not the ones in weights.lock" in caplog.messages
    assert listed(store.folder) == [f".{SOURCE.key}.busy", SOURCE.key]


OTHER = "0" * 64
MISMATCHES = {
    "a large file": ("model.safetensors", {"sha256": OTHER}, OTHER, hashlib.sha256(WEIGHTS).hexdigest()),
    "a small file": ("config.json", {"sha256": OTHER}, OTHER, hashlib.sha256(MODEL["config.json"]).hexdigest()),
    "a size": ("config.json", {"size": 11}, "11 bytes", "10 bytes"),
}


@pytest.mark.parametrize(("name", "change", "expected", "found"), MISMATCHES.values(), ids=MISMATCHES)
def test_what_is_not_as_locked_is_refused_with_expected_and_found(server, store, name, change, expected, found):
    store.fetch(SOURCE)
    relock(store, name, **change)
    message = refusal(store.fetch, SOURCE)
    before, _, after = message.partition(" found ")
    assert (name in before, "expected " in before, expected in before, found in after) == (True,) * 4


def test_an_archive_that_is_not_as_locked_is_refused_with_expected_and_found(server, store, archive):
    store.fetch(archive)
    relock(store, "model.safetensors", archive, sha256=OTHER)
    message = refusal(store.fetch, archive)
    expected = f"expected 30000 bytes with SHA-256 {OTHER}, found 30000 bytes with SHA-256 c13f0c"
    assert f"was damaged in two downloads (model.safetensors is not what weights.lock has: {expected}" in message


def test_a_lock_without_a_config_is_refused(server, store):
    store.fetch(SOURCE)
    shutil.rmtree(store.folder)
    lock = held(store)
    lock = lock.model_copy(update={"files": lock.files[1:]})
    store.lock_file.write_text(json.dumps({"models": [lock.model_dump(mode="json")]}))
    assert "there is no config.json at its top; name a model, or correct weights.lock" in refusal(store.fetch, SOURCE)


def test_locking_fetches_only_the_small_files(server, store):
    server.add_repo("org/model", {**MODEL, "README.md": b"a model"})
    server.clear()
    lock = store.lock(SOURCE)
    assert server.bytes_sent == SIZE - len(WEIGHTS)
    assert not store.folder.exists()
    store.fetch(SOURCE)
    assert held(store) == lock == next(store.models())[1]


def test_a_lock_that_can_not_be_written_is_an_error(server, store):
    store.lock_file.parent.joinpath(f".weights.lock.{os.getpid()}").symlink_to("/dev/full")
    assert "can't be written (No space left on device); free space there, or set HERMES_WEIGHTS_LOCK" in refusal(
        store.lock, SOURCE
    )


def test_verifying_names_what_is_wrong_and_a_fetch_mends_it(server, store):
    folder = store.fetch(SOURCE).folder
    assert store.verify(SOURCE) == []
    (folder / "model.safetensors").write_bytes(bytes(30_000))
    (folder / "config.json").unlink()
    missing, changed = store.verify(SOURCE)
    assert missing == "config.json is not there"
    assert changed.startswith(
        "model.safetensors is not what weights.lock has: expected 30000 bytes with SHA-256 c13f0c"
    )
    (folder / "model.safetensors").unlink()
    store.fetch(SOURCE)
    assert store.verify(SOURCE) == []


def test_only_what_is_here_can_be_verified(store):
    assert "it has not been fetched; run `python -m hermes weights fetch`" in refusal(store.verify, SOURCE)


def test_the_contents_are_those_here_or_those_on_the_hub(server, store, archive):
    assert [file.name for file in store.contents(SOURCE)] == sorted(MODEL)
    store.fetch(SOURCE)
    server.close()
    assert [(file.name, b"".join(file.read(0))) for file in store.contents(SOURCE)] == sorted(MODEL.items())
    assert "what an archive holds is known when it has been fetched" in refusal(store.contents, archive)


def test_a_model_that_is_not_admitted_costs_no_more_than_its_config(server, tmp_path, archive):
    seen = []

    def refuse(config):
        seen.append(config.read_bytes())
        raise WeightsError(SOURCE, "it does not fit", "take a smaller one")

    store = store_in(tmp_path, admit=refuse)
    server.clear()
    assert "it does not fit; take a smaller one" in refusal(store.fetch, SOURCE)
    assert server.bytes_sent == len(MODEL["config.json"])
    for _ in range(2):  # the second finds the config here
        assert "it does not fit" in refusal(store.fetch, archive)
    assert seen == [MODEL["config.json"]] * 3


def test_of_two_threads_one_fetches_and_the_other_waits_and_says_so(server, tmp_path, caplog):
    caplog.set_level("INFO", "hermes")
    server.fail("/cdn/", Stall(100, seconds=0.1))
    server.on_bytes(110, (other := threading.Thread(target=lambda: store_in(tmp_path).fetch(SOURCE))).start)
    store_in(tmp_path).fetch(SOURCE)
    other.join()
    assert "weights: another process is fetching hf://org/model@main; waiting for it" in caplog.messages
    assert server.bytes_sent == SIZE


def all_that_is_said(store, source):
    with pytest.raises(WeightsError) as caught:
        store.fetch(source)
    return everything_said(caught.value)


SECRETS = ("hf_s3cr3tt0k3n", "s3cr3tp4ss", "s1gn4ture")


def test_no_secret_is_in_any_log_error_lock_or_mark(server, tmp_path, monkeypatch, caplog):
    caplog.set_level("DEBUG", "hermes")
    caplog.set_level("INFO")
    token, password, signature = SECRETS
    monkeypatch.setattr(server, "_signature", signature)
    server.add_repo("org/model", MODEL, private_token=token)
    server.add_file("/model.tar", tar_of(MODEL))
    address = server.url.replace("://", f"://me:{password}@")
    archive = ArchiveSource(f"{address}/model.tar?X-Amz-Signature={signature}&version=2")
    store = store_in(tmp_path, token=SecretStr(token), patience=Patience(attempts=2, first_wait=0.001))
    said = []
    for fault in (Status(503), Status(403), Reset(0), Stall(0)):
        for module in (http, hub):
            monkeypatch.setattr(module, "READ_SECONDS", 0.05 if fault == Stall(0) else 30.0)
        for source, path in ((SOURCE, "/cdn/"), (SOURCE, "/api/"), (archive, "/model.tar")):
            server.fail(path, fault, times=None)
            said.append(all_that_is_said(store, source))
            server.clear()
    monkeypatch.setattr(http, "READ_SECONDS", 30.0)
    monkeypatch.setattr(hub, "READ_SECONDS", 30.0)
    for source in (SOURCE, archive):
        store.fetch(source)
    server.close()
    said.append(all_that_is_said(store, replace(archive, url=archive.url.replace("version=2", "version=3"))))
    said += [caplog.text, *(path.read_text("latin-1") for path in tmp_path.rglob("*") if path.is_file())]
    said += map(str, tmp_path.rglob("*"))
    assert [secret for secret in SECRETS if secret in "\n".join(said)] == []
