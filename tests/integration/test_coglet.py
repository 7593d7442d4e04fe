"""coglet itself, with predictors that need no engine: what it does not do, and what the relay makes of it."""

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from hermes.client.cog import stream_prediction
from hermes.client.errors import PredictionRefused
from hermes.devserver.server import LocalServer
from tests.support.asking import failure, once_a_slot_is_free, post, predict, stream, text_of, until
from tests.support.servers import LOCAL

PREDICTORS = Path(__file__).parents[1] / "data" / "predictors"


def serve(name):
    with LocalServer(PREDICTORS / name, environment=LOCAL) as server:
        server.wait_until_ready(timeout=60)
        yield server


@pytest.fixture(scope="module")
def relayed():
    yield from serve("relayed")


@pytest.fixture(scope="module")
def generator():
    yield from serve("generator")


def test_cog_still_does_not_stream_async_generators(generator):
    streamed = stream(generator, count=5)
    assert streamed.text == "0;1;2;3;4;"
    assert streamed.times[0] > 0.9 * streamed.times[-1], (
        "Cog streams async generators now: hermes/serving/relay.py has done its work and can go"
    )


def test_the_relay_streams(relayed, tmp_path):
    """Each piece arrives before the next one is made."""
    chunks = []
    for name, data in stream_prediction(relayed.url, {"count": 10, "gate": str(tmp_path / "arrived-")}):
        if name == "output":
            (tmp_path / f"arrived-{len(chunks)}").touch()
            chunks.append(data["chunk"])
    assert chunks == [f"piece {n};" for n in range(10)]


def test_defaults_reach_predict_as_values(relayed):
    assert text_of(predict(relayed)) == "".join(f"piece {n};" for n in range(5))


def test_every_slot_streams_at_once_and_one_more_is_refused(relayed, tmp_path):
    with ThreadPoolExecutor(4) as callers:
        everyone_streams = threading.Barrier(5, timeout=10)
        inputs = {"count": 2, "gate": str(tmp_path / "done-")}

        def ask(number):
            return once_a_slot_is_free(lambda: stream(relayed, everyone_streams.wait, name=str(number), **inputs))

        answers = callers.map(ask, range(4))
        everyone_streams.wait()
        assert post(relayed, count=0).status_code == 409
        with pytest.raises(PredictionRefused, match="409: At capacity"):
            next(stream_prediction(relayed.url, {}))
        (tmp_path / "done-0").touch()
        for n, streamed in enumerate(answers):
            assert streamed.text == f"{n} 0;{n} 1;"


def test_requests_that_arrive_at_the_same_moment_all_get_a_slot(relayed):
    """On more than one thread coglet refuses about one in 500 of these: see COGLET_ENVIRONMENT.

    Two at a time, for it gives a slot back just after its answer: the two of the last time may still be taken.
    """

    async def bursts():
        statuses = Counter()
        async with httpx.AsyncClient(timeout=10) as client:
            body = {"input": {"count": 1, "pause": 0.005}}
            for _ in range(200):
                responses = await asyncio.gather(
                    *(client.post(f"{relayed.url}/predictions", json=body) for _ in range(2))
                )
                statuses.update(response.status_code for response in responses)
                await asyncio.sleep(0.02)
        return statuses

    assert asyncio.run(bursts()) == {200: 400}
    for process in relayed.processes():
        names = [Path(f"/proc/{process.pid}/task/{thread.id}/comm").read_text().strip() for thread in process.threads()]
        if "cog.server.http" in process.cmdline():
            assert names.count("tokio-rt-worker") == 1, "coglet has stopped reading TOKIO_WORKER_THREADS"


def test_an_error_comes_after_the_pieces_before_it(relayed):
    streamed = stream(relayed, fail_at=3)
    assert streamed.text == "piece 0;piece 1;piece 2;"
    assert streamed.completed["status"] == "failed"
    assert "ValueError: failed at 3" in streamed.completed["error"]
    assert "failed at 0" in failure(relayed, fail_at=0)


def test_metrics_come_from_within_the_task(relayed):
    assert predict(relayed, count=3)["metrics"]["pieces"] == 3
    assert stream(relayed, count=2).completed["metrics"]["pieces"] == 2


def cancel(relayed, name):
    return httpx.post(f"{relayed.url}/predictions/{name}/cancel")


def ended_by_cancel(relayed, before):
    """Whether another prediction has seen its CancelledError, and none is still running."""
    metrics = predict(relayed, count=0)["metrics"]
    return metrics["running"] == 0 and metrics["cancelled_so_far"] == before + 1


def cancelled_so_far(relayed):
    return predict(relayed, count=0)["metrics"]["cancelled_so_far"]


def test_cancelling_a_prediction_reaches_predict(relayed):
    before = cancelled_so_far(relayed)
    with ThreadPoolExecutor(1) as caller:
        running = caller.submit(post, relayed, "to-cancel", count=1000)
        time.sleep(0.3)
        assert cancel(relayed, "to-cancel").status_code == 200
        assert running.result(timeout=2).json()["status"] == "canceled"
    until(lambda: ended_by_cancel(relayed, before), 1, "predict has ended")


def test_a_dropped_stream_reaches_predict(relayed):
    before = cancelled_so_far(relayed)
    events = stream_prediction(relayed.url, {"count": 1000})
    assert [next(events)[0] for _ in range(3)] == ["start", "output", "output"]
    events.close()
    until(lambda: ended_by_cancel(relayed, before), 1, "predict has ended")


def test_a_dropped_plain_client_reaches_predict(relayed):
    before = cancelled_so_far(relayed)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{relayed.url}/predictions", json={"input": {"count": 1000}}, timeout=0.5)
    until(lambda: ended_by_cancel(relayed, before), 1, "predict has ended")


def test_cancels_at_every_moment_leave_no_slot_behind(relayed):
    """Also before coglet has a future to cancel. It loses a cancel that overtakes the request on its way to the worker
    ("Cancel called on idle slot"), so this asks again, as a caller would."""
    for attempt in range(60):
        name = f"race-{attempt}"
        caller = threading.Thread(target=post, args=(relayed, name), kwargs={"count": 1000})
        caller.start()
        until(lambda n=name, c=caller: cancel(relayed, n) and not c.is_alive(), 3, f"{name} ends when cancelled")
    until(lambda: predict(relayed, count=0)["metrics"]["running"] == 0, 1, "no predict is left running")
    with ThreadPoolExecutor(4) as callers:
        assert {r.status_code for r in callers.map(lambda _: post(relayed, count=3), range(4))} == {200}


def test_an_id_that_makes_no_file_name_still_takes_its_slot_for_good(relayed):
    """coglet 0.23.1 does not free the slot. Nobody who is not trusted may choose ids, see SECURITY.md."""
    for prediction_id in ("x" * 256, "x" * 60_000, "a\0b", "y" * 256):
        prediction = post(relayed, quote(prediction_id, safe=""), count=0).json()
        assert prediction["status"] == "failed"
        assert prediction["error"].startswith("Failed to create output dir: ")
    refused = post(relayed, count=0)
    assert refused.status_code == 409, "Cog frees the slot now: what the documentation says of it can go"
