"""Whatever a server sends, its caller gets an answer or one of the caller's own errors, in one line."""

import json
import re
import socket
import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from hermes.client import CogServer, ExtractionFailed, PredictionFailed, Response, ToolCall, extract, run_tools
from hermes.client.cog import read_events
from tests.support.hostile import anything, as_json, clean, examples, json_texts, mixed, quiet, sometimes
from tests.support.hostile_replies import answered_or_failed, finish_reasons, one_line, predictions
from tests.support.work import at_most

pytestmark = quiet
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


@examples(200)
@given(cut, st.integers(1, 50))
def test_any_bytes_are_events_or_an_error(stream, size):
    text = stream.decode(errors="replace")
    size = max(size, len(text) // 1_000)
    try:
        read = list(read_events(text[at : at + size] for at in range(0, len(text), size)))
    except PredictionFailed as error:
        one_line(error)
        with pytest.raises(PredictionFailed, match=re.escape(str(error))):
            list(read_events([text]))
    else:
        assert read == list(read_events([text]))
        assert all(isinstance(data, dict) for _, data in read)


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


@examples(100)
@given(answers, st.sampled_from([{}, {"tools": [{}]}]))
def test_any_answer_of_a_cog_server_is_a_reply_or_an_error(server, answer, more):
    server.answer, seen = answer, []
    with answered_or_failed():
        reply = CogServer(server.url).ask({**more, "last": {}}, seen.append)
        assert reply.text == "".join(seen)
        reply.text.encode()


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
