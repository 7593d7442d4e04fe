"""Cancelled, or left alone: the engine stops working on it and the slot is free."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from hermes.client.cog import stream_prediction
from tests.support.asking import LONG, lines_in_log, post, predict, stream, streaming, text_of, until
from tests.support.servers import prediction_lines

AHEAD = 4  # tokens that the engine may have counted more than the prediction when that is broken off


def endings(server):
    """What the server's log says of predictions that did not finish."""
    return [line for line in lines_in_log(server) if line["finish_reason"] is None]


def cancel(server, caller):
    caller.submit(post, server, "to-cancel", **LONG)
    time.sleep(1)
    assert httpx.post(f"{server.url}/predictions/to-cancel/cancel").status_code == 200


def drop_stream(server, caller):
    with streaming(server, **LONG):
        pass


def drop_plain_client(server, caller):
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/predictions", json={"input": LONG}, timeout=1)


@pytest.mark.parametrize("leave", [cancel, drop_stream, drop_plain_client])
def test_the_engine_has_nothing_left_to_do(server, leave):
    before = len(endings(server))
    with ThreadPoolExecutor(1) as caller:
        leave(server, caller)
        until(lambda: len(endings(server)) > before, 5, "the prediction has ended")
    ended = endings(server)[-1]
    assert ended["output_tokens"] < 200, "it ended seconds after it was left"
    assert ended["engine"]["unfinished"] == 0
    time.sleep(0.5)
    (line,) = prediction_lines(predict(server, prompt="Hi", max_tokens=1)["logs"].splitlines())
    assert line["engine"]["output_tokens"] - ended["engine"]["output_tokens"] <= 1 + AHEAD, "the engine went on"
    with ThreadPoolExecutor(32) as callers:

        def every_slot_is_free():  # the last one a moment after its answer
            statuses = callers.map(lambda _: post(server, prompt="Hi", max_tokens=1).status_code, range(32))
            return {*statuses} == {200}

        until(every_slot_is_free, 20, "every slot is free")


def test_a_cancelled_prediction_reports_what_is_known(server):
    events = stream_prediction(server.url, LONG)
    (_, started), *outputs = [next(events) for _ in range(4)]
    httpx.post(f"{server.url}/predictions/{started['id']}/cancel")
    *_, (_, prediction) = events
    assert prediction["status"] == "canceled"
    metrics = prediction["metrics"]
    assert metrics["input_token_count"] > 10
    assert len(outputs) <= metrics["output_token_count"] < 1900
    assert "finish_reason" not in metrics


def test_cancelling_one_leaves_the_others_alone(server):
    inputs = {"prompt": "Write a short story.", "temperature": 0, "max_tokens": 40, "min_tokens": 40}
    alone = text_of(predict(server, **inputs))
    with ThreadPoolExecutor(8) as callers:
        others = [callers.submit(stream, server, **inputs) for _ in range(4)]
        for _ in range(3):
            drop_stream(server, callers)
        assert {other.result().text for other in others} == {alone}
