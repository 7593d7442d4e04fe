import json
import threading
from contextlib import suppress
from typing import get_args

import httpx
import pytest
import replicate

from hermes.chat.finish_reason import FinishReason
from hermes.client import (
    BadToolCall,
    CogServer,
    PredictionFailed,
    PredictionRefused,
    ReplicateModel,
    Response,
    ToolCall,
)
from hermes.client.cog import tls
from tests.support.scripted import Handler, serving

METRICS = {"finish_reason": "stop", "output_token_count": 2, "seed": 3}
TEXT = "Hé\u2028llo 😀\nthere"
PIECES = ["Hé\u2028llo", " 😀\nthere"]
FAILED = "Prediction failed: Generator iteration error: EmptyRequest: E1001 EmptyRequest: prompt is empty"
CALL_METRICS = {
    "finish_reason": "tool_calls",
    "tool_calls": [{"name": "add", "arguments": {"a": 1}}],
    "tool_call_errors": [{"name": None, "text": "<tool_call>", "problem": "empty"}],
}


class CogHandler(Handler):
    """As coglet answers POST /predictions: `script` holds the events, or a status and a body."""

    script = ()
    cut = False
    seen = None

    def do_POST(self):  # noqa: N802
        type(self).seen = self.body()["input"]
        if isinstance(self.script[0], int):
            self.answer(self.script[1], self.script[0])
        else:
            self.stream(self.events(), self.cut)

    def events(self):
        for name, data in self.script:
            written = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
            yield f"event: {name}\ndata: {written}\n\n"


def cog(*script, **more):
    return type("Scripted", (CogHandler,), {"script": script, **more})


def outputs(pieces=PIECES):
    return [("start", {}), *(("output", {"chunk": piece, "index": i}) for i, piece in enumerate(pieces)), ("log", {})]


def completed(status="succeeded", metrics=METRICS, **more):
    return ("completed", {"id": "p1", "status": status, "metrics": metrics, **more})


def test_a_cog_server_gives_the_text_as_it_comes_and_the_record_at_the_end():
    handler, seen = cog(*outputs(), completed()), []
    with serving(handler) as url:
        assert CogServer(url).ask({"prompt": "Hi"}, seen.append) == Response(TEXT, "stop", metrics=METRICS)
    assert seen == PIECES
    assert handler.seen == {"prompt": "Hi"}


@pytest.mark.parametrize("finish_reason", get_args(FinishReason))
def test_whatever_the_server_ends_an_answer_for_is_an_answer(finish_reason):
    metrics = {**METRICS, "finish_reason": finish_reason}
    with serving(cog(*outputs(), completed(metrics=metrics))) as url:
        assert CogServer(url).ask({"prompt": "Hi"}) == Response(TEXT, finish_reason, metrics=metrics)


@pytest.mark.parametrize(
    ("inputs", "sent"),
    [
        ({"prompt": "Hi", "seed": None}, {"prompt": "Hi"}),
        ({"prompt": "Hi", "messages": None, "tools": None, "json_schema": None, "timeout": None}, {"prompt": "Hi"}),
        (
            {"prompt": "", "seed": 0, "stop_sequences": "", "messages": [], "min_p": 0.0},
            {"prompt": "", "seed": 0, "stop_sequences": "", "messages": [], "min_p": 0.0},
        ),
    ],
)
def test_none_is_not_sent(inputs, sent):
    handler = cog(*outputs(), completed())
    with serving(handler) as url:
        CogServer(url).ask(inputs)
    assert handler.seen == sent


def test_calls_and_mistakes_are_values():
    with serving(cog(*outputs(), completed(metrics=CALL_METRICS))) as url:
        response = CogServer(url).ask({"tools": [{}]})
    assert response.tool_calls == (ToolCall("add", {"a": 1}),)
    assert response.tool_call_errors == (BadToolCall("<tool_call>", "empty"),)


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ([*outputs(), completed("failed", error=FAILED)], "E1001 EmptyRequest: prompt is empty"),
        ([completed("failed", error="CUDA is gone")], "CUDA is gone"),
        ([*outputs(), completed("canceled")], "canceled"),
        ([("error", {"error": "SSE stream lagged"})], "SSE stream lagged"),
        (outputs(), "the stream ended before the prediction was complete"),
        ([("output", {})], "the server's output has to be text, not NoneType"),
        (
            [("output", r'{"chunk": "\ud83d"}')],
            "the server's output holds half of a character",
        ),
        ([("error", {})], "None"),
        ([("error", {"error": "a\nb" * 999})], ("a b" * 333)[:997] + "..."),
        ([("completed", {})], "None"),
        ([completed("failed", error={"a": 5})], "{'a': 5}"),
        ([completed(metrics=[1])], "the prediction's metrics have to be an object, not list"),
        ([422, {"detail": [5]}], 'the server answered 422: {"detail": [5]}'),
        ([500, ["a", "b\n"]], 'the server answered 500: ["a", "b\\n"]'),
        ([completed(metrics={})], "the prediction's metrics cannot be read: $.finish_reason: Field required"),
        ([409, {"error": "all prediction slots busy"}], "the server answered 409: all prediction slots busy"),
        (
            [422, {"detail": [{"loc": ["body", "input", "top_k"], "msg": "too large"}]}],
            "the server answered 422: top_k: too large",
        ),
    ],
)
def test_without_a_complete_answer_a_cog_server_raises(script, line):
    with serving(cog(*script)) as url, pytest.raises(PredictionFailed) as caught:
        CogServer(url).ask({"prompt": "Hi"})
    assert str(caught.value) == line


def test_a_stream_from_cog_that_is_cut_raises():
    with serving(cog(*outputs(), cut=True)) as url, pytest.raises(PredictionFailed, match="broke"):
        CogServer(url).ask({})


def test_a_server_that_is_not_there_raises():
    with serving(cog()) as url:
        pass
    with pytest.raises(PredictionFailed, match=r"the connection to http://127\.0\.0\.1:\d+ broke: "):
        CogServer(url).ask({})


def test_a_server_that_takes_no_tools_is_noticed():
    with serving(cog(*outputs(), completed())) as url:
        with pytest.raises(PredictionFailed, match="this server does not take tools"):
            CogServer(url).ask({"tools": [{}]})
        assert CogServer(url).ask({"tools": [{}], "tool_choice": "none"}).text == TEXT


def stop_at_once(_):
    raise KeyboardInterrupt


def test_what_on_text_raises_closes_the_connection_to_cog():
    gone = threading.Event()

    class Endless(CogHandler):
        def events(self):
            try:
                while True:
                    yield 'event: output\ndata: {"chunk": "a"}\n\n'
            finally:
                gone.set()

        def handle(self):
            with suppress(OSError):
                super().handle()

    with serving(type("Scripted", (Endless,), {"script": [()]})) as url, pytest.raises(KeyboardInterrupt):
        CogServer(url).ask({}, stop_at_once)
    assert gone.wait(1)


class ReplicateHandler(Handler):
    """The part of Replicate's HTTP API that a streamed prediction needs; `ends` are what GET finds, in turn."""

    stream_script = ()
    cut = False
    ends = ()
    refusal = None
    requests = ()

    def do_POST(self):  # noqa: N802
        self.requests.append(f"POST {self.path}")
        if self.path.endswith("/cancel"):
            self.answer(self.prediction({"status": "canceled"}))
        elif self.refusal:
            self.answer(self.refusal, self.refusal["status"])
        else:
            self.requests.append(self.body())
            self.answer(self.prediction({"status": "starting"}), 201)

    def do_GET(self):  # noqa: N802
        if self.path == "/stream/p1":
            self.stream(self.stream_script, self.cut)
        elif self.path == "/v1/predictions/p1":
            self.answer(self.prediction(self.ends.pop(0)))
        else:
            self.requests.append(f"GET {self.path}")
            version = {"id": "latest", "created_at": "2026-01-01T00:00:00Z", "cog_version": "1", "openapi_schema": {}}
            model = {"url": "u", "owner": "me", "name": "hermes", "visibility": "private", "run_count": 0}
            self.answer({**model, "latest_version": version})

    def prediction(self, values):
        stream = f"http://{self.headers['Host']}/stream/p1"
        return {"id": "p1", "model": "me/hermes", "version": "v1", "urls": {"stream": stream}, **values}


def on_replicate(stream, *ends, **more):
    return type("Scripted", (ReplicateHandler,), {"stream_script": stream, "ends": [*ends], "requests": [], **more})


def sent(name, data, index=0):
    lines = "".join(f"data: {line}\n" for line in data.split("\n"))
    return f"event: {name}\nid: {index}\n{lines}\n"


DONE = sent("done", "{}")
SUCCEEDED = {"status": "succeeded", "output": PIECES, "metrics": METRICS}


@pytest.fixture
def ask(request):
    """Ask the model of a handler through Replicate's own client."""

    def ask(handler, ref="me/hermes:v1", inputs=None, on_text=None):
        with serving(handler) as url:
            client = replicate.Client(api_token="r8_x", base_url=url, transport=httpx.HTTPTransport(verify=tls()))
            client.poll_interval = 0.001
            request.addfinalizer(client._client.close)
            return ReplicateModel(ref, client).ask(inputs or {"prompt": "Hi"}, on_text)

    return ask


def test_replicate_gives_the_text_as_it_comes_and_the_record_at_the_end(ask):
    handler = on_replicate([sent("output", "Hé"), sent("output", " 😀\nthere"), sent("logs", "x"), DONE], SUCCEEDED)
    seen = []
    assert ask(handler, on_text=seen.append) == Response(TEXT, "stop", metrics=METRICS)
    assert seen == ["Hé", " 😀\nthere"]
    assert handler.requests == [
        "POST /v1/predictions",
        {"version": "v1", "input": {"prompt": "Hi"}, "stream": True},
    ]


def test_a_name_alone_is_its_latest_version(ask):
    handler = on_replicate([DONE], SUCCEEDED)
    ask(handler, "me/hermes")
    assert handler.requests[0] == "GET /v1/models/me/hermes"
    assert handler.requests[2]["version"] == "latest"


def test_text_that_looks_like_a_url_stays_text(ask):
    seen = []
    ask(on_replicate([sent("output", "https://a.b"), sent("output", "data:"), DONE], SUCCEEDED), on_text=seen.append)
    assert seen == ["https://a.b", "data:"]


def test_a_prediction_may_be_complete_a_moment_after_its_stream(ask):
    assert ask(on_replicate([DONE], {"status": "processing"}, {"status": "processing"}, SUCCEEDED)).text == TEXT


@pytest.mark.parametrize(
    ("stream", "ends", "line"),
    [
        ([DONE], [{"status": "failed", "error": FAILED}], "E1001 EmptyRequest: prompt is empty"),
        (
            [sent("output", "He"), sent("error", "it broke")],
            [{"status": "failed", "error": FAILED}],
            "E1001 EmptyRequest: prompt is empty",
        ),
        ([sent("error", "it broke")], [SUCCEEDED], "it broke"),
        ([DONE], [{"status": "canceled"}], "canceled"),
        ([DONE], [{"status": "succeeded", "output": []}], "the prediction's metrics cannot be read: $.finish_reason"),
        ([sent("output", "He")], [SUCCEEDED], "the stream ended before the prediction was complete"),
        ([DONE], [{**SUCCEEDED, "output": ["a", 5]}], "the prediction's output has to be text, not int"),
        ([DONE], [{**SUCCEEDED, "output": {"a": 5}}], "the prediction's output has to be text, not dict"),
        ([DONE], [{**SUCCEEDED, "output": ["\ud83d"]}], "the prediction's output holds half of a character"),
        (
            [DONE],
            [{**SUCCEEDED, "metrics": {**METRICS, "tool_calls": [{"name": "\ud83d", "arguments": {}}]}}],
            "the prediction's metrics cannot be read: 'utf-8' codec can't encode character",
        ),
        ([DONE], [{"status": "unheard of"}], "the prediction cannot be loaded: "),
    ],
)
def test_without_a_complete_answer_replicate_raises(ask, stream, ends, line):
    with pytest.raises(PredictionFailed) as caught:
        ask(on_replicate(stream, *ends))
    assert str(caught.value).startswith(line)


def test_a_stream_from_replicate_that_is_cut_raises_and_cancels(ask):
    handler = on_replicate([sent("output", "He")], SUCCEEDED, cut=True)
    with pytest.raises(PredictionFailed, match="the stream broke: "):
        ask(handler)
    assert handler.requests[-1] == "POST /v1/predictions/p1/cancel"


def test_what_on_text_raises_cancels_the_prediction_on_replicate(ask):
    handler = on_replicate([sent("output", "He"), DONE], SUCCEEDED)
    with pytest.raises(KeyboardInterrupt):
        ask(handler, on_text=stop_at_once)
    assert handler.requests[-1] == "POST /v1/predictions/p1/cancel"


def test_a_prediction_that_replicate_refuses_says_why(ask):
    with pytest.raises(PredictionRefused) as caught:
        ask(on_replicate([], refusal={"status": 422, "title": "Input validation failed", "detail": "input: top_k: no"}))
    assert str(caught.value) == "the server answered 422: input: top_k: no"


def test_a_model_on_replicate_has_an_owner_and_a_name():
    with pytest.raises(ValueError, match="Invalid reference"):
        ReplicateModel("hermes")
