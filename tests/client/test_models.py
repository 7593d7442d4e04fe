"""CogServer asks a Cog server. It gives text, calls and a record, or raises an error of one line."""

import json
import threading
from contextlib import suppress
from typing import get_args

import pytest

from hermes.chat.finish_reason import FinishReason
from hermes.client import BadToolCall, CogServer, PredictionFailed, Response, ToolCall
from tests.support.scripted import FAILED, METRICS, PIECES, TEXT, Handler, serving, stop_at_once

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
