"""Replicate's API before an upstream of the test's own."""

import asyncio
import copy
import gc

import pytest

from hermes.chat.inputs import Inputs
from hermes.gateway import replicate_api, streams
from hermes.gateway.run import Run
from hermes.gateway.streams import _event
from tests.support.asgi_gateway import DOCUMENT, FakeUpstream, serving

ASKED = {"version": "local/model", "input": {"prompt": "Hi"}}
TOKENS = {"tokens": ("anna:anna-secret-1", "bert:bert-secret-1")}
ANNA, BERT = ({"Authorization": f"Bearer {name}-secret-1"} for name in ("anna", "bert"))


def run_of(*pieces, status="succeeded", logs="", error=None):
    run = Run(b'{"prompt":"Hi"}')
    for piece in pieces:
        run.add(piece)
    run.status, run.logs, run.error, run.ended = status, logs, error, run.created
    return run


def with_gateway(work, upstream=None, **settings):
    """What `work(client)` returns."""

    async def main():
        async with serving(upstream, **settings) as (_, client):
            return await work(client)

    return asyncio.run(main())


async def made(client, headers=None, body=ASKED):
    response = await client.post("/v1/predictions", json=body, headers={"Prefer": "wait"} | (headers or {}))
    assert response.status_code == 201, response.text
    return response.json()


def events(run, *start):
    async def work(client):
        app = client._transport.app
        api = next(route.endpoint.__self__ for route in app.routes if route.path == "/predictions")
        with api._streams.reading(run) as shown:
            return "".join([text async for text in api._streams.events(shown, *(start or (0, 0)))])

    whole = with_gateway(work).split("\n\n")
    return [dict(line.split(": ", 1) for line in each.splitlines()) for each in whole if each]


def test_a_newline_is_a_line_of_data_whatever_it_is():
    """replicate's client ends a line at each of these, and loses what follows."""
    assert (
        _event("output", "1:0", "a\nb\u2028c\x85d") == "event: output\nid: 1:0\ndata: a\ndata: b\ndata: c\ndata: d\n\n"
    )
    assert _event("output", "1:0", " a\r\n") == "event: output\nid: 1:0\ndata:  a\ndata: \n\n"


@pytest.mark.parametrize("scheme", ["https", "data"])
def test_no_piece_looks_like_a_file(scheme):
    run = run_of("See ", f"{scheme}://x", f"{scheme}: y")
    assert run.output == ["See ", scheme, "://x", scheme, ": y"]
    assert "".join(run.output) == f"See {scheme}://x{scheme}: y"


def test_a_stream_tells_all_and_how_it_ended():
    assert events(run_of("a", "b", logs="said")) == [
        {"event": "output", "id": "1:0", "data": "a"},
        {"event": "output", "id": "2:0", "data": "b"},
        {"event": "logs", "id": "2:4", "data": "said"},
        {"event": "done", "id": "2:4", "data": "{}"},
    ]
    assert events(run_of("a", status="canceled"))[-1] == {
        "event": "done",
        "id": "1:0",
        "data": '{"reason": "canceled"}',
    }
    assert events(run_of(status="failed", error="E1203 x"))[0] == {
        "event": "error",
        "id": "0:0",
        "data": '{"detail": "E1203 x"}',
    }


def test_a_stream_goes_on_after_what_was_read():
    assert events(run_of("a", "b", "c", logs="said"), 2, 4) == [
        {"event": "output", "id": "3:4", "data": "c"},
        {"event": "done", "id": "3:4", "data": "{}"},
    ]


def test_who_has_read_more_than_there_is_gets_the_end():
    [end] = events(run_of("a", logs="said"), 999_999_999, 999_999_999)
    assert end["event"] == "done"


def test_a_stream_of_many_or_long_pieces_is_whole(monkeypatch):
    monkeypatch.setattr(streams, "BATCH", 2)
    monkeypatch.setattr(streams, "SMALL", 10)
    pieces = ["x" * 7, "y", "z" * 50, "a\nb", "c"]
    found = [event for event in events(run_of(*pieces, logs="l" * 30)) if event["event"] == "output"]
    assert [event["id"].partition(":")[0] for event in found] == ["1", "2", "3", "4", "5"]
    assert [event["data"] for event in found] == ["x" * 7, "y", "z" * 50, "b", "c"]  # dict() keeps the last line


def test_a_silent_stream_pings(monkeypatch):
    monkeypatch.setattr(streams, "PING_SECONDS", 0)

    async def work(client):
        api = next(route.endpoint.__self__ for route in client._transport.app.routes if route.path == "/predictions")
        with api._streams.reading(Run(b"{}")) as shown:
            return [text async for _, text in _zip(3, api._streams.events(shown, 0, 0))]

    assert with_gateway(work) == [": ping\n\n"] * 3


async def _zip(count, pieces):
    for number in range(count):
        yield number, await anext(pieces)
    await pieces.aclose()


@pytest.mark.parametrize("last", ["9" * 5000, "9:" + "9" * 5000, "x:y", "\u0663:0".encode()], ids=range(4))
def test_a_last_event_id_of_any_length_is_no_error(last):
    async def work(client):
        stream = (await made(client))["urls"]["stream"]
        return await client.get(stream, headers={"Last-Event-ID": last})

    response = with_gateway(work)
    assert response.status_code == 200
    assert response.text.startswith("event: output\nid: 1:0\ndata: Hel\n\n")


def test_a_prediction_has_the_inputs_as_they_were_sent():
    async def work(client):
        inputs = {"prompt": 'a "b" \u2028 é \U0001f600', "temperature": 0.5}
        return await made(client, body={"version": "local/model", "input": inputs})

    prediction = with_gateway(work, FakeUpstream("a\ud800", "b"))
    assert prediction["input"] == {"prompt": 'a "b" \u2028 é \U0001f600', "temperature": 0.5}
    assert prediction["output"] == ["a?", "b"]
    assert (prediction["status"], prediction["error"], prediction["logs"]) == ("succeeded", None, "")
    assert prediction["metrics"]["output_token_count"] == 2
    assert prediction["metrics"]["total_time"] >= 0
    assert prediction["urls"]["get"] == f"http://127.0.0.1:8000/v1/predictions/{prediction['id']}"


def test_null_is_an_input_that_was_left_out():
    body = {"version": "local/model", "input": {"prompt": "Hi", "temperature": None}}
    assert with_gateway(lambda client: made(client, body=body))["input"] == {"prompt": "Hi"}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"input": {}}, 422, "version: is missing"),
        ({"version": "other/model", "input": {}}, 404, "there is no 'other/model' here; there is local/model:"),
        ({"version": "v" * 301, "input": {}}, 400, "version: String should have at most 300 characters"),
        ({"version": "local/model", "input": {"temperature": 9}}, 422, "input.temperature: 9 is greater than"),
        ({"version": "local/model", "input": {"promt": "Hi"}}, 422, "input.promt: is not an input"),
        ({"version": "local/model", "input": []}, 400, "input: Input should be a valid dictionary"),
        ({"version": "local/model", "webhook": 1}, 400, "webhook: Input should be a valid string"),
        ({"version": "local/model", "webhook_events_filter": ["end"]}, 400, "webhook_events_filter[0]: "),
    ],
)
def test_what_is_wrong_with_a_body_is_said(body, status, said):
    response = with_gateway(lambda client: client.post("/v1/predictions", json=body))
    assert response.status_code == status
    assert said in response.json()["detail"]


@pytest.mark.parametrize("name", ["models", "deployments"])
def test_the_model_of_the_path_has_to_be_the_one(name):
    async def work(client):
        return [
            (await client.post(f"/v1/{name}/{model}/predictions", json={"input": {}})).status_code
            for model in ("local/model", "other/model")
        ]

    assert with_gateway(work) == [201, 404]


def test_an_unfinished_prediction_is_starting_without_output_though_it_has_some():
    async def work(client):
        response = await client.post("/v1/predictions", json=ASKED)
        while not (shown := (await client.get(response.json()["urls"]["get"])).json())["output"]:
            await asyncio.sleep(0)
        return response, shown

    response, shown = with_gateway(work, FakeUpstream(hold=True), grace=0.0)
    assert (response.status_code, response.json()["status"], response.json()["output"]) == (201, "starting", None)
    assert "preference-applied" not in response.headers
    assert (shown["status"], shown["output"][0]) == ("processing", "Hel")


def test_a_prediction_is_its_tokens_alone():
    async def work(client):
        anna = await made(client, ANNA)
        paths = [f"/v1/predictions/{anna['id']}", "/v1/predictions/" + "0" * 26]
        answers = [(await client.get(path, headers=BERT)).json() for path in paths]
        cancels = [(await client.post(f"{path}/cancel", headers=BERT)).json() for path in paths]
        lists = [(await client.get("/v1/predictions", headers=each)).json() for each in (ANNA, BERT)]
        cursor = await client.get("/v1/predictions", params={"cursor": anna["id"]}, headers=BERT)
        stream = await client.get(anna["urls"]["stream"])
        wrong = await client.get(anna["urls"]["stream"] + "x")
        return anna["id"], answers, cancels, lists, cursor, stream, wrong

    anna, answers, cancels, lists, cursor, stream, wrong = with_gateway(work, **TOKENS)
    for theirs, unknown in (answers, cancels):
        assert theirs["status"] == 404
        assert theirs["detail"].replace(anna, "0" * 26) == unknown["detail"]
    assert [[each["id"] for each in found["results"]] for found in lists] == [[anna], []]
    assert (cursor.status_code, cursor.json()["detail"]) == (
        400,
        "cursor: the prediction is no longer here; begin without one",
    )
    assert (stream.status_code, wrong.status_code) == (200, 404)


def test_the_webhook_secret_and_the_account_are_the_tokens():
    async def work(client):
        paths = ("/v1/webhooks/default/secret", "/v1/account")
        return [[(await client.get(path, headers=each)).json() for each in (ANNA, BERT)] for path in paths]

    secrets, accounts = with_gateway(work, **TOKENS)
    assert secrets[0] != secrets[1]
    assert [each["username"] for each in accounts] == ["anna", "bert"]


def test_a_list_has_pages(monkeypatch):
    monkeypatch.setattr(replicate_api, "PAGE", 2)

    async def work(client):
        ids = [(await made(client))["id"] for _ in range(5)]
        pages, url = [], "/v1/predictions"
        while url:
            body = (await client.get(url)).json()
            pages.append([each["id"] for each in body["results"]])
            assert body["previous"] is None
            assert body["next"] is None or body["next"].startswith("http://127.0.0.1:8000/v1/predictions?cursor=")
            url = body["next"]
        return ids, pages

    ids, pages = with_gateway(work)
    assert pages == [ids[4:2:-1], ids[2:0:-1], ids[0::-1]]


def test_a_page_has_a_limit_in_bytes(monkeypatch):
    monkeypatch.setattr(replicate_api, "PAGE_BYTES", 2500)

    async def work(client):
        for _ in range(3):
            await made(client, body={"version": "local/model", "input": {"prompt": "x" * 1000}})
        body = (await client.get("/v1/predictions")).json()
        return len(body["results"]), body["next"] is None

    assert with_gateway(work) == (2, False)


@pytest.mark.parametrize(
    "query", ["source=web", "created_after=2026-01-01", "limit=5", "cursor=a&source=web", "cursor=a&cursor=b", "x"]
)
def test_a_filter_that_is_not_there_is_refused(query):
    response = with_gateway(lambda client: client.get(f"/v1/predictions?{query}"))
    assert response.status_code == 400
    assert "is no filter" in response.json()["detail"]


@pytest.mark.parametrize("cursor", ["unknown", "x" * 5000])
def test_an_unknown_cursor_is_refused(cursor):
    response = with_gateway(lambda client: client.get("/v1/predictions", params={"cursor": cursor}))
    assert (response.status_code, response.json()["detail"]) == (
        400,
        "cursor: the prediction is no longer here; begin without one",
    )


def test_metrics_that_cannot_be_shown_do_not_break_a_list():
    upstream = FakeUpstream()

    async def work(client):
        ids = []
        for metrics in ({"x": float("nan")}, {"output_token_count": 2}):
            upstream.end = {"status": "succeeded", "metrics": metrics}
            ids.append((await made(client))["id"])
        return ids, (await client.get("/v1/predictions")).json()["results"]

    ids, results = with_gateway(work, upstream)
    assert [each["id"] for each in results] == ids[::-1]
    assert [sorted(each["metrics"]) for each in results] == [["output_token_count", "total_time"], ["total_time"]]


def test_ids_of_any_length_are_not_found():
    async def work(client):
        long = "x" * 5000
        return [
            await client.get(f"/v1/predictions/{long}"),
            await client.get(f"/v1/models/{long}/{long}"),
            await client.get(f"/stream/{long}/{long}"),
        ]

    for response in with_gateway(work):
        assert response.status_code == 404
        assert len(response.json()["detail"]) < 500


def test_a_deadline_cancels_a_prediction(monkeypatch):
    monkeypatch.setattr(replicate_api, "cancel_after", lambda headers: 0.01 if headers == ["1s"] else None)

    async def work(client):
        response = await client.post("/v1/predictions", json=ASKED, headers={"Cancel-After": "1s", "Prefer": "wait=5"})
        return response.json()

    prediction = with_gateway(work, FakeUpstream(hold=True))
    assert (prediction["status"], prediction["output"]) == ("canceled", ["Hel", "lo"])


def test_a_deadline_that_is_none_is_refused():
    response = with_gateway(lambda client: client.post("/v1/predictions", json=ASKED, headers={"Cancel-After": "soon"}))
    assert response.status_code == 400
    assert response.json()["detail"].startswith("Cancel-After: is 'soon'")


def test_the_version_changes_with_the_document_and_a_prediction_keeps_its_own():
    other = copy.deepcopy(DOCUMENT) | {"info": {"version": "0.2"}}

    async def main():
        async with serving() as (gateway, client):
            before = await made(client)
            for backend in gateway.pool.backends:
                backend.document = other
            after = await made(client)
            shown = (await client.get(before["urls"]["get"])).json()
            old = await client.post("/v1/predictions", json=ASKED | {"version": before["version"]})
            return before, after, shown, old

    before, after, shown, old = asyncio.run(main())
    assert before["version"] != after["version"]
    assert shown["version"] == before["version"]
    assert old.status_code == 404
    assert after["version"] in old.json()["detail"]


def test_the_list_of_models_is_small():
    big = copy.deepcopy(DOCUMENT) | {"x-large": "x" * 10_000}

    async def work(client):
        return [await client.get(path) for path in ("/v1/models", "/v1/models/gpt-4o", "/v1/models/local/model")]

    models, alias, model = with_gateway(work, FakeUpstream(document=big), aliases=("gpt-4o",))
    body = models.json()
    assert [each["id"] for each in body["data"]] == ["local/model", "model", "gpt-4o"]
    entry = {"id", "object", "created", "owned_by", "root", "parent", "max_model_len"}
    assert all(set(each) == entry for each in body["data"])
    assert len(models.content) < 1500
    assert alias.json() == body["data"][2]
    [listed] = body["results"]
    listed["latest_version"]["openapi_schema"] = big
    assert model.json() == listed | body["data"][0]
    assert model.text.count("x-large") == 1


def test_large_predictions_are_written_in_threads():
    prompt, pieces = "x" * 100_000, ["y" * 10] * 5000

    async def work(client):
        prediction = await made(client, body={"version": "local/model", "input": {"prompt": prompt}})
        [listed] = (await client.get("/v1/predictions")).json()["results"]
        return prediction, listed

    prediction, listed = with_gateway(work, FakeUpstream(*pieces))
    assert prediction == listed
    assert (prediction["input"]["prompt"], prediction["output"]) == (prompt, pieces)


def test_openais_runs_are_in_nobodys_list():
    document = copy.deepcopy(DOCUMENT)
    document["components"]["schemas"]["Input"]["properties"] = {
        name: {}
        for name in (*Inputs.__annotations__, "another")  # it is not our model, whose defaults are needed
    }

    async def work(client):
        answer = await client.post("/v1/completions", json={"model": "local/model", "prompt": "Hi", "stream": True})
        return answer, (await client.get("/v1/predictions")).json()["results"]

    answer, listed = with_gateway(work, FakeUpstream(document=document))
    assert (answer.status_code, listed) == (200, [])


def memory_of(client):
    return next(
        route.endpoint.__self__ for route in client._transport.app.routes if route.path == "/predictions"
    )._memory


class Unread:
    """A client that reads the head of a response and then nothing, until it goes."""

    def __init__(self, client, path, headers=(), method="GET"):
        self.status, self.gone = None, asyncio.Event()
        headers = [(b"host", b"127.0.0.1"), *((name.lower().encode(), value.encode()) for name, value in headers)]
        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}
        app = client._transport.app
        self.task = asyncio.create_task(app(scope | {"scheme": "http", "root_path": ""}, self._receive, self._send))

    async def begun(self):
        while self.status is None:
            await asyncio.sleep(0)
        return self.status

    async def leave(self):
        self.gone.set()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _receive(self):
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            await self.gone.wait()


LARGE = {"version": "local/model", "input": {"prompt": "x" * 100_000}}


def test_a_response_is_counted_until_it_is_sent_and_one_too_many_is_refused():
    async def work(client):
        memory = memory_of(client)
        prediction = await made(client, body=LARGE)
        assert memory.held == 0
        paths = ["/v1/predictions", f"/v1/predictions/{prediction['id']}"] * 2
        unread = [Unread(client, path) for path in paths]
        assert [await each.begun() for each in unread] == [200, 200, 200, 200]
        assert 400_000 < memory.held < 410_000
        memory.limit = 450_000
        assert (await client.get("/v1/predictions")).json()["error"]["code"] == "memory_full"
        for each in unread:
            await each.leave()
        assert memory.held == 0
        return await client.get("/v1/predictions")

    assert with_gateway(work).status_code == 200


def test_what_was_made_is_told_although_the_memory_is_full():
    async def main():
        async with serving() as (gateway, client):
            gateway._memory.limit = 110_000
            assert (await made(client, body=LARGE))["status"] == "succeeded"
            assert gateway._memory.held == 0

    asyncio.run(main())


def test_the_responses_of_cancels_that_nobody_reads_are_limited():
    async def work(client):
        memory = memory_of(client)
        path = f"/v1/predictions/{(await made(client, body=LARGE))['id']}/cancel"
        memory.limit = 250_000
        unread = [Unread(client, path, method="POST") for _ in range(10)]
        statuses = [await each.begun() for each in unread]
        assert memory.held <= memory.limit
        for each in unread:
            await each.leave()
        assert memory.held == 0
        return statuses, (await client.post(path)).status_code

    assert with_gateway(work) == ([200] * 2 + [429] * 8, 200)


def test_a_cancel_whose_response_has_no_memory_cancels_and_can_be_sent_again():
    async def main():
        async with serving(FakeUpstream(hold=True)) as (gateway, client):
            prediction = (await client.post("/v1/predictions", json=ASKED)).json()
            limit, gateway._memory.limit = gateway._memory.limit, 10
            path = f"/v1/predictions/{prediction['id']}/cancel"
            refused = await client.post(path)
            gateway._memory.limit = limit
            return refused.status_code, (await client.post(path)).json()["status"]

    assert asyncio.run(main()) == (429, "canceled")


def test_readers_of_a_stream_share_one_copy_without_its_inputs():
    async def work(client):
        memory, loaded = memory_of(client), []
        prediction = await made(client, body=LARGE)
        path = prediction["urls"]["stream"].removeprefix("http://127.0.0.1:8000")
        unread = []
        for _ in range(10):
            unread.append(Unread(client, path))
            assert await unread[-1].begun() == 200
            loaded.append(memory.held)
        assert 50 * 1000 < loaded[0] < 80 * 1000
        assert loaded == loaded[:1] * 10
        runs = [each for each in gc.get_objects() if isinstance(each, Run)]
        assert [run.id for run in runs].count(prediction["id"]) == 1
        for each in unread:
            assert memory.held == loaded[0]
            await each.leave()
        assert memory.held == 0
        memory.limit = loaded[0] - 1
        assert (await client.get(path)).json()["error"]["code"] == "memory_full"
        memory.limit += 1
        assert (await client.get(path)).text.count("event: output") == 1000
        return memory.held

    assert with_gateway(work, FakeUpstream(*["ab"] * 1000)) == 0


def test_a_stream_that_is_open_at_the_end_of_its_prediction_is_counted_from_then_on():
    upstream = FakeUpstream(*["ab"] * 1000, hold=True)

    async def work(client):
        memory = memory_of(client)
        prediction = (await client.post("/v1/predictions", json=LARGE)).json()
        unread = [Unread(client, prediction["urls"]["stream"].removeprefix("http://127.0.0.1:8000")) for _ in range(3)]
        for each in unread:
            await each.begun()
        assert memory.held > 100_000
        upstream.go.set()
        while memory.held > 100_000:
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        assert 50 * 1000 < memory.held < 80 * 1000
        for each in unread:
            await each.leave()
        return memory.held

    assert with_gateway(work, upstream) == 0


def test_a_stream_of_long_logs_comes_in_parts(monkeypatch):
    monkeypatch.setattr(streams, "SMALL", 10)
    found = events(run_of("a", logs="l" * 25))
    assert [each["data"] for each in found if each["event"] == "logs"] == ["l" * 9, "l" * 10, "l" * 6]
