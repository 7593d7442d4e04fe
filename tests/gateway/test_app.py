"""The routes. No upstream is there, so whoever may ask is told 503, or finds a page."""

import asyncio
import json
import logging
from contextlib import suppress

import httpx
import pytest

from hermes.devserver import PROJECT, PredictorSource
from hermes.gateway import GatewaySettings
from hermes.gateway.app import Gateway
from hermes.gateway.upstream import open_upstream
from hermes.version import VERSION
from tests.support.asgi_gateway import FakeUpstream, serving

NOBODY = "http://127.0.0.1:9"
ASK = {"model": "local/model", "messages": [{"role": "user", "content": "Hi"}]}


def ask(method, path, *, upstream=NOBODY, settings=None, **options):
    """The response of a gateway with these settings."""

    async def main():
        gateway = Gateway(GatewaySettings(**(settings or {})), [open_upstream(upstream, slots=1)])
        transport = httpx.ASGITransport(gateway.app())
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            response = await client.request(method, path, **options)
        await gateway.stop()
        return response

    return asyncio.run(main())


@pytest.mark.parametrize("path", ["/chat/completions", "/v1/chat/completions", "/v1/v1/chat/completions"])
def test_without_an_upstream_the_answer_is_503_with_retry_after(path):
    response = ask("POST", path, json=ASK)
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["detail"] == body["error"]["message"] == "no upstream has been ready yet"
    assert (body["status"], body["error"]["type"]) == (503, "server_error")


@pytest.mark.parametrize("path", ["/healthz", "/health", "/ping"])
def test_a_load_balancer_is_told_without_a_token_whether_an_upstream_is_ready(path, caplog):
    with caplog.at_level(logging.INFO, "hermes"):
        assert ask("GET", path, settings={"tokens": ("right",)}).status_code == 503
    assert "refused" not in caplog.text, "it asks every second"


def test_the_version_is_that_of_the_package():
    assert ask("GET", "/version").json() == {"version": VERSION}


@pytest.mark.parametrize("path", ["/healthz", "/metrics"])
def test_the_password_of_an_upstream_is_nowhere(path):
    text = ask("GET", path, upstream="http://ada:secret@127.0.0.1:9").text
    assert NOBODY in text
    assert "ada" not in text
    assert "secret" not in text


def test_a_preflight_of_openais_client_in_a_browser_is_answered():
    headers = {
        "Origin": "http://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang,x-stainless-retry-count",
    }
    assert ask("OPTIONS", "/v1/chat/completions", headers=headers).status_code == 403
    settings = {"origins": ("http://app.example",), "tokens": ("secret",)}
    response = ask("OPTIONS", "/v1/chat/completions", headers=headers, settings=settings)
    assert response.status_code == 200
    assert "x-stainless-lang" in response.headers["access-control-allow-headers"]
    response = ask("GET", "/v1/version", headers={"Origin": "http://app.example"}, settings=settings)
    assert "request-id" in response.headers["access-control-expose-headers"].split(", ")  # anthropic's client reads it


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/page/app.js", 200), ("/metrics", 401)])
def test_what_is_open_without_a_token(path, status):
    assert ask("GET", path, settings={"tokens": ("right",)}).status_code == status


def test_a_body_has_a_limit():
    async def chunks():
        yield b"x" * 60
        yield b"x" * 60

    kind = {"Content-Type": "application/json"}
    for content in (b"x" * 200, chunks()):
        response = ask("POST", "/v1/predictions", content=content, headers=kind, settings={"max_body": 100})
        assert response.status_code == 413


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"messages": 1}'])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
def test_a_body_that_is_no_request_is_a_400(path, body):
    response = ask("POST", path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", "/v1/chat/completions", 405)]
)
def test_what_is_not_there_is_a_problem(method, path, status):
    response = ask(method, path)
    assert (response.status_code, response.json()["status"]) == (status, status)


def test_another_method_is_told_which_ones_there_are():
    response = ask("PUT", "/v1/chat/completions", headers={"Content-Type": "application/json"})
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.json()["detail"] == "/chat/completions takes POST, not PUT"


@pytest.mark.parametrize("path", ["/hermes/v1/chat/completions/", "/v1/chat/completions/"])
def test_a_slash_at_the_end_leads_nowhere_else(path):
    settings = {"public_url": "http://localhost/hermes"}
    assert ask("POST", path, json=ASK, settings=settings).json()["detail"] == "no upstream has been ready yet"


def test_the_page_may_load_nothing_from_elsewhere():
    for path in ("/", "/page/app.js"):
        policy = ask("GET", path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "http" not in policy
        assert "unsafe" not in policy


def test_metrics_name_each_upstream():
    text = ask("GET", "/metrics").text
    assert f'hermes_gateway_upstream_ready{{upstream="{NOBODY}"}} 0.0' in text
    assert "hermes_gateway_waiting 0.0" in text


CHAT, RESPONSE = ("/v1/chat/completions", ASK), ("/v1/responses", {"model": "local/model", "input": "Hi"})
EVERY_INPUT = PredictorSource(PROJECT / "predict.py").openapi()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body"), [CHAT, RESPONSE])
def test_what_a_client_has_not_read_is_held_and_nothing_after_that(path, body, stream):
    async def main():
        upstream = FakeUpstream("Hello", document=EVERY_INPUT)
        async with serving(upstream) as (gateway, client):
            held = []
            gateway.runs._on_end = lambda run: held.append(gateway._memory.held)
            response = await client.post(path, json={**body, "stream": stream, "metadata": {"k": "x" * 500}})
            assert response.status_code == 200
            assert "Hello" in response.text
            assert held[0] > len(upstream.pieces[0])
            return gateway._memory.held, dict(gateway._memory._of_owners)

    assert asyncio.run(main()) == (0, {})


def test_a_client_that_leaves_before_its_stream_begins_leaves_nothing():
    async def main():
        async with serving(FakeUpstream(document=EVERY_INPUT)) as (gateway, _):
            scope = {
                "type": "http",
                "method": "POST",
                "path": "/v1/chat/completions",
                "scheme": "http",
                "query_string": b"",
            }
            scope["headers"] = [
                (b"host", b"localhost"),
                (b"content-type", b"application/json"),
                (b"content-length", b"9"),
            ]
            messages = [{"type": "http.request", "body": json.dumps({**ASK, "stream": True}).encode()}]

            async def receive():
                return messages.pop(0) if messages else {"type": "http.disconnect"}

            async def send(message):
                raise OSError("the connection is closed")

            with suppress(OSError):
                await gateway.app()(scope, receive, send)
            while gateway.runs.running:
                await asyncio.sleep(0)
            return gateway._memory.held

    assert asyncio.run(main()) == 0


def test_the_load_is_what_is_queued_or_running():
    async def main():
        upstream = FakeUpstream(hold=True)
        async with serving(upstream) as (_, client):
            idle = (await client.get("/load")).json()
            await client.post("/v1/predictions", json={"version": "local/model", "input": {"prompt": "Hi"}})
            busy = (await client.get("/load")).json()
            upstream.go.set()
        return idle, busy

    assert asyncio.run(main()) == ({"server_load": 0}, {"server_load": 1})
