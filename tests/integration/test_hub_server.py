import hashlib
import http.client
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

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

from tests.support.hub_server import Corrupt, Html, HubServer, NoRange, Reset, Stall, Status, Truncate, WrongLength

WEIGHTS = bytes(range(256)) * 1000
FILES = {"config.json": b'{"dim": 8}', "sub/notes.txt": b"notes", "model.safetensors": WEIGHTS}
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
ARCHIVE = bytes(range(100))


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


def ask(url, method="GET", **headers):
    """The answer and its body, without following redirects."""
    address = urlsplit(url)
    with closing(http.client.HTTPConnection(address.netloc, timeout=5)) as connection:
        connection.request(method, address._replace(scheme="", netloc="").geturl(), headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()


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


RANGES = {
    "bytes=10-": (206, "bytes 10-99/100", ARCHIVE[10:]),
    "bytes=0-0": (206, "bytes 0-0/100", ARCHIVE[:1]),
    "bytes=90-999": (206, "bytes 90-99/100", ARCHIVE[90:]),
    "bytes=-3": (206, "bytes 97-99/100", ARCHIVE[97:]),
    "bytes=100-": (416, "bytes */100", b""),
    "bytes=0-1,5-6": (200, None, ARCHIVE),
    "lines=1-2": (200, None, ARCHIVE),
}


@pytest.mark.parametrize(("wanted", "expected"), RANGES.items(), ids=RANGES)
@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_a_range_is_answered_with_that_part(server, tmp_path, kind, wanted, expected):
    (tmp_path / "a.tar").write_bytes(ARCHIVE)
    url = server.add_file("/a.tar", ARCHIVE if kind == "bytes" else tmp_path / "a.tar")
    answer, body = ask(url, Range=wanted)
    assert (answer.status, answer.getheader("Content-Range"), body) == expected
    assert server.requests == [("GET", "/a.tar", wanted, False)]
    assert server.bytes_sent == len(body)


def test_a_range_of_another_version_is_the_whole_file(server):
    url = server.add_file("/a.tar", ARCHIVE)
    etag = ask(url, "HEAD")[0].getheader("ETag")
    assert [ask(url, **{"Range": "bytes=90-", "If-Range": tag})[0].status for tag in (etag, '"old"')] == [206, 200]


def test_a_server_without_ranges_always_sends_everything(server):
    url = server.add_file("/a.tar", ARCHIVE, ranges=False)
    answer, body = ask(url, Range="bytes=10-")
    assert (answer.status, answer.getheader("Accept-Ranges"), body) == (200, None, ARCHIVE)


def test_a_head_has_the_length_and_no_body(server):
    answer, body = ask(server.add_file("/a.tar", ARCHIVE), "HEAD")
    assert (answer.getheader("Content-Length"), answer.getheader("Accept-Ranges"), body) == ("100", "bytes", b"")
    assert server.bytes_sent == 0


def test_a_fault_happens_as_often_as_it_was_asked_for(server):
    url = server.add_file("/a.tar", ARCHIVE)
    server.fail("*.tar", Status(503), times=2)
    server.fail("/a", Status(429, retry_after=1), method="HEAD", times=None)
    assert [ask(url)[0].status for _ in range(3)] == [503, 503, 200]
    heads = [ask(url, "HEAD")[0] for _ in range(3)]
    assert [(head.status, head.getheader("Retry-After")) for head in heads] == [(429, "1")] * 3
    server.clear()
    assert (ask(url, "HEAD")[0].status, len(server.requests)) == (200, 1)


def test_a_fault_of_a_body_waits_for_the_cdn(server):
    server.add_repo("org/model", FILES)
    server.fail("model.safetensors", Truncate(after=10))
    redirect, _ = ask(f"{server.url}/org/model/resolve/main/model.safetensors")
    with pytest.raises(http.client.IncompleteRead):
        ask(redirect.getheader("Location"))


def test_a_portal_answers_with_a_page(server):
    url = server.add_file("/a.tar", ARCHIVE)
    server.fail("/a.tar", Html())
    answer, body = ask(url, Range="bytes=10-")
    assert (answer.status, answer.getheader("Content-Type"), body[:14]) == (200, "text/html", b"<!DOCTYPE html")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Corrupt(at=12), (206, "20", b"\x0a\x0b\xf3" + ARCHIVE[13:30])),
        (WrongLength(-5), (206, "15", ARCHIVE[10:25])),
        (WrongLength(75), (206, "95", ARCHIVE[10:] + bytes(5))),
        (NoRange(), (200, "100", ARCHIVE)),
    ],
    ids=str,
)
def test_a_wrong_body_comes_in_good_order(server, fault, expected):
    url = server.add_file("/a.tar", ARCHIVE)
    server.fail("/a.tar", fault)
    for wanted in (expected, (206, "20", ARCHIVE[10:30])):
        answer, body = ask(url, Range="bytes=10-29")
        assert (answer.status, answer.getheader("Content-Length"), body) == wanted


def test_a_flipped_byte_waits_for_the_range_that_holds_it(server):
    url = server.add_file("/a.tar", ARCHIVE)
    server.fail("/a.tar", Corrupt(at=50))
    parts = [ask(url, Range=part)[1] for part in ("bytes=0-49", "bytes=50-50", "bytes=50-50")]
    assert parts == [ARCHIVE[:50], b"\xcd", b"\x32"]


@pytest.mark.parametrize("size", [70, 3_000_000])
def test_a_connection_is_reset_after_exactly_so_many_bytes(server, size):
    url = urlsplit(server.add_file("/a.tar", bytes(4_000_000)))
    server.fail("/a.tar", Reset(after=size))
    with closing(http.client.HTTPConnection(url.netloc, timeout=5)) as connection:
        connection.request("GET", url.path)
        answer = connection.getresponse()
        assert len(answer.read(size)) == size
        with pytest.raises(ConnectionResetError):
            answer.read(1)
    assert server.bytes_sent == size


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("fault", "error"), [(Reset(0), ConnectionResetError), (Truncate(0), http.client.RemoteDisconnected)], ids=str
)
def test_a_connection_can_end_before_the_answer(server, method, fault, error):
    server.fail("/a.tar", fault, method="*")
    with pytest.raises(error):
        ask(server.add_file("/a.tar", ARCHIVE), method)


def test_a_truncated_body_is_shorter_than_its_content_length(server):
    server.fail("/a.tar", Truncate(after=60))
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(server.add_file("/a.tar", ARCHIVE))
    assert (caught.value.partial, caught.value.expected) == (ARCHIVE[:60], 40)


def test_a_stalled_body_goes_on_later(server):
    server.fail("/a.tar", Stall(after=60, seconds=0.1))
    began = time.monotonic()
    assert ask(server.add_file("/a.tar", ARCHIVE))[1] == ARCHIVE
    assert time.monotonic() - began >= 0.1


def test_a_callback_comes_at_an_exact_byte(server):
    seen = []
    server.on_bytes(20_001, lambda: seen.append(server.bytes_sent))
    for _ in range(3):
        ask(server.add_file("/a.tar", bytes(15_000)))
    assert (seen, server.bytes_sent) == ([20_001], 45_000)


def test_nothing_is_left_of_a_closed_server():
    before = threading.enumerate()
    with HubServer() as server:
        server.fail("/a.tar", Stall(after=10))
        url = urlsplit(server.add_file("/a.tar", ARCHIVE))
        idle, stalled = (http.client.HTTPConnection(url.netloc, timeout=5) for _ in range(2))
        idle.request("HEAD", url.path)
        idle.getresponse().read()
        stalled.request("GET", url.path)
        answer = stalled.getresponse()
        assert answer.read(10) == ARCHIVE[:10]
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    idle.close()
    stalled.close()
    assert [thread for thread in threading.enumerate() if thread not in before] == []
