"""Whatever Replicate sends, its client gives an answer or one of our own errors, in one line."""

import json
from contextlib import suppress
from functools import cache

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.client import PredictionFailed, ReplicateModel
from tests.support.hostile import anything, as_json, clean, examples, mixed, quiet, sometimes
from tests.support.hostile_replies import answered_or_failed, predictions

pytestmark = quiet


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
