"""Whatever a server sends, its caller gets an answer or one of the caller's own errors, in one line."""

import json
import socket
import threading
from contextlib import contextmanager, suppress
from functools import cache

import httpx
import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from pydantic import BaseModel

from hermes.client import (
    CogServer,
    ExtractionFailed,
    PredictionFailed,
    ReplicateModel,
    Response,
    ToolCall,
    extract,
    run_tools,
)
from hermes.client.cog import read_events, split_lines
from hermes.client.errors import MAX_REASON
from tests.support.hostile import (
    anything,
    as_json,
    at_most,
    clean,
    examples,
    json_texts,
    mixed,
    quiet,
    sometimes,
)

pytestmark = quiet
finish_reasons = sometimes(st.sampled_from(["stop", "length", "tool_calls"]))
calls = sometimes(st.fixed_dictionaries({"name": sometimes(st.just("add")), "arguments": sometimes(st.just({"a": 1}))}))
mistakes = sometimes(st.fixed_dictionaries({"name": sometimes(st.none()), "text": clean, "problem": sometimes(clean)}))
metrics = st.fixed_dictionaries(
    {"finish_reason": finish_reasons},
    optional={
        "tool_calls": sometimes(st.lists(calls, max_size=3)),
        "tool_call_errors": sometimes(st.lists(mistakes, max_size=2)),
        "json_valid": sometimes(st.booleans()),
        "text": anything,
        "metrics": anything,
    },
)
predictions = st.fixed_dictionaries(
    {"status": sometimes(st.sampled_from(["succeeded", "succeeded", "failed", "canceled"]))},
    optional={"metrics": sometimes(metrics), "error": sometimes(clean), "output": anything},
) | st.fixed_dictionaries({"status": st.just("succeeded"), "metrics": metrics})
chunks = st.fixed_dictionaries({"chunk": sometimes(clean)})
events = st.one_of(
    st.tuples(st.just("output"), sometimes(chunks)),
    st.tuples(st.just("completed"), sometimes(predictions)),
    st.tuples(st.just("error"), sometimes(st.fixed_dictionaries({"error": sometimes(mixed)}))),
    st.tuples(sometimes(st.sampled_from(["start", "log", "metric"]), mixed), anything),
)


def sent(name, data):
    return f"event: {name}\ndata: {as_json(data)}\n\n".encode(errors="surrogatepass")


streams = st.one_of(
    st.lists(events, max_size=4).map(lambda several: b"".join(sent(*each) for each in several)),
    st.builds(
        lambda several, last: b"".join(sent(*each) for each in [*several, ("completed", last)]),
        st.lists(st.tuples(st.just("output"), chunks), max_size=3),
        predictions,
    ),
    st.lists(
        st.binary(max_size=9) | st.sampled_from([b"event: output\n", b"data: ", b"\n\n", b"{}", b"\r", b"[" * 9_999])
    ).map(b"".join),
)
cut = st.builds(lambda stream, at: stream[:at], streams, st.integers(0, 999)) | streams


def one_line(error):
    text = str(error)
    assert len(text.splitlines()) <= 1
    assert len(text) <= MAX_REASON + 60
    text.encode()


@examples(200)
@given(cut, st.integers(1, 50))
def test_any_bytes_are_events_or_an_error(stream, size):
    text = stream.decode(errors="replace")
    size = max(size, len(text) // 1_000)
    lines = list(split_lines(text[at : at + size] for at in range(0, len(text), size)))
    assert lines == list(split_lines([text]))
    try:
        assert all(isinstance(data, dict) for _, data in read_events(lines))
    except PredictionFailed as error:
        one_line(error)


class RawServer:
    """Answers each request with the bytes that it is told to, and hangs up."""

    answer = b""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # of a client that has read enough
                asked = b""
                while not asked.endswith(b"{}}}"):
                    asked += connection.recv(65536)
                connection.sendall(self.answer)


@pytest.fixture(scope="module")
def server():
    raw = RawServer()
    yield raw
    raw.listener.shutdown(socket.SHUT_RDWR)
    raw.listener.close()


def response(status, headers, body):
    lines = [f"HTTP/1.1 {status} Any", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode(errors="replace") + body


headers = st.sampled_from(
    [
        [],
        ["Content-Type: text/event-stream"],
        ["Content-Type: text/event-stream; charset=utf-16"],
        ["Content-Type: text/event-stream; charset=base64"],
        ["Content-Type: text/plain; charset=idna"],
        ["Content-Encoding: gzip"],
        ["Content-Encoding: deflate"],
        ["Content-Length: 5"],
        ["Content-Length: 99999"],
        ["Content-Length: x"],
        ["Transfer-Encoding: chunked"],
        ["Location: http://127.0.0.1:1/"],
    ]
)
refusals = st.one_of(
    json_texts,
    sometimes(
        st.fixed_dictionaries(
            {},
            optional={"detail": sometimes(st.lists(sometimes(st.just({"loc": ["a"], "msg": "b"})))), "error": anything},
        )
    ).map(as_json),
).map(str.encode)
answers = st.one_of(
    st.builds(response, st.just(200), headers, cut),
    st.builds(response, st.just(200), st.just(["Content-Type: text/event-stream"]), streams),
    st.builds(response, st.sampled_from([100, 204, 302, 409, 422, 500, 503, 999]), headers, refusals | st.binary()),
    st.binary(),
)


@contextmanager
def answered_or_failed():
    try:
        yield
        event("answered")
    except PredictionFailed as error:
        event(type(error).__name__)
        one_line(error)


@examples(100)
@given(answers, st.sampled_from([{}, {"tools": [{}]}]))
def test_any_answer_of_a_cog_server_is_a_reply_or_an_error(server, answer, more):
    server.answer, seen = answer, []
    with answered_or_failed():
        reply = CogServer(server.url).ask({**more, "last": {}}, seen.append)
        assert reply.text == "".join(seen)
        reply.text.encode()


class Replicate:
    """Replicate's HTTP API: what it says to each method and path."""

    create = final = stream = None

    def __call__(self, request):
        answer = (
            self.create if request.method == "POST" else self.stream if "stream" in str(request.url) else self.final
        )
        status, content_type, body = answer
        return httpx.Response(status, headers={"Content-Type": content_type} if content_type else {}, content=body)


@cache
def replicate_model(api):
    from replicate import Client

    client = Client(api_token="x", transport=httpx.MockTransport(api))
    client.poll_interval = 0
    return ReplicateModel("me/hermes:v1", client)


API = Replicate()
CREATED = {
    "id": "p1",
    "model": "me/hermes",
    "version": "v1",
    "status": "starting",
    "urls": {"stream": "https://stream.replicate.com/v1/p1"},
}
made = sometimes(
    st.builds(lambda more: {**CREATED, **more}, st.dictionaries(st.sampled_from([*CREATED, "output"]), anything))
)
ended = sometimes(
    st.builds(
        lambda prediction, output: {**CREATED, **prediction, "output": output},
        predictions,
        sometimes(st.lists(clean, max_size=3)),
    )
)
statuses = sometimes(st.just(200), st.sampled_from([201, 302, 400, 404, 500]))  # others are tried again for minutes
json_answers = [
    st.tuples(
        statuses,
        st.just("application/json"),
        sometimes(values.map(as_json), mixed).map(lambda t: t.encode("utf-8", "replace")),
    )
    for values in (sometimes(st.just(CREATED), made), ended)
]
sse = st.lists(
    st.sampled_from([b"event: output\n", b"event: error\n", b"event: x\n", b"data: Hi\n", b"id: 1\n", b"\n"])
    | st.binary(max_size=9)
).map(lambda lines: b"".join([*lines, b"\nevent: done\nid: 2\ndata: {}\n\n"]))
stream_answers = st.tuples(statuses, sometimes(st.just("text/event-stream"), st.none() | st.just("text/html")), sse)


@pytest.fixture(scope="module", autouse=True)
def impatience():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hermes.client.models.SETTLE_SECONDS", 0.01)
        yield


@examples(100)
@given(json_answers[0], stream_answers, json_answers[1])
def test_any_answer_of_replicate_is_a_reply_or_an_error(created, stream, final):
    API.create, API.stream, API.final = created, stream, final
    with answered_or_failed():
        replicate_model(API).ask({"prompt": "Hi"}).text.encode()


class Person(BaseModel):
    name: str
    age: int | None = None
    tags: dict[str, float] = {}


class Says:
    """A model that says one thing, whatever it is asked."""

    def __init__(self, reply):
        self.reply = reply

    def ask(self, inputs, on_text=None):
        json.dumps(inputs, allow_nan=False).encode()
        return self.reply


people = st.fixed_dictionaries({}, optional={"name": anything, "age": anything, "tags": anything}).map(as_json)
digits = st.just('{"age": ' + "1" * 5_000 + ', "name": ' + "2" * 5_000 + "}")


@examples(100)
@given(people | digits | json_texts | clean, finish_reasons)
def test_any_text_is_the_data_or_an_error(text, finish_reason):
    try:
        assert isinstance(extract(Says(Response(text, finish_reason)), Person, "Ann is 4."), Person)
    except ExtractionFailed as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017


def add(a: int, b: float = 0) -> float:
    """Add."""
    return a + b


def echo(value: object) -> object:
    """Say it again."""
    return value


made_calls = st.builds(
    ToolCall,
    sometimes(st.sampled_from(["add", "echo"]), clean),
    st.dictionaries(st.sampled_from(["a", "b", "value"]), anything),
)


@examples(100)
@given(st.lists(made_calls, max_size=3))
def test_any_call_gets_a_result_that_can_be_sent(several):
    with at_most(4):
        run = run_tools(Says(Response("", "tool_calls", tuple(several))), "Add.", [add, echo], max_rounds=1)
    assert [call for call, _ in run.calls] == several
    for message in run.messages:
        json.dumps(message, ensure_ascii=False, allow_nan=False).encode()


ENDED = json.dumps({**CREATED, "status": "succeeded", "metrics": {"finish_reason": "stop", "x": 0}, "output": ["Hi"]})
GOOD = {
    "create": (201, "application/json", json.dumps(CREATED).encode()),
    "stream": (200, "text/event-stream", b"event: done\nid: 2\ndata: {}\n\n"),
    "final": (200, "application/json", ENDED.encode()),
}


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        pytest.param({"create": (201, "application/json", b"[]")}, "the prediction cannot be created", id="a list"),
        pytest.param({"create": (201, "text/html", b"<html>")}, "the prediction cannot be created", id="a web page"),
        pytest.param({"create": (400, "application/json", b"[]")}, "the prediction cannot be created", id="no error"),
        pytest.param({"create": (201, "", b"[" * 100_000)}, "the prediction cannot be created", id="very deep"),
        pytest.param(
            {"create": (201, "", json.dumps({**CREATED, "id": "a\nb"}).encode())},
            "the prediction cannot be loaded: InvalidURL",
            id="an id of two lines",
        ),
        pytest.param({"stream": (200, "", b"")}, "the stream broke: KeyError: 'content-type'", id="no content type"),
        pytest.param({"final": (200, "", b"[]")}, "the prediction cannot be loaded", id="a list at the end"),
        pytest.param({"final": (404, "", b"[]")}, "the prediction cannot be loaded", id="no error at the end"),
    ],
)
def test_answers_that_broke_replicates_client_are_errors(answers, problem):
    vars(API).update({**GOOD, **answers})
    with pytest.raises(PredictionFailed, match=problem):
        replicate_model(API).ask({})


def test_metrics_of_any_depth_are_an_answer_or_an_error():
    answered = set()
    for depth in range(100, 1_000, 10):
        deep_metrics = ENDED.replace('"x": 0', f'"x": {"[" * depth}{"]" * depth}').encode()
        vars(API).update({**GOOD, "final": (200, "application/json", deep_metrics)})
        with suppress(PredictionFailed):
            answered.add(replicate_model(API).ask({}).text)
    assert answered == {"Hi"}
