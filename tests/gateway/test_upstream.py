"""What is sent to an upstream, and what each of its answers means; the server is a few lines on a socket."""

import asyncio
import base64
import json
import socket
from contextlib import suppress

import httpx
import pytest

from hermes.errors import EngineFailed, InvalidConfiguration
from hermes.gateway.upstream import Full, Refused, Unavailable, open_upstream

INPUTS = b'{"prompt":"h\xc3\xa9"}'
CUT = object()  # the connection is closed without a response


class Server:
    """It answers requests in turn with (status, body), text or JSON, and remembers them."""

    def __init__(self, *answers):
        self.answers, self.requests = list(answers), []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
            body = await reader.readexactly(int(lines.get("content-length", 0)))
            self.requests.append((head.split("\r\n")[0].rpartition(" ")[0], lines, body))
            if (answer := self.answers.pop(0)) is not CUT:
                status, content = answer
                sent = content.encode() if isinstance(content, str) else json.dumps(content).encode()
                writer.write(f"HTTP/1.1 {status} x\r\nConnection: close\r\n\r\n".encode() + sent)
                await writer.drain()
        finally:
            writer.close()


def event(name, data):
    return f"event: {name}\ndata: {data if isinstance(data, str) else json.dumps(data)}\n\n"


PIECES = event("start", {}) + event("output", {"chunk": "a\u2028"})
WHOLE = PIECES + event("completed", {"status": "succeeded"})


def asked(*answers, name="http://127.0.0.1:{port}", do=None, slots=1):
    """What `do` returns of an upstream at a server with these answers, and the server."""

    async def main():
        async with Server(*answers) as server:
            upstream = open_upstream(name.format(port=server.port), slots)
            try:
                return await (do or events_of)(upstream), server
            finally:
                await upstream.close()

    return asyncio.run(main())


async def events_of(upstream):
    return [event async for event in upstream.run("run-1", INPUTS)]


def test_the_bytes_of_the_inputs_are_sent_as_they_are():
    events, server = asked((200, WHOLE))
    assert events == [("start", {}), ("output", {"chunk": "a\u2028"}), ("completed", {"status": "succeeded"})]
    ((line, headers, body),) = server.requests
    assert (line, body) == ("PUT /predictions/run-1", b'{"input":' + INPUTS + b"}")
    assert (headers["content-type"], headers["accept"]) == ("application/json", "text/event-stream")
    assert "authorization" not in headers


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        ((409, {"detail": "no slot"}), Full, "no slot"),
        ((429, {"detail": "slow"}), Full, "slow"),
        ((422, {"detail": [{"loc": ["body", "top_k"], "msg": "no"}]}), Refused, "top_k: no"),
        ((400, {"detail": "no"}), Refused, "no"),
        ((413, {"detail": "large"}), Refused, "large"),
        ((503, {"detail": "starting"}), Unavailable, "503: starting"),
        ((406, {"detail": "starting"}), Unavailable, "406: starting"),
        *[((status, "oh"), EngineFailed, f"E1203 .* answered {status}: oh") for status in (500, 502, 504, 401)],
        (CUT, EngineFailed, "E1203 .* the connection to the server broke"),
        ((200, ""), EngineFailed, "stream ended before the prediction did"),
        ((200, PIECES), EngineFailed, "stream ended before the prediction did"),
        ((200, event("output", "no JSON")), EngineFailed, "is not JSON"),
    ],
)
def test_an_answer_says_whether_another_upstream_may_be_asked(answer, error, said):
    with pytest.raises(error, match=said):
        asked(answer)


def test_a_server_that_is_gone_took_nothing():
    with pytest.raises(Unavailable, match=r"http://127.0.0.1:1: "):
        asked(name="http://127.0.0.1:1")


@pytest.mark.parametrize(("answer", "ready"), [((200, {"status": "READY"}), True), ((200, {"status": "BUSY"}), True)])
def test_health_is_the_status_that_the_server_tells(answer, ready):
    assert asked(answer, do=lambda upstream: upstream.ready())[0] is ready
    assert asked((200, {"status": "STARTING"}), do=lambda upstream: upstream.ready())[0] is False
    for status, other in ((200, "no JSON"), (502, "<html>"), (200, []), (200, {}), (200, "[" * 100_000)):
        with pytest.raises(Unavailable, match=f"answered with {status}, and not by a Cog server"):
            asked((status, other), do=lambda upstream: upstream.ready())
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1"):
        asked(CUT, do=lambda upstream: upstream.ready())


def test_the_kernel_probes_a_connection_on_which_nothing_comes():
    async def options(upstream):
        async with upstream._http.stream("GET", "/") as response:
            of = response.extensions["network_stream"].get_extra_info("socket")
            tcp = [of.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]
            return of.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), tcp

    names = [name for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT") if hasattr(socket, name)]
    (keeps_alive, tcp), _ = asked((200, "{}"), do=options)
    assert keeps_alive
    assert tcp == [30, 10, 3][: len(names)]


def test_the_environments_proxy_is_used_unless_it_leaves_the_host_out(monkeypatch):
    async def through_proxy(no_proxy, url="http://elsewhere.invalid"):
        async with Server((200, {})) as proxy:
            monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.port}")
            monkeypatch.setenv("no_proxy", no_proxy)
            upstream = open_upstream(url, 1)
            with suppress(Unavailable):
                await upstream.document()
            await upstream.close()
            return [request[0] for request in proxy.requests]

    assert asyncio.run(through_proxy("")) == ["GET http://elsewhere.invalid/openapi.json"]
    assert asyncio.run(through_proxy("[::1],.invalid")) == []
    assert asyncio.run(through_proxy("", "http://127.0.0.1:1")) == []


def test_why_an_upstream_is_not_ready_names_the_proxy(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:1")
    through = "through the proxy http://127.0.0.1:1 of HTTP_PROXY"
    with pytest.raises(Unavailable, match=f"http://elsewhere.invalid {through}: All connection attempts failed"):
        asked(name="http://elsewhere.invalid", do=lambda upstream: upstream.ready())
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(InvalidConfiguration, match=r"HTTP_PROXY: is 'socks5://127.0.0.1:1080', and SOCKS needs"):
        open_upstream("http://elsewhere.invalid", 1)


def test_a_cancel_that_is_refused_or_not_answered_is_told():
    for answer in ((200, {}), (404, {"detail": "it has just ended"})):
        _, server = asked(answer, do=lambda upstream: upstream.cancel("run-1"))
        assert server.requests[0][0] == "POST /predictions/run-1/cancel"
    for answer in ((500, "oh"), CUT):
        with pytest.raises(Unavailable, match="the cancel was"):
            asked(answer, do=lambda upstream: upstream.cancel("run-1"))


def test_credentials_are_sent_and_never_named(caplog):
    caplog.set_level("DEBUG")
    name = "http://us%40er:sec%3Aret@127.0.0.1:{port}/"

    async def all_of(upstream):
        names = [upstream.name]
        await events_of(upstream)
        for do in (lambda: events_of(upstream), upstream.document, lambda: upstream.cancel("a")):
            with pytest.raises((EngineFailed, Unavailable)) as error:
                await do()
            names.append(str(error.value))
        return names

    names, server = asked((200, WHOLE), (500, "oh"), (500, "oh"), (500, "oh"), name=name, do=all_of)
    assert names[0] == f"http://127.0.0.1:{server.port}"
    basic = "basic " + base64.b64encode(b"us@er:sec:ret").decode().lower()
    assert [headers["authorization"] for _, headers, _ in server.requests] == [basic] * 4
    assert "sec" not in " ".join([*names, caplog.text]).replace("second", "")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("http://user:secret@host:99999", "'http://host:99999'"),
        ("http://user:se@cret@host:0", "'http://host:0', whose port is not between 1 and 65535"),
        ("http://user:secret@host:port", "'http://host:port'"),
        ("http://user:secret@", "'http://'; write"),
        ("user:secret@host", "'host'; write"),
        ("http://user:secret@[bad", r"'http://\[bad', whose host is no name or address"),
        ("http://bad]host", "whose host is no name or address"),
        ("http://a b", "whose host is no name or address"),
        ("http://a..b:1", "whose host is no name or address"),
        ("http://xn--", "whose host is no name or address"),
        (f"http://{'a' * 64}", "whose host is no name or address"),
        ("http://", "'http://'; write"),
        ("http://host/?token=secret", "'http://host/' with a query or a fragment"),
        ("http://host#secret", "'http://host' with a query or a fragment"),
        ("http://host?", "with a query or a fragment"),
        ("ftp://host", "write http://HOST:PORT or replicate:owner/name"),
        ("", "write http://HOST:PORT or replicate:owner/name"),
        ("replicate:hermes", r"write replicate:owner/name\[:VERSION\]"),
        ("replicate:owner/name?token=", "write replicate:owner/name"),
    ],
)
def test_a_name_that_is_no_upstream_is_refused_without_its_credentials(name, problem):
    with pytest.raises(InvalidConfiguration, match=problem) as error:
        open_upstream(name, slots=1)
    assert str(error.value).startswith("E1202 InvalidConfiguration: --upstream: is ")
    assert "secret" not in str(error.value)
    assert "cret" not in str(error.value).replace("--upstream", "")


@pytest.mark.parametrize("slots", [0, -1])
def test_an_upstream_has_a_slot(slots):
    with pytest.raises(InvalidConfiguration, match=f"--slots: is {slots}; an upstream takes at least 1"):
        open_upstream("http://host", slots)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("HTTP://HOST:80/", "http://host"),
        ("https://host/under/", "https://host/under"),
        ("http://[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_an_upstream_has_one_name_however_it_is_written(written, name):
    async def main():
        upstream = open_upstream(written, slots=1)
        await upstream.close()
        return upstream.name

    assert asyncio.run(main()) == name


@pytest.mark.parametrize("token", [None, "", "  ", "t\u00f6ken", "to\nken"])
def test_replicate_needs_a_token(monkeypatch, token):
    monkeypatch.delenv("REPLICATE_API_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("REPLICATE_API_TOKEN", token)
    with pytest.raises(InvalidConfiguration, match=r"REPLICATE_API_TOKEN:? has (no token; set it|a token with)"):
        open_upstream("replicate:owner/name", slots=1)


@pytest.mark.parametrize("base", ["http://user:secret@host", "http://host:99999", "host"])
def test_replicates_address_is_checked(monkeypatch, base):
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8")
    monkeypatch.setenv("REPLICATE_BASE_URL", base)
    with pytest.raises(InvalidConfiguration, match="REPLICATE_BASE_URL: ") as error:
        open_upstream("replicate:owner/name", slots=1)
    assert "secret" not in str(error.value)


def version(number):
    return {"id": f"v{number}", "openapi_schema": {"version": number}}


def on_replicate(monkeypatch, *answers, do, name="replicate:owner/name"):
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_secret\n")

    async def main():
        async with Server(*answers) as server:
            monkeypatch.setenv("REPLICATE_BASE_URL", f"http://127.0.0.1:{server.port}/v1")
            upstream = open_upstream(name, slots=1)
            try:
                return await do(upstream), server
            finally:
                await upstream.close()

    return asyncio.run(main())


def test_a_run_on_replicate_splices_the_inputs_and_takes_the_latest_version(monkeypatch):
    async def do(upstream):
        documents = [await upstream.document() for _ in range(2)]
        return documents, await events_of(upstream)

    prediction = {"id": "p1", "status": "succeeded", "output": ["Hel", "lo"], "urls": {}}
    (documents, events), server = on_replicate(
        monkeypatch,
        (200, {"latest_version": version(1)}),
        (200, {"latest_version": version(2)}),
        (201, prediction),
        do=do,
    )
    assert documents == [{"version": 1}, {"version": 2}]
    assert events == [("output", {"chunk": "Hello"}), ("completed", prediction)]
    line, headers, body = server.requests[-1]
    assert (line, headers["authorization"]) == ("POST /v1/predictions", "bearer r8_secret")
    assert json.loads(body) == {"version": "v2", "input": json.loads(INPUTS), "stream": True}


def test_a_version_that_is_named_stays(monkeypatch):
    async def do(upstream):
        await upstream.document()
        with pytest.raises(EngineFailed, match="500"):
            await events_of(upstream)
        await upstream.cancel("run-1")  # it runs no more

    _, server = on_replicate(monkeypatch, (200, version(7)), (500, "oh"), do=do, name="replicate:owner/name:v7")
    assert [request[0] for request in server.requests] == [
        "GET /v1/models/owner/name/versions/v7",
        "POST /v1/predictions",
    ]
    assert json.loads(server.requests[1][2])["version"] == "v7"


@pytest.mark.parametrize(
    ("stream", "sent"),
    [
        ("http://127.0.0.1:{port}/stream", True),
        ("http://localhost:{port}/stream", False),
        ("https://stream.replicate.com/v1/streams/a", True),
        ("http://stream.replicate.com/v1/streams/a", False),
        ("https://evilreplicate.com/", False),
        ("https://stream.replicate.com.evil.example/", False),
    ],
)
def test_the_token_goes_to_replicate_alone_whatever_stream_is_named(monkeypatch, stream, sent):
    seen = []

    class Network(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            seen.append(request)
            if request.method == "POST":
                urls = {"stream": stream.format(port=request.url.port)}
                return httpx.Response(201, json={"id": "p1", "status": "succeeded", "output": [], "urls": urls})
            return httpx.Response(200, text="event: done\ndata: {}\n\n")

    async def do(upstream):
        upstream._version, upstream._http._transport = "v1", Network()
        await events_of(upstream)

    on_replicate(monkeypatch, do=do)
    created, streamed = seen
    assert created.headers["authorization"] == "Bearer r8_secret"
    assert streamed.headers.get("authorization") == ("Bearer r8_secret" if sent else None)


def test_a_run_on_replicate_that_is_canceled_twice_is_forgotten(monkeypatch):
    class Network(httpx.AsyncBaseTransport):
        """Nothing but the creation is answered."""

        asked = None

        async def handle_async_request(self, request):
            self.asked = request.url.path
            if request.url.path == "/v1/predictions":
                return httpx.Response(201, json={"id": "p1", "status": "starting"})
            return await asyncio.Event().wait()

    async def do(upstream):
        upstream._version, upstream._http._transport = "v1", (network := Network())
        task = asyncio.create_task(events_of(upstream))
        for path in ("/v1/predictions/p1", "/v1/predictions/p1/cancel"):
            while network.asked != path:
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return upstream._ids

    assert on_replicate(monkeypatch, do=do)[0] == {}
