"""Whatever is sent to a gateway over HTTP, it answers or says what is wrong, to the one who asked, and at once.

The gateway is a process of its own, before an imitated Cog server, and each callback of its event loop is measured.
"""

import json
import re

import httpx
import pytest
from hypothesis import event, given, note

from tests.support.asking import until
from tests.support.fake_cog import FakeCog
from tests.support.gateways import MODEL, gateway_before
from tests.support.hostile import TIMES, examples, quiet
from tests.support.hostile_http import (
    DEEP,
    LARGE,
    MOST,
    TOKENS,
    Sent,
    full,
    nested,
    path_for,
    requests,
    secret_of,
    send,
)
from tests.support.measured_gateway import REPORTED

pytestmark = [quiet, pytest.mark.xdist_group("fuzzed gateways")]  # each process would start its own
PASSWORD = "password-of-the-upstream"
REQUESTS = 500 if TIMES > 1 else 120  # at each of two gateways: 20,000 in make test-long
REFRESHED = 50  # requests after which the predictions of both are made anew: the oldest are dropped
PAGES = ("text/html", "text/css", "text/javascript", "text/plain", "image/")
NO_HTTP = b"Invalid HTTP request received."
LAST_EVENTS = ("data: [DONE]", "event: response.completed", "event: response.incomplete", "event: response.failed")


class Fuzzed:
    """A gateway, and what is known of it."""

    def __init__(self, gateway, report, tokens):
        self.gateway, self.tokens = gateway, tokens
        self._report, self._lines = report, 0
        self._sent, self._places = 0, {}

    def send(self, sent):
        if self._sent % REFRESHED == 0:
            self._places = dict(place for person in TOKENS for place in self._made_by(person))
        self._sent += 1
        return send(self.gateway.url, sent, self._places)

    def too_slow(self):
        """The callbacks that took too long since the last look."""
        lines = [json.loads(line) for line in self._report.read_text().splitlines()]
        new, self._lines = lines[self._lines :], len(lines)
        return new

    def _made_by(self, person):
        """A prediction of this person, and its stream."""
        headers = {"Authorization": f"Bearer {TOKENS[person]}", "Prefer": "wait"} if self.tokens else {"Prefer": "wait"}
        body = {"version": MODEL, "input": {"prompt": secret_of(person)}}
        made = self.gateway.post("/v1/predictions", body, **headers)
        assert made.status_code == 201, made.text
        stream = httpx.URL(made.json()["urls"]["stream"]).path
        return [(f"{person}_id", made.json()["id"]), (f"{person}_stream", stream)]


@pytest.fixture(scope="module", params=["tokens", "open"])
def fuzzed(request, tmp_path_factory):
    """A gateway with tokens of two persons, and one without."""
    report = tmp_path_factory.mktemp("loop") / "report"
    report.touch()
    tokens = ",".join(f"{person}:{token}" for person, token in TOKENS.items()) if request.param == "tokens" else ""
    program = ("tests.support.measured_gateway", str(report))
    with FakeCog() as fake:
        upstream = fake.url.replace("://", f"://user:{PASSWORD}@")
        with gateway_before(upstream, program=program, environment={"HERMES_GATEWAY_TOKENS": tokens}) as gateway:
            fuzzed = Fuzzed(gateway, report, tokens)
            fuzzed.too_slow()  # what it took to start
            yield fuzzed
            until(lambda: gateway.running == 0 and fake.counts["running"] == 0, 30, "all predictions have ended")
            log = gateway.said
        longest = json.loads(report.read_text().splitlines()[-1])
        print(f"the longest of {longest['callbacks']} callbacks: {longest['longest'] * 1000:.1f} ms, {longest['of']}")
    lines = [
        line for line in log.splitlines() if "ERROR" in line or "Traceback" in line or "the gateway failed" in line
    ]
    assert lines == []
    told = [word for word in (*TOKENS.values(), *map(secret_of, TOKENS), PASSWORD) if word in log]
    assert told == [], "the log must not have it"


@examples(REQUESTS)
@given(requests())
def test_any_request_is_answered_or_refused_at_once_and_reads_nobody_elses(fuzzed, sent):
    received = fuzzed.send(sent)
    slow = fuzzed.too_slow()
    if received is None:
        event("cut off")
    else:
        event(f"{received.status}")
        note(f"{received.status} {received.headers} {received.body[:600]!r}")
        check_status(sent, received)
        check_form(sent, received)
        check_secrets(sent, received, fuzzed)
    assert slow == [], f"over {REPORTED * 1000:.0f} ms of processor time on the event loop"


@pytest.mark.parametrize(
    "number",
    [pytest.param(each, marks=[pytest.mark.long] * (each % 3 > 0)) for each in range(len(LARGE + DEEP))],
)
def test_a_megabyte_of_anything_keeps_nobody_waiting(fuzzed, number):
    shape = (LARGE + DEEP)[number]
    body = full(*shape, MOST - 100) if shape in LARGE else nested(*shape, 10_000)
    headers = [(b"Host", b"{host}"), (b"Content-Type", b"application/json")]
    headers.append((b"Authorization", b"Bearer " + TOKENS["alice"].encode()))
    sent = Sent("POST", path_for(body), headers, body, "alice")
    print(sent)
    received = fuzzed.send(sent)
    assert received.status in (200, 201, 400, 413, 422, 429), received
    check_form(sent, received)
    assert fuzzed.too_slow() == [], f"over {REPORTED * 1000:.0f} ms of processor time on the event loop"


def check_status(sent, received):
    assert 200 <= received.status < 600
    failed_upstream = any(f"fake:{how}".encode() in sent.body for how in ("E1203", "cut"))
    relayed = received.status == 503 and failed_upstream and b"E1203" in received.body
    assert received.status < 500 or relayed


def check_form(sent, received):
    kind = received.headers.get("content-type", "")
    if received.status >= 400 and "request-id" in received.headers and sent.method != "HEAD":  # to Anthropic's clients
        problem = json.loads(received.body)
        assert (problem["type"], problem["request_id"]) == ("error", received.headers["request-id"])
        assert problem["error"]["type"]
        assert problem["error"]["message"]
    elif received.status >= 400 and sent.method != "HEAD" and not by_a_library(received):
        assert kind == "application/problem+json"
        problem = json.loads(received.body)
        assert problem["status"] == received.status
        assert problem["title"]
        assert problem["detail"] == problem["error"]["message"]
        assert problem["error"]["type"]
        if received.status == 429:
            assert int(received.headers["retry-after"]) > 0
    elif kind.startswith("text/event-stream") and sent.method != "HEAD":
        check_events(received.body.decode())
    elif kind == "application/json" and sent.method != "HEAD":
        json.loads(received.body)
    elif received.body:
        assert kind.startswith(PAGES)
    if received.body != NO_HTTP:
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", received.headers["x-request-id"])


def by_a_library(received):
    """Whether uvicorn says that this is no HTTP, or Starlette that a file of the page has no such range."""
    return received.status == 400 and received.body in (NO_HTTP, b"Malformed range header.")


def check_events(text):
    """A stream has its end."""
    assert text.endswith("\n\n")
    events = [event for event in text.split("\n\n") if event.strip(": pingPING\n")]
    assert events[-1].startswith((*LAST_EVENTS, "event: done"))
    for each in events:
        for line in each.split("\n"):
            assert line.startswith(("data: ", "event: ", "id: ", ":"))


def check_secrets(sent, received, fuzzed):
    assert PASSWORD.encode() not in received.body
    assert "evil.example" not in received.headers.get("location", "") or b"evil.example" in dict(sent.headers)[b"Host"]
    for person in TOKENS if fuzzed.tokens else ():
        if (
            person != sent.person and f"{{{person}_stream}}" not in sent.path
        ):  # who knows a stream's address may read it
            assert secret_of(person).encode() not in received.body
            assert TOKENS[person].encode() not in received.body
    if fuzzed.tokens and sent.person is None and received.status < 400:
        assert reads_nothing(sent), "it has no token"
    elif not fuzzed.tokens and received.status < 400:
        headers = dict(reversed(sent.headers))  # a browser sends one Origin; of several, the first counts
        assert reads_nothing(sent) or headers.get(b"Origin", b"http://{host}") in (b"http://{host}", b""), (
            "another origin"
        )
        assert headers[b"Host"] != b"evil.example", "a stranger's name may lead here"


def reads_nothing(sent):
    """Whether it asks for what everybody may have: the page, whether the gateway is alive, or a stream it knows."""
    path = re.sub("/{2,}", "/", sent.path.partition("?")[0].removeprefix("/hermes"))
    path = re.sub("^(/v1)*(?=/)", "", path) or "/"
    return path in ("/", "/healthz", "/health", "/ping", "/version") or path.startswith(("/page/", "/stream/", "{"))
