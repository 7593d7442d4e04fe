"""Cancelled, or left alone: the engine stops working on it and the slot is free."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.asking import LONG, lines_in_log, post, predict, stream, streaming, three_chances, until


def engine_seconds(server):
    """CPU seconds that the engine's processes have used so far."""
    return sum(sum(p.cpu_times()[:2]) for p in server.processes() if p.name().startswith("VLLM"))


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
@three_chances
def test_within_a_second_the_engine_has_nothing_left_to_do(server, leave):
    before = len(endings(server))
    with ThreadPoolExecutor(1) as caller:
        leave(server, caller)
        until(lambda: len(endings(server)) > before, 1, "the prediction has ended")
    assert endings(server)[-1]["engine"]["unfinished"] == 0
    time.sleep(1.2)  # vLLM's worker looks for more work in a busy loop of 1 s before it rests
    used, started = engine_seconds(server), time.monotonic()
    time.sleep(0.5)
    assert engine_seconds(server) - used < 0.2 * (time.monotonic() - started), "the engine goes on computing"
    with ThreadPoolExecutor(32) as callers:
        every_slot = callers.map(lambda _: post(server, prompt="Hi", max_tokens=1).status_code, range(32))
        assert set(every_slot) == {200}


def test_a_cancelled_prediction_reports_what_is_known(server):
    with ThreadPoolExecutor(1) as caller:
        running = caller.submit(post, server, "to-cancel-too", **LONG)
        time.sleep(1)
        httpx.post(f"{server.url}/predictions/to-cancel-too/cancel")
        prediction = running.result(timeout=2).json()
    assert prediction["status"] == "canceled"
    metrics = prediction["metrics"]
    assert metrics["input_token_count"] > 10
    assert 1 < metrics["output_token_count"] < 1900
    assert "finish_reason" not in metrics


def test_cancelling_one_leaves_the_others_alone(server):
    inputs = {"prompt": "Write a short story.", "temperature": 0, "max_tokens": 40, "min_tokens": 40}
    alone = predict(server, **inputs)["output"]
    with ThreadPoolExecutor(8) as callers:
        others = [callers.submit(stream, server, **inputs) for _ in range(4)]
        for _ in range(3):
            drop_stream(server, callers)
        assert {other.result().text for other in others} == {"".join(alone)}
