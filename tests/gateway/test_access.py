"""Who may ask: the gate before an app that answers with what it was told of the request."""

import asyncio
import json
import logging

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from hermes.gateway import GatewaySettings
from hermes.gateway.access import Gate
from hermes.gateway.caller import caller_of

LAN = {"host": "0.0.0.0", "no_auth": True}
TWO = {"tokens": ("ada:right", "bob:other")}


class Counted:
    """Metrics that keep what they are told."""

    def __init__(self):
        self.responses = []

    def count_response(self, *what):
        self.responses.append(what)


async def broken(request):
    raise ValueError("a secret prompt")


async def told(request):
    caller = caller_of(request)
    return JSONResponse({"base": request.state.base, "token": caller.token, "id": caller.request_id})


def ask(path="/", *, method="GET", settings=None, metrics=None, base="http://127.0.0.1:8000", client="9.9.9.9", **more):
    paths = ["/", "/metrics", "/predictions", "/chat/completions", "/predictions/{id}", "/stream/{id}/{secret}"]
    routes = [Route(each, told, methods=["GET", "POST"]) for each in paths] + [Route("/broken", broken)]
    gate = Gate(Starlette(routes=routes), GatewaySettings(**(settings or {})), metrics or Counted())

    async def main():
        transport = httpx.ASGITransport(gate, client=(client, 1))
        async with httpx.AsyncClient(transport=transport, base_url=base) as http:
            return await http.request(method, path, **more)

    return asyncio.run(main())


@pytest.mark.parametrize(
    "path",
    [
        "/chat/completions",
        "/v1/chat/completions",
        "/v1/v1/chat/completions",
        "//v1/chat/completions",
        "/v1//predictions",
    ],
)
def test_the_prefix_of_the_version_may_be_there_twice_or_not_at_all(path):
    assert ask(path).status_code == 200


@pytest.mark.parametrize("settings", [{}, {"host": "0.0.0.0", "published": "127.0.0.1:80"}, LAN])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example"]
)
def test_a_name_that_a_stranger_can_lead_here_is_refused(host, settings):
    response = ask(headers={"Host": host}, settings=settings)
    assert (response.status_code, response.json()["title"]) == (403, "Forbidden")
    assert "--public-url" in response.json()["detail"]


OTHERS = ["192.168.1.7:8000", "gateway:8000", "box.local", "host.docker.internal"]


@pytest.mark.parametrize("settings", [{}, LAN])
@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "localhost.", "hermes.localhost", "127.0.0.1:80", "[::1]:8000", "[::1]", *OTHERS],
)
def test_a_name_that_no_stranger_can_have_is_taken(host, settings):
    assert ask(headers={"Host": host}, settings=settings).status_code == 200


def test_with_a_token_any_name_is_taken_such_as_that_of_a_proxy_with_tls():
    headers = {"Host": "hermes.example", "Authorization": "Bearer right"}
    assert ask("/metrics", headers=headers, settings=TWO).status_code == 200
    assert ask("/metrics", headers={"Host": "hermes.example"}, settings=TWO).status_code == 401


SAME = ["http://127.0.0.1:8000", "https://127.0.0.1:8000"]
OTHER = [
    "http://evil.example",
    "http://evil.example:8000",
    "http://127.0.0.1:8001",
    "http://127.0.0.1",
    "null",
    "",
    "x",
]


@pytest.mark.parametrize("settings", [{}, LAN, TWO])
@pytest.mark.parametrize("more", [{}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}])
def test_an_origin_has_to_be_the_host_whatever_else_is_there(settings, more):
    headers = {"Authorization": "Bearer right", **more}
    for origin in SAME:
        assert ask("/predictions", headers={**headers, "Origin": origin}, settings=settings).status_code == 200, origin
    for origin in OTHER:
        response = ask("/predictions", headers={**headers, "Origin": origin}, settings=settings)
        assert response.status_code == 403, origin
        assert "--origin" in response.json()["detail"]


def test_the_port_that_a_scheme_has_anyway_may_be_written():
    for host, origin in (
        ("x.local:80", "http://x.local"),
        ("x.local", "http://X.local:80"),
        ("x.local:443", "https://x.local"),
    ):
        assert ask(headers={"Host": host, "Origin": origin}).status_code == 200, (host, origin)
    assert ask(headers={"Host": "x.local:443", "Origin": "http://x.local"}).status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_pages_of_others_load_without_an_origin_is_refused(site):
    assert ask("/predictions", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}).status_code == 403
    assert ask("/predictions", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}).status_code == 403
    assert ask("/", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}).status_code == 200


@pytest.mark.parametrize("origins", [("http://app.example",), ("*",)])
def test_a_listed_origin_may_ask(origins):
    headers = {"Origin": "http://app.example", "Sec-Fetch-Site": "cross-site"}
    assert ask("/predictions", headers=headers, settings={"origins": origins, "no_auth": True}).status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None]
)
def test_another_body_than_json_is_refused(kind):
    headers = {"Content-Type": kind} if kind else {}
    response = ask("/predictions", method="POST", content=b"{}", headers=headers)
    assert response.status_code == 415
    assert "application/json" in response.json()["detail"]


def test_json_is_taken_under_its_names_and_no_body_needs_none():
    for kind in ("application/json", "Application/JSON; charset=utf-8"):
        assert ask("/predictions", method="POST", content=b"{}", headers={"Content-Type": kind}).status_code == 200
    assert ask("/predictions", method="POST").status_code == 200


@pytest.mark.parametrize(
    ("encodings", "status"),
    [
        *((name, 200) for name in (["gzip"], ["GZIP"], ["deflate"], ["identity"], [""])),
        *((name, 415) for name in (["br"], ["zstd"], ["gzip, gzip"], ["gzip", "gzip"], ["gzip", "br"], ["x" * 5000])),
    ],
)
def test_an_encoding_that_is_not_read_is_refused_by_its_name(encodings, status):
    headers = [("Content-Type", "application/json"), *(("Content-Encoding", each) for each in encodings)]
    response = ask("/predictions", method="POST", content=b"{}", headers=headers)
    assert response.status_code == status
    if status == 415:
        assert f"the Content-Encoding is {', '.join(encodings)[:80]};" in response.json()["detail"]


@pytest.mark.parametrize("length", ["101", "9" * 5000])
def test_a_body_that_says_that_it_is_too_large_is_refused_before_it_is_read(length):
    headers = {"Content-Type": "application/json", "Content-Length": length}
    response = ask("/predictions", method="POST", content=b"{}", headers=headers, settings={"max_body": 100})
    assert response.status_code == 413


@pytest.mark.parametrize(
    ("authorization", "token"),
    [
        ({}, None),
        ({"Authorization": "Bearer wrong"}, None),
        ({"Authorization": "Basic right"}, None),
        ({"Authorization": "Bearer "}, None),
        ({"Authorization": "Bearer ri\xdfht".encode("latin-1")}, None),
        ({"Authorization": "Bearer right"}, "ada"),
        ({"Authorization": "Token other"}, "bob"),  # as litellm asks Replicate
    ],
)
def test_a_token_opens_and_names_the_caller(authorization, token):
    response = ask("/predictions", headers=authorization, settings=TWO)
    if token:
        assert response.json()["token"] == token
    else:
        assert response.headers["www-authenticate"] == "Bearer"
        assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
        assert ("there is no token" in response.json()["detail"]) == (
            authorization in ({}, {"Authorization": "Bearer "}, {"Authorization": "Basic right"})
        )


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({"x-api-key": "right"}, "ada"),
        ({"x-api-key": "wrong"}, None),
        ({"x-api-key": "right", "Authorization": "Bearer right"}, "ada"),
        ({"x-api-key": "newer", "Authorization": "Bearer right"}, "ada"),
        ({"x-api-key": "right", "Authorization": "Basic b3RoZXI6cHJveHk="}, "ada"),  # which is of a proxy
        ({"x-api-key": "right", "Authorization": "Bearer other"}, None),
        ({"x-api-key": "right", "Authorization": "Bearer wrong"}, None),
    ],
)
def test_anthropics_header_has_a_token_and_two_have_to_be_of_one_name(headers, token, caplog):
    with caplog.at_level(logging.INFO, "hermes"):
        response = ask("/predictions", headers=headers, settings={"tokens": ("ada:right", "ada:newer", "bob:other")})
    assert (response.json().get("token"), response.status_code) == (token, 200 if token else 401)
    assert not any(f'"{secret}"' in caplog.text for secret in ("right", "wrong", "other", "newer"))
    if not token and len(headers) == 2:
        assert "Authorization and x-api-key have no token of one name" in response.json()["detail"]


@pytest.mark.parametrize(
    ("path", "status"), [("/", 200), ("/stream/1/2", 200), ("/metrics", 401), ("/predictions/1", 401)]
)
def test_what_is_open_without_a_token(path, status):
    assert ask(path, settings=TWO).status_code == status


@pytest.mark.parametrize(
    ("path", "host", "base"),
    [
        ("/hermes/v1/predictions", "10.0.0.1", "https://x.example/hermes"),
        ("/v1/predictions", "x.example", "https://x.example/hermes"),  # the proxy has taken the prefix
    ],
)
def test_with_a_public_url_all_urls_are_made_of_it(path, host, base):
    settings = {**LAN, "public_url": "https://x.example/hermes"}
    headers = {"Host": host, "Origin": "https://x.example"}
    assert ask(path, headers=headers, settings=settings).json()["base"] == base
    assert ask(path, headers={**headers, "Host": "evil.example"}, settings=settings).status_code == 403


def test_the_prefix_alone_leads_to_the_page():
    settings = {"public_url": "https://x.example/hermes", "no_auth": True}
    response = ask("/hermes", headers={"Host": "x.example"}, settings=settings)
    assert (response.status_code, response.headers["location"]) == (307, "https://x.example/hermes/")
    assert ask("/hermes/", headers={"Host": "x.example"}, settings=settings).status_code == 200
    assert ask("/hermesx", headers={"Host": "x.example"}, settings=settings).status_code == 404


FORWARDED = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "a.example, x.local", "X-Forwarded-Prefix": "/hermes/"}


def test_a_host_that_is_none_is_refused_and_makes_no_url():
    for host in ("", "127.0.0.1:8901@evil", "a b", 'x"><script>', "[::1", "x:y"):
        assert (
            ask("/predictions", headers={"Host": host, "Authorization": "Bearer right"}, settings=TWO).status_code
            == 400
        )
    headers = {"Host": "localhost", "X-Forwarded-Host": "a b", "X-Forwarded-Prefix": "/../x"}
    settings = {"forwarded_from": ("10.0.0.0/8",)}
    base = ask("/predictions", headers=headers, settings=settings, client="10.1.2.3").json()["base"]
    assert base == "http://localhost"


@pytest.mark.parametrize(
    ("server", "base"), [(("10.0.0.1", 80), "http://10.0.0.1:80"), (("::1", 8000), "http://[::1]:8000"), (None, None)]
)
def test_http_1_0_needs_no_host_and_a_later_version_does(server, base):
    async def status_and_base(version):
        sent = []

        async def app(scope, receive, send):
            sent.append(scope["state"]["base"])
            await JSONResponse({})(scope, receive, send)

        async def send(message):
            sent.append(message.get("status"))

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "scheme": "http", "http_version": version}
        await Gate(app, GatewaySettings(), Counted())({**scope, "server": server}, None, send)
        return sent[:2]

    assert asyncio.run(status_and_base("1.0")) == ([base, 200] if server else [400, None])
    assert asyncio.run(status_and_base("1.1")) == [400, None]


def test_what_a_proxy_forwards_counts_if_the_proxy_is_listed():
    settings = {"forwarded_from": ("10.0.0.0/8",)}
    headers = {**FORWARDED, "Host": "localhost"}
    assert (
        ask("/predictions", headers=headers, settings=settings, client="10.1.2.3").json()["base"]
        == "https://x.local/hermes"
    )
    for client in ("11.1.2.3", "::1", "unix"):
        assert (
            ask("/predictions", headers=headers, settings=settings, client=client).json()["base"] == "http://localhost"
        )
    bad = {**headers, "X-Forwarded-Prefix": '/"><script>', "X-Forwarded-Proto": "javascript"}
    assert ask("/predictions", headers=bad, settings=settings, client="10.1.2.3").json()["base"] == "http://x.local"


@pytest.mark.parametrize(
    ("sent", "kept"), [("abc-1_2", True), ("a b", False), ("x" * 65, False), ("../..", False), ("", False)]
)
def test_a_request_has_an_id_in_and_out(sent, kept):
    response = ask("/predictions", headers={"x-request-id": sent})
    assert response.headers["x-request-id"] == response.json()["id"]
    assert (response.json()["id"] == sent) == kept
    assert len(response.json()["id"]) >= 7


def test_a_response_is_counted_and_a_refusal_is_one_line_without_what_was_sent(caplog):
    metrics = Counted()
    with caplog.at_level(logging.INFO, "hermes"):
        ask("/v1/predictions/secret", headers={"Authorization": "Bearer right"}, settings=TWO, metrics=metrics)
        ask(
            "/v1/predictions/secret?x=secret", headers={"Authorization": "Bearer secret"}, settings=TWO, metrics=metrics
        )
        ask(
            "/nothing/secret",
            headers={"Authorization": "Bearer right", "x-request-id": "r1"},
            settings=TWO,
            metrics=metrics,
        )
    assert metrics.responses == [("ada", "/predictions/{id}", 200), ("", "", 401), ("ada", "", 404)]
    lines = [
        json.loads(record.message.partition("refused: ")[2]) for record in caplog.records if "refused" in record.message
    ]
    assert [line["status"] for line in lines] == [401, 404]
    assert (lines[0]["code"], lines[1]["request_id"], lines[1]["token"]) == ("invalid_api_key", "r1", "ada")
    assert "secret" not in caplog.text
