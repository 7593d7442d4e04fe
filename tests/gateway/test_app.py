"""Who may ask. No upstream is there, so whoever may ask is told 503, or finds a page."""

import asyncio

import httpx
import pytest

from hermes.gateway import GatewaySettings
from hermes.gateway.app import Gateway
from hermes.gateway.upstream import open_upstream

NOBODY = "http://127.0.0.1:9"
ASK = {"model": "local/model", "messages": [{"role": "user", "content": "Hi"}]}


def ask(method, path, *, base="http://127.0.0.1:8000", settings=None, **options):
    """The response of a gateway with these settings."""

    async def main():
        app = Gateway(GatewaySettings(**(settings or {})), [open_upstream(NOBODY, slots=1)]).app()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base) as client:
            return await client.request(method, path, **options)

    return asyncio.run(main())


def chat(**options):
    return ask("POST", "/v1/chat/completions", json=ASK, **options)


def test_without_an_upstream_the_answer_is_503_with_retry_after():
    response = chat()
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["detail"] == body["error"]["message"] == "no upstream has been ready yet"
    assert (body["status"], body["error"]["type"]) == (503, "server_error")


@pytest.mark.parametrize("path", ["/chat/completions", "/v1/chat/completions", "/v1/v1/chat/completions"])
def test_the_prefix_may_be_there_twice_or_not_at_all(path):
    assert ask("POST", path, json=ASK).status_code == 503


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "0.0.0.0:8000", ""])
def test_another_name_for_this_machine_is_refused(host):
    response = chat(headers={"Host": host})
    assert (response.status_code, response.json()["title"]) == (403, "Forbidden")


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:80", "[::1]:8000", "[::1]"])
def test_this_machines_own_names_are_taken(host):
    assert chat(headers={"Host": host}).status_code == 503


@pytest.mark.parametrize(("host", "status"), [("evil.example", 403), ("gateway:8000", 403), ("localhost:80", 503)])
def test_so_it_is_in_a_container_whose_port_is_published_on_this_machine_only(host, status):
    settings = {"host": "0.0.0.0", "published": "127.0.0.1:80"}
    assert chat(headers={"Host": host}, settings=settings).status_code == status


def test_with_a_token_any_name_is_taken_such_as_that_of_a_proxy_with_tls():
    headers = {"Host": "hermes.example", "Authorization": "Bearer secret"}
    assert chat(headers=headers, settings={"tokens": ("secret",)}).status_code == 503
    assert chat(headers={"Host": "hermes.example"}, settings={"tokens": ("secret",)}).status_code == 401


@pytest.mark.parametrize(
    ("origin", "status"), [("https://evil.example", 403), ("null", 403), ("http://127.0.0.1:8000", 503)]
)
def test_a_browser_that_names_only_the_origin_is_believed(origin, status):
    assert chat(headers={"Host": "127.0.0.1:8000", "Origin": origin}).status_code == status


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_others_are_refused_unless_listed(site):
    headers = {"Sec-Fetch-Site": site, "Origin": "http://app.example", "Sec-Fetch-Mode": "cors"}
    assert chat(headers=headers).status_code == 403
    allowed = chat(headers=headers, settings={"origins": ("http://app.example",)})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (503, "http://app.example")


def test_a_link_to_the_page_works():
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert ask("GET", "/", headers=headers).status_code == 200
    assert ask("GET", "/v1/predictions", headers=headers).status_code == 403


def test_a_preflight_of_openais_client_in_a_browser_is_answered():
    headers = {
        "Origin": "http://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang,x-stainless-os",
        "Sec-Fetch-Site": "cross-site",
    }
    response = ask("OPTIONS", "/v1/chat/completions", headers=headers, settings={"origins": ("http://app.example",)})
    assert response.status_code == 200
    assert "x-stainless-lang" in response.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic right"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Bearer right"}, 503),
        ({"Authorization": "Token other"}, 503),  # as litellm asks Replicate
        ({"Authorization": "Bearer ri\xdfht".encode("latin-1")}, 401),
    ],
)
def test_a_token_opens(authorization, status):
    response = chat(headers=authorization, settings={"tokens": ("right", "other")})
    assert response.status_code == status
    if status == 401:
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/page/app.js", 200), ("/healthz", 503), ("/metrics", 401)])
def test_what_is_open_without_a_token(path, status):
    assert ask("GET", path, settings={"tokens": ("right",)}).status_code == status


def test_a_body_has_a_limit():
    assert ask("POST", "/v1/predictions", content=b"x" * 200, settings={"max_body": 100}).status_code == 413

    async def chunks():
        yield b"x" * 60
        yield b"x" * 60

    assert ask("POST", "/v1/predictions", content=chunks(), settings={"max_body": 100}).status_code == 413


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"messages": 1}'])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
def test_a_body_that_is_no_request_is_a_400(path, body):
    response = ask("POST", path, content=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", "/v1/chat/completions", 405)]
)
def test_what_is_not_there_is_a_problem(method, path, status):
    response = ask(method, path)
    assert (response.status_code, response.json()["status"]) == (status, status)


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
