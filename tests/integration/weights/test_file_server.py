"""The file server of the tests answers ranges, and spoils a reply exactly as a test ordered."""

import http.client
import threading
import time
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from tests.support.faults import Corrupt, Html, NoRange, Reset, Stall, Status, Truncate, WrongLength
from tests.support.file_server import FileServer
from tests.support.hub_server import HubServer
from tests.support.raw_http import ask

ARCHIVE = bytes(range(100))


@pytest.fixture
def server():
    with FileServer() as server:
        yield server


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
