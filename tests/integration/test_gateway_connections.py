"""Clients that speak HTTP in their own way to a gateway before an imitated Cog server: old, half closed, compressed."""

import gzip
import json
import re
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.asking import until
from tests.support.fake_cog import FakeCog
from tests.support.gateways import MODEL, gateway_before

PIECES, DELAY = 20, 0.1  # of each answer, and s before each
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
DIALECTS = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "TEXT"}], "max_tokens": 4}),
    ("/v1/completions", {"prompt": "TEXT", "max_tokens": 4}),
    ("/v1/responses", {"input": "TEXT", "max_output_tokens": 4}),
    ("/v1/predictions", {"version": MODEL, "input": {"prompt": "TEXT", "max_tokens": 4}}),
]
pytestmark = pytest.mark.xdist_group("gateway connections")


@pytest.fixture(scope="module")
def fake():
    with FakeCog(pieces=PIECES, delay=DELAY) as fake:
        yield fake


@pytest.fixture(scope="module")
def gateway(fake):
    with gateway_before(fake.url) as gateway:
        yield gateway


def connect(gateway, version, **more):
    """A connection over which a chat was asked for."""
    body = json.dumps(CHAT | more).encode()
    head = f"POST /v1/chat/completions HTTP/{version}\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    url = urlsplit(gateway.url)
    connection = socket.create_connection((url.hostname, url.port), timeout=30)
    connection.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def rest_of(connection):
    """What still comes, as (seconds, bytes)."""
    began, pieces = time.monotonic(), []
    while piece := connection.recv(65536):
        pieces.append((time.monotonic() - began, piece))
    return pieces


@pytest.mark.parametrize("half_closed", [False, True], ids=["open", "half closed"])
def test_a_stream_to_http_1_0_comes_piece_by_piece_to_its_end(gateway, half_closed):
    with connect(gateway, "1.0", stream=True) as connection:
        first = connection.recv(65536)
        if half_closed:
            connection.shutdown(socket.SHUT_WR)
        pieces = rest_of(connection)
    head, _, begin = first.partition(b"\r\n\r\n")
    body = begin + b"".join(piece for _, piece in pieces)
    assert b"chunked" not in head
    assert body.endswith(b"data: [DONE]\n\n")
    assert all(line.startswith(b"data: {") for line in body.split(b"\n\n")[:-2])
    assert pieces[-1][0] - pieces[0][0] > PIECES * DELAY / 2, "not all at once"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_client_that_closes_its_side_gets_its_answer(gateway, fake, streamed):
    before = fake.counts["canceled"]
    with connect(gateway, "1.1", stream=streamed) as connection:
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(piece for _, piece in rest_of(connection))
    assert re.match(rb"(HTTP/1.1 100 Continue\r\n\r\n)+HTTP/1.1 200 OK\r\n", answer)
    assert b"[DONE]" in answer if streamed else answer.endswith(b"}")
    assert fake.counts["canceled"] == before


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize(
    ("streamed", "half_closed"),
    [(False, False), (True, False), (True, True)],  # one that waits for a whole answer and closed its side says no more
)
def test_a_client_that_goes_away_ends_its_prediction_within_about_a_second(
    gateway, fake, streamed, version, half_closed
):
    before = fake.counts
    with connect(gateway, version, stream=streamed) as connection:
        until(lambda: fake.counts["begun"] > before["begun"], 5, "it runs")
        if streamed:
            connection.recv(65536)
        if half_closed:
            connection.shutdown(socket.SHUT_WR)
            connection.recv(65536)
    until(lambda: fake.counts["canceled"] > before["canceled"], 2, "it is canceled")


@pytest.mark.parametrize(("path", "asked"), DIALECTS)
def test_a_compressed_conversation_with_half_an_emoji_is_answered(gateway, path, asked):
    written = json.dumps({"model": MODEL, **asked}).replace("TEXT", r"a \ud83d\ude00 and half \ud83d of one")
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip", "Prefer": "wait"}
    answer = httpx.post(f"{gateway.url}{path}", content=gzip.compress(written.encode()), headers=headers, timeout=30)
    assert answer.status_code in (200, 201), answer.text
    told = "".join(answer.json()["output"]) if path == "/v1/predictions" else answer.text
    assert "You said: a 😀" in told


def test_half_an_emoji_reaches_the_model_as_the_sign_for_it(gateway):
    body = r'{"model": "local/model", "messages": [{"role": "user", "content": "x\ud83dy"}]}'
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", content=body, headers=headers, timeout=30)
    assert answer.json()["choices"][0]["message"]["content"].startswith("You said: x\ufffdy")
