"""A client sends no HTTP, odd HTTP or a byte at a time. The server refuses it or waits, and serves all others."""

import json
import re
import socket
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from tests.support.asking import lines_in_log, predict, until
from tests.support.hostile_requests import MEGABYTE, SECONDS, SHORT, send
from tests.support.raw_http import http, talk

pytestmark = pytest.mark.usefixtures("bounded")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00" + b"\xff" * 300, b"400", id="TLS"),
        pytest.param(b"hello\r\n\r\n", b"400", id="no HTTP"),
        pytest.param(b"GET / HTTP/9.9\r\n\r\n", b"400", id="HTTP of tomorrow"),
        pytest.param(b"A" * MEGABYTE, b"431", id="a line of 1 MB"),
        pytest.param(b"GET /" + b"a" * MEGABYTE + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"431", id="a path of 1 MB"),
        pytest.param(b"PUT /predictions/" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"414", id="a long id"),
        pytest.param(http(b"", *(f"X-{n}: y" for n in range(1000))), b"431", id="1000 headers"),
        pytest.param(http(b"", f"X: {'y' * MEGABYTE}"), b"431", id="a header of 1 MB"),
        pytest.param(http(b"", "X: a\0b"), b"400", id="null byte in a header"),
        pytest.param(http(b"{}", "Content-Length: -1"), b"400", id="negative length"),
        pytest.param(http(b"{}", "Content-Length: " + "9" * 30), b"400", id="endless length"),
        pytest.param(http(b"{}", "Content-Length: 1", "Content-Length: 2"), b"400", id="two lengths"),
        pytest.param(http(b"zz\r\n", "Transfer-Encoding: chunked"), b"400", id="a chunk without a length"),
        pytest.param(
            http(
                b"0\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
                "Content-Length: 5",
                "Transfer-Encoding: chunked",
                "Connection: close",
            ),
            b"400",
            id="a length and chunks",
        ),
    ],
)
def test_what_is_no_http_is_refused(quick_server, sent, status):
    assert talk(quick_server, sent)[:12] == b"HTTP/1.1 " + status


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"POST /predictions HTTP/1.1\r\nHo", id="half a header"),
        pytest.param(http(b"{", "Content-Length: 9999999999"), id="a body that never comes"),
        pytest.param(http(b"ffffffffffffffff\r\n", "Transfer-Encoding: chunked"), id="a chunk that never comes"),
    ],
)
def test_what_is_never_finished_is_waited_for_and_holds_up_nobody(quick_server, sent):
    assert talk(quick_server, sent, seconds=1) == b""


def test_requests_in_a_row_are_answered_in_order_until_garbage_comes(quick_server):
    body = json.dumps({"input": SHORT}).encode()
    received = talk(quick_server, http(body) * 2 + b"\x00\xff garbage\r\n\r\n", seconds=10)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"200", b"200", b"400"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *((method, "/predictions", 405) for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"]),
        *((method, "/predictions/x", 405) for method in ["GET", "POST", "DELETE"]),
        ("POST", "/predictions/", 404),
        ("POST", "/predictions/nobody/cancel", 404),
        ("POST", "/health-check", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/..%2f..%2fetc/passwd", 404),
        ("GET", "/health-check?" + "x" * 50_000, 200),
    ],
)
def test_other_paths_and_methods(quick_server, method, path, status):
    assert send(quick_server, json.dumps({"input": SHORT}), method=method, path=path).status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"Prefer": "wait=-1"},
        {"Prefer": "wait=" + "9" * 50},
        {"Prefer": "x" * 5000},
        {"Accept": "x" * 5000},
        {"Host": "elsewhere"},
        {"X": "y" * 60_000},
        {"Expect": "100-continue"},
        {"Connection": "upgrade", "Upgrade": "websocket"},
        {"traceparent": "x" * 1000},
    ],
    ids=lambda headers: " ".join(headers),
)
def test_odd_headers_change_nothing(quick_server, headers):
    assert send(quick_server, json.dumps({"input": SHORT}), **headers).json()["status"] == "succeeded"


def test_who_does_not_wait_is_answered_at_once_and_the_prediction_runs(quick_server):
    before = len(lines_in_log(quick_server))
    response = send(quick_server, json.dumps({"input": SHORT}), Prefer="respond-async")
    assert (response.status_code, response.json()["status"]) == (202, "starting")
    until(lambda: len(lines_in_log(quick_server)) > before, 10, "the prediction has run")


def test_bodies_that_come_byte_by_byte_hold_up_nobody(quick_server):
    body = json.dumps({"input": SHORT}).encode()
    url = urlsplit(quick_server.url)
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection((url.hostname, url.port))) for _ in range(50)]
        for connection in slow:
            connection.sendall(http(body).removesuffix(body))
        for sent in range(4):
            for connection in slow:
                connection.sendall(body[sent : sent + 1])
            predict(quick_server, **SHORT)
        slow[0].sendall(body[4:])
        assert slow[0].recv(12) == b"HTTP/1.1 200"


def tokens_of_each(server):
    return [line["output_tokens"] for line in lines_in_log(server)]


def test_a_stream_that_nobody_reads_ends_and_holds_up_nobody(quick_server):
    before = len(tokens_of_each(quick_server))
    body = json.dumps({"input": {"prompt": "Count to a million.", "min_tokens": 500, "max_tokens": 500}}).encode()
    url = urlsplit(quick_server.url)
    with socket.socket() as unread:
        unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the system makes it 2 KB
        unread.connect((url.hostname, url.port))
        unread.sendall(http(body, "Accept: text/event-stream", f"Content-Length: {len(body)}"))
        time.sleep(0.5)
        predict(quick_server, **SHORT)
        until(lambda: tokens_of_each(quick_server)[before:], 5, "the log has a line of it")
        assert tokens_of_each(quick_server)[before] == 1, "the stream was first"
        until(lambda: 500 in tokens_of_each(quick_server)[before:], SECONDS, "it has ended, though nobody reads")
