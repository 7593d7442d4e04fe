import json
from typing import ClassVar

import pytest

from hermes.client import CogServer, PredictionFailed, PredictionRefused
from hermes.client.cog import read_events
from tests.support.scripted import METRICS, Handler, serving
from tests.support.work import at_most

STREAM = """\
event: start
data: {"id": "p1", "status": "processing"}

event: output
data: {"chunk": "Hé", "index": 0}

: keep-alive

event: completed
data: {"id": "p1",
data:  "status": "succeeded"}

"""


def test_events_are_read_from_text():
    assert list(read_events([STREAM])) == [
        ("start", {"id": "p1", "status": "processing"}),
        ("output", {"chunk": "Hé", "index": 0}),
        ("completed", {"id": "p1", "status": "succeeded"}),
    ]


def test_an_event_that_was_cut_off_is_not_given():
    assert list(read_events(['event: output\ndata: {"chunk": "a"}\n'])) == []


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("{oops", "is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (
            "[" * 100_000,
            "is not JSON: maximum recursion depth exceeded while decoding a JSON array from a unicode string",
        ),
        (
            "1" * 5_000,
            "is not JSON: Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits; ",
        ),
        ("[1]", "is no JSON object"),
        ("null", "is no JSON object"),
    ],
)
def test_an_event_whose_data_is_no_json_object_is_an_error(data, problem):
    with pytest.raises(PredictionFailed) as failed:
        list(read_events([f"event: output\ndata: {data}\n\n"]))
    assert str(failed.value).startswith(f"the server's event 'output' {problem}")


@pytest.mark.parametrize(
    ("health", "refusal"),
    [
        ({"status": "STARTING"}, (503, "the server answered 503: its status is STARTING")),
        ({"status": "READY"}, (406, "the server answered 406: no streams")),
        ([], (406, "the server answered 406: no streams")),
    ],
)
def test_a_stream_that_a_starting_server_refuses_says_so(health, refusal):
    class Starting(Handler):
        """As coglet before setup() is done."""

        def do_POST(self):  # noqa: N802
            self.body()
            self.answer({"error": "no streams"}, 406)

        def do_GET(self):  # noqa: N802
            self.answer(health)

    with serving(Starting) as url, pytest.raises(PredictionRefused) as refused:
        CogServer(url).ask({"prompt": "Hi"})
    assert (refused.value.status, str(refused.value)) == refusal


def test_a_long_line_in_small_pieces_takes_little_time():
    pieces = ["data: ", '{"x": "', *["x" * 20] * 100_000, '"}\n\n']
    with at_most(0.5, all_threads=True):
        assert list(read_events(pieces)) == [("message", {"x": "x" * 2_000_000})]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_events_are_the_same_wherever_the_text_was_cut(end):
    text = end.join(["event: output", 'data: {"chunk": "\u2028 \x85"}', "", "data: {}", "", ""])
    events = [("output", {"chunk": "\u2028 \x85"}), ("message", {})]
    for cut in range(len(text) + 1):
        assert list(read_events([text[:cut], text[cut:]])) == events
    assert list(read_events(text)) == events


class Recording(Handler):
    """A Cog server below any path, which notes what it is asked."""

    asked: ClassVar = []  # (path, Authorization)

    def do_POST(self):  # noqa: N802
        self.body()
        self.asked.append((self.path, self.headers["Authorization"]))
        self.stream(
            [STREAM.replace('"status": "succeeded"', f'"status": "succeeded", "metrics": {json.dumps(METRICS)}')]
        )


@pytest.mark.parametrize(
    ("form", "path", "authorization"),
    [
        ("http://{}/", "/predictions", None),
        (" http://{}// ", "/predictions", None),
        ("http://{}/a%2Fb/", "/a%2Fb/predictions", None),
        ("http://{}/a/?key=x%20y", "/a/predictions?key=x%20y", None),
        ("http://{}?key=x", "/predictions?key=x", None),
        ("http://{}/#top", "/predictions", None),
        ("http://me:s%40crt@{}/", "/predictions", "Basic bWU6c0BjcnQ="),
    ],
)
def test_the_url_of_a_server_may_have_a_path_a_query_and_a_password(monkeypatch, caplog, form, path, authorization):
    caplog.set_level("INFO")  # httpx's
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "[::1]")
    with serving(Recording) as url:
        assert CogServer(form.format(url.removeprefix("http://"))).ask({"prompt": "Hi"}).text == "Hé"
    assert Recording.asked.pop() == (path, authorization)
    assert not [message for message in caplog.messages if "crt" in message]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://me:secret@127.0.0.1:1", r"the connection to http://127.0.0.1:1 broke: "),
        ("http://127.0.0.1:1/?key=secret", "the connection to http://127.0.0.1:1/ broke: "),
        ("me:secret@127.0.0.1:1", "the server's address is not a URL; write http://HOST:PORT"),
        ("http://me:secret@host:port", "the server's address is not a URL"),
        ("127.0.0.1:5000", "the server's address is not a URL"),
        ("", "the server's address is not a URL"),
        ("http://a..b:1", "the server's address is not a URL"),
        (f"http://{'a' * 300}/?key=secret", "the server's address is not a URL"),
        ("http://me:secret@xn--/..", "the server's address is not a URL"),
        ("http://me:secret@ex\u00e4mple..b", "the server's address is not a URL"),
        ("http://me:secret@127.0.0.1:999999", "the server's address is not a URL"),
        ("http://me:se/cret@127.0.0.1:1", "the server's address is not a URL"),
    ],
)
def test_no_error_shows_a_password(url, said):
    with pytest.raises(PredictionFailed, match=said) as failed:
        CogServer(url).ask({"prompt": "Hi"})
    assert "secret" not in str(failed.value)
    assert "me:secret@h" not in repr(CogServer("http://me:secret@h"))


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        (
            "http://me:secret@127.0.0.1:1",
            r"http://server.invalid through the proxy http://127.0.0.1:1 of HTTP_PR",
        ),
        ("socks5://me:secret@127.0.0.1:1", r"HTTP_PROXY: is 'socks5://127.0.0.1:1', and SOCKS needs packages"),
        ("ftp://me:secret@127.0.0.1:1", r"HTTP_PROXY: is not the URL of a proxy"),
    ],
)
def test_a_proxy_that_can_not_be_used_is_one_error(monkeypatch, proxy, said):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(PredictionFailed, match=said) as failed:
        CogServer("http://server.invalid").ask({"prompt": "Hi"})
    assert "secret" not in str(failed.value)


def test_certificates_that_are_not_there_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(PredictionFailed, match=r"SSL_CERT_FILE: is '.*/none.pem', which is not there"):
        CogServer("https://127.0.0.1:1").ask({"prompt": "Hi"})
