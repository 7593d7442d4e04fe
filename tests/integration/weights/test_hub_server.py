"""The hub of the tests serves huggingface_hub, the real client, as huggingface.co does."""

import hashlib
import http.client
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import close_session, disable_progress_bars, enable_progress_bars

from tests.support.faults import Truncate
from tests.support.hub_server import HubServer
from tests.support.raw_http import ask

WEIGHTS = bytes(range(256)) * 1000
FILES = {"config.json": b'{"dim": 8}', "sub/notes.txt": b"notes", "model.safetensors": WEIGHTS}
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def server():
    with HubServer(page_size=3) as server:
        yield server


@pytest.fixture(autouse=True)
def client_at_home(tmp_path, monkeypatch):
    """The real client writes to tmp_path alone, and asks huggingface.co nothing about agents."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))  # of hf_xet's logs
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    disable_progress_bars()
    yield
    enable_progress_bars()
    close_session()


@pytest.fixture
def client(server, tmp_path):
    """The arguments that keep the real client to the server."""
    return {"repo_id": "org/model", "endpoint": server.url, "cache_dir": tmp_path / "cache", "token": False}


def downloaded(folder):
    found = (path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_the_real_client_downloads_a_snapshot_and_its_token_stays_with_the_hub(server, client, tmp_path):
    server.add_repo("org/model", FILES, private_token="hf_secret")
    snapshot_download(**client | {"token": "hf_secret"}, local_dir=tmp_path / "model")
    assert downloaded(tmp_path / "model") == FILES
    to_cdn = {asked.has_authorization for asked in server.requests if asked.path.startswith("/cdn/")}
    to_hub = {asked.has_authorization for asked in server.requests if not asked.path.startswith("/cdn/")}
    assert (to_hub, to_cdn) == ({True}, {False})


def test_the_real_client_downloads_small_files_that_arrive_compressed(server, client, tmp_path):
    server.add_repo("org/model", FILES, small_files_gzip=True)
    path = Path(hf_hub_download(filename="config.json", local_dir=tmp_path, **client))
    assert path.read_bytes() == FILES["config.json"]


def test_the_real_client_moves_xet_files_through_hf_xet(server, client, tmp_path):
    server.add_repo("org/model", FILES, xet=True)
    one = hf_hub_download(filename="model.safetensors", local_dir=tmp_path / "one", **client)
    snapshot_download(local_dir=tmp_path / "two", **client)
    assert (Path(one).read_bytes(), downloaded(tmp_path / "two")) == (WEIGHTS, FILES)
    assert not [asked.path for asked in server.requests if asked.path.startswith("/cdn/")]
    assert any("/xet-read-token/" in asked.path for asked in server.requests)


def test_the_listings_name_sizes_and_digests(server):
    repo = server.add_repo("org/model", FILES, tags=("v1",))
    api = HfApi(endpoint=server.url, token=False)
    info = api.model_info("org/model", revision="v1", files_metadata=True)
    assert info.sha == repo.commit
    assert {file.rfilename: (file.size, file.lfs and file.lfs.sha256) for file in info.siblings} == {
        "config.json": (10, None),
        "sub/notes.txt": (5, None),
        "model.safetensors": (len(WEIGHTS), SHA256),
    }
    tree = list(api.list_repo_tree("org/model", recursive=True))  # four items, on two pages
    assert [item.path for item in tree] == ["config.json", "model.safetensors", "sub", "sub/notes.txt"]
    assert tree[0].blob_id == "5e37e8352a14339b7473017bd11938a3c155a304"  # as git hash-object says
    assert tree[1].lfs.sha256 == SHA256
    assert [item.path for item in api.list_repo_tree("org/model", "sub")] == ["sub/notes.txt"]


def test_a_branch_moves_on_and_the_old_commit_stays(server):
    old = server.add_repo("org/model", FILES).commit
    new = server.add_repo("org/model", FILES | {"config.json": b"{}"}).commit
    heads = [ask(f"{server.url}/org/model/resolve/{name}/config.json", "HEAD")[0] for name in (old, "main")]
    assert [head.getheader("X-Repo-Commit") for head in heads] == [old, new]


REFUSALS = {
    "unknown repo": ({"repo_id": "org/nothing"}, RepositoryNotFoundError, 401),
    "unknown repo, with a token": ({"repo_id": "org/nothing", "token": "hf_x"}, RepositoryNotFoundError, 404),
    "unknown revision": ({"revision": "v9"}, RevisionNotFoundError, 404),
    "unknown file": ({"filename": "nothing.bin"}, RemoteEntryNotFoundError, 404),
    "private": ({"repo_id": "org/private"}, RepositoryNotFoundError, 401),
    "private, with another token": ({"repo_id": "org/private", "token": "hf_x"}, HfHubHTTPError, 401),
    "gated": ({"repo_id": "org/gated"}, GatedRepoError, 401),
    "gated, with another token": ({"repo_id": "org/gated", "token": "hf_x"}, GatedRepoError, 403),
}


@pytest.mark.parametrize(("wanted", "error", "status"), REFUSALS.values(), ids=REFUSALS)
def test_what_the_hub_refuses_is_a_typed_error_of_the_client(server, client, tmp_path, wanted, error, status):
    for name, access in {"model": {}, "private": {"private_token": "hf_y"}, "gated": {"gated": "hf_y"}}.items():
        server.add_repo(f"org/{name}", FILES, **access)
    with pytest.raises(error) as caught:
        hf_hub_download(**{"filename": "model.safetensors", "local_dir": tmp_path, **client, **wanted})
    assert (type(caught.value), caught.value.response.status_code) == (error, status)


def test_a_gated_repo_shows_its_listing_to_all_and_its_files_to_some(server, client, tmp_path):
    server.add_repo("org/model", FILES, gated="hf_y")
    assert HfApi(endpoint=server.url, token=False).model_info("org/model").gated == "manual"
    path = Path(hf_hub_download(filename="config.json", local_dir=tmp_path, **client | {"token": "hf_y"}))
    assert path.read_bytes() == FILES["config.json"]


def test_an_lfs_file_is_behind_a_signature_that_expires(server):
    server.add_repo("org/model", FILES)
    url = f"{server.url}/org/model/resolve/main/model.safetensors"
    head, _ = ask(url, "HEAD")
    linked = head.getheader("X-Linked-ETag"), head.getheader("X-Linked-Size")
    assert (head.status, *linked) == (302, f'"{SHA256}"', "256000")
    assert "secret-signature" in head.getheader("Location")
    assert ask(head.getheader("Location"), Range="bytes=255999-")[1] == b"\xff"
    server.expire_signatures()
    assert ask(head.getheader("Location"))[0].status == 403
    assert ask(ask(url)[0].getheader("Location"))[1] == WEIGHTS


def test_a_fault_of_a_body_waits_for_the_cdn(server):
    server.add_repo("org/model", FILES)
    server.fail("model.safetensors", Truncate(after=10))
    redirect, _ = ask(f"{server.url}/org/model/resolve/main/model.safetensors")
    with pytest.raises(http.client.IncompleteRead):
        ask(redirect.getheader("Location"))
