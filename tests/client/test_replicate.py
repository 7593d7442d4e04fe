"""ReplicateModel asks a model on Replicate. It gives text and a record, or raises an error of one line."""

from contextlib import closing
from typing import ClassVar

import httpx
import pytest
import replicate

from hermes.client import PredictionFailed, PredictionRefused, ReplicateModel, Response
from hermes.environment import tls
from hermes.errors import InvalidConfiguration
from tests.support.scripted import FAILED, METRICS, PIECES, TEXT, Handler, serving, stop_at_once


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


@pytest.mark.parametrize("token", ["r8_x", "r8_x\n", " r8_x\r\n"])
def test_the_token_and_the_proxy_are_those_of_the_environment(monkeypatch, token):
    class Proxy(Handler):
        asked: ClassVar = []

        def do_GET(self):  # noqa: N802
            self.asked.append((self.path, self.headers["Authorization"]))
            self.answer({"detail": "no such model"}, 404)

    with serving(Proxy) as url:
        monkeypatch.setenv("HTTP_PROXY", url)
        monkeypatch.setenv("NO_PROXY", "[::1]")
        monkeypatch.setenv("REPLICATE_BASE_URL", "http://replicate.invalid")
        monkeypatch.setenv("REPLICATE_API_TOKEN", token)
        model = ReplicateModel("me/hermes")
        with closing(model._client._client), pytest.raises(PredictionRefused, match="no such model"):
            model.ask({"prompt": "Hi"})
    assert Proxy.asked == [("http://replicate.invalid/v1/models/me/hermes", "Bearer r8_x")]


@pytest.mark.parametrize("token", [" ", "r8_secret r8", "r8_secret\nx"])
def test_a_token_that_no_header_holds_is_named_and_not_shown(monkeypatch, token):
    monkeypatch.setenv("REPLICATE_API_TOKEN", token)
    with pytest.raises(InvalidConfiguration, match="REPLICATE_API_TOKEN: has ") as caught:
        ReplicateModel("me/hermes")
    assert "secret" not in str(caught.value)
