"""Responses of OpenAI's API from the request to the end, and what is kept of them, with an upstream of the tests."""

import asyncio
import json
import threading
from contextlib import asynccontextmanager
from typing import get_args

import pytest
from openai.types.responses import ResponseStreamEvent

from hermes.devserver import PROJECT, PredictorSource
from hermes.gateway import reply as replies
from hermes.gateway import response_store
from hermes.gateway.reply import Reply
from tests.support.asgi_gateway import FakeUpstream, serving

EVERY_INPUT = PredictorSource(PROJECT / "predict.py").openapi()
DONE = {"input_token_count": 3, "output_token_count": 2}
CUT = {**DONE, "finish_reason": "length"}
TOOLS = [{"type": "function", "name": name, "parameters": {"type": "object"}} for name in ("clock", "map")]
PATCH = {"type": "custom", "name": "patch"}
CALL = '<tool_call>\n{"arguments": {"zone": "Oslo"}, "name": "clock"}\n</tool_call>'
PATCHED = '<tool_call>\n{"arguments": {"input": "a\\nb"}, "name": "patch"}\n</tool_call>'
OPENAIS = {
    kind.model_fields["type"].annotation.__args__[0]: kind for kind in get_args(get_args(ResponseStreamEvent)[0])
}
URL = "/v1/responses"


def upstream(*pieces, metrics=DONE, **more):
    return FakeUpstream(*pieces, metrics=metrics, document=EVERY_INPUT, **more)


def run(work, *pieces, settings=None, **more):
    """What `work` returns, which is given a client of a gateway whose model says these pieces."""

    async def main():
        async with serving(upstream(*pieces, **more), **(settings or {})) as (gateway, client):
            return await work(gateway, client)

    return asyncio.run(main())


async def ask(client, status=200, **body):
    response = await client.post(URL, json={"input": "Hi", **body})
    assert response.status_code == status, response.text
    return response.json()


async def events(client, **body):
    response = await client.post(URL, json={"input": "Hi", "stream": True, **body})
    assert response.status_code == 200, response.text
    return events_of(response.text)


def events_of(text):
    return [json.loads(event.partition("data: ")[2]) for event in text.split("\n\n")[:-1]]


class Recording(FakeUpstream):
    """Keeps what it was asked."""

    def __init__(self, *pieces, **more):
        super().__init__(*pieces, document=EVERY_INPUT, metrics=DONE, **more)
        self.asked = []

    async def run(self, run_id, inputs):
        self.asked.append(inputs)
        async for event in super().run(run_id, inputs):
            yield event


def test_a_response_has_all_that_openai_and_open_responses_have():
    async def work(gateway, client):
        return await ask(client)

    response = run(work)
    assert {"presence_penalty", "max_tool_calls", "safety_identifier", "service_tier"} <= set(response)
    assert (response["status"], response["store"], response["model"]) == ("completed", True, "local/model")
    assert response["completed_at"] >= response["created_at"]
    assert response["output"][0]["content"][0]["text"] == "Hello"
    assert response["usage"]["total_tokens"] == 5


def test_a_cut_response_and_its_last_item_are_incomplete():
    async def work(gateway, client):
        return await ask(client, tools=TOOLS), await events(client)

    whole, streamed = run(work, "Half", metrics=CUT)
    for response in (whole, streamed[-1]["response"]):
        assert (response["status"], response["incomplete_details"]) == (
            "incomplete",
            {"reason": "max_output_tokens"},
        )
        assert response["output"][-1]["status"] == "incomplete"
        assert response["completed_at"] is None
    assert streamed[-1]["type"] == "response.incomplete"


def test_a_call_that_was_cut_is_given_as_far_as_it_came():
    async def work(gateway, client):
        return (await ask(client, tools=TOOLS[:1]))["output"]

    [call] = run(work, CALL[: CALL.index("slo")], metrics=CUT)
    assert (call["type"], call["arguments"], call["status"]) == ("function_call", '{"zone": "O', "incomplete")


def test_a_call_that_was_whole_when_the_rest_was_cut_is_completed():
    async def work(gateway, client):
        return await events(client, tools=TOOLS)

    streamed = run(work, CALL, "\nAnd n", metrics=CUT)
    call, text = streamed[-1]["response"]["output"]
    assert (call["status"], text["status"]) == ("completed", "incomplete")
    kinds = [event["type"] for event in streamed]
    assert kinds.index("response.output_item.done") < kinds.index("response.content_part.added")
    assert [event["sequence_number"] for event in streamed] == list(range(len(streamed)))


@pytest.mark.parametrize(
    ("said", "tools", "metrics"),
    [
        (["Look.\n", CALL, "\nDone."], TOOLS, DONE),
        ([f"{CALL}\n{CALL}"], TOOLS, DONE),
        (["Look. ", *CALL, "\n", *CALL], TOOLS[:1], DONE),
        (["Look.\n", *PATCHED, "\nDone."], [PATCH, *TOOLS], DONE),
        ([*PATCHED[:42]], [PATCH], CUT),
        ([*CALL[:42]], TOOLS[:1], CUT),
        (["Half"], [], CUT),
    ],
)
def test_each_event_is_one_of_openais_and_streamed_equals_whole_equals_kept(monkeypatch, said, tools, metrics):
    monkeypatch.setattr(replies, "PING_SECONDS", 0.001)

    async def work(gateway, client):
        streamed = await events(client, tools=tools)
        return streamed, await ask(client, tools=tools), (await client.get(f"{URL}/{streamed[-1]['response']['id']}"))

    streamed, whole, kept = run(work, *said, metrics=metrics)
    for event in streamed:
        kind = OPENAIS[event["type"]]
        kind.model_validate(event)
    last = streamed[-1]["response"]
    assert last == kept.json()
    assert plain(last) == plain(whole)


def plain(response):
    """A response without what differs from one to the next."""
    items = [{**item, "id": "", "call_id": ""} for item in response["output"]]
    return {**response, "output": items, "id": "", "created_at": 0, "completed_at": 0}


@pytest.mark.parametrize(("written", "read"), [("a\\nb", "a\nb"), ("a\\ud83d", "a\ufffd")], ids=["text", "half"])
def test_a_call_of_a_custom_tool_has_its_input(written, read):
    said = f'<tool_call>\n{{"arguments": {{"input": "{written}"}}, "name": "patch"}}\n</tool_call>'

    async def work(gateway, client):
        return await events(client, tools=[PATCH])

    streamed = run(work, said)
    [item] = streamed[-1]["response"]["output"]
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "patch", read)
    told = {event["type"]: event for event in streamed}
    assert told["response.custom_tool_call_input.delta"]["delta"] == read
    assert told["response.custom_tool_call_input.done"]["input"] == read
    assert told["response.output_item.done"]["item"] == item


@pytest.mark.parametrize("tools", [[], TOOLS[:1], [PATCH]], ids=["text", "call", "custom"])
def test_signs_of_life_change_nothing(monkeypatch, tools):
    monkeypatch.setattr(replies, "PING_SECONDS", 0.01)
    said = "Hi" if not tools else CALL[:-20] if tools == TOOLS[:1] else '<tool_call>\n{"arguments": {"input": "'

    async def work(gateway, client):
        silent = gateway.pool.backends[0].upstream
        asking = asyncio.create_task(events(client, tools=tools))
        await asyncio.sleep(0.1)
        silent.go.set()
        return await asking

    streamed = run(work, said, hold=True)
    signs = [event for event in streamed if event.get("delta") == "" or event["type"] == "response.in_progress"]
    assert len(signs) > 2
    assert streamed[-1]["type"] == "response.completed"
    assert [event["sequence_number"] for event in streamed] == list(range(len(streamed)))


def test_a_response_goes_on_with_an_earlier_one():
    asked = Recording("Hello")

    async def main():
        async with serving(asked) as (_, client):
            first = await ask(client, input="One", instructions="Be brief.")
            second = await ask(client, input="Two", previous_response_id=first["id"], instructions="Be long.")
            third = await ask(client, input="Three", previous_response_id=second["id"])
            assert second["previous_response_id"] == first["id"]
            items = (await client.get(f"{URL}/{third['id']}/input_items?order=asc")).json()
            return items["data"]

    items = asyncio.run(main())
    turns = [(turn["role"], turn["content"]) for turn in json.loads(asked.asked[-1])["messages"]]
    hello = ("assistant", "Hello")
    assert turns == [("user", "One"), hello, ("user", "Two"), hello, ("user", "Three")]
    assert json.loads(asked.asked[1])["messages"][0] == {"role": "system", "content": "Be long."}
    assert [item["role"] for item in items] == ["user", "assistant", "user", "assistant", "user"]


def test_an_item_may_stand_for_its_text():
    asked = Recording("Hello")

    async def main():
        async with serving(asked) as (_, client):
            first = await ask(client)
            reference = {"type": "item_reference", "id": first["output"][0]["id"]}
            await ask(client, input=[{"role": "user", "content": "Hi"}, reference, {"role": "user", "content": "So?"}])
            return await ask(client, 404, input=[{"type": "item_reference", "id": "msg_gone"}])

    refused = asyncio.run(main())
    assert [turn["content"] for turn in json.loads(asked.asked[-1])["messages"]] == ["Hi", "Hello", "So?"]
    assert "'msg_gone'" in refused["detail"]
    assert "store: false" in refused["detail"]
    assert refused["error"]["param"] == "input[0]"


def test_a_response_is_there_until_it_is_deleted():
    async def work(gateway, client):
        made = await ask(client)
        url = f"{URL}/{made['id']}"
        assert (await client.get(url)).json() == made
        assert (await client.get(f"{url}?stream=true")).status_code == 400
        assert (await client.post(f"{url}/cancel")).status_code == 400
        deleted = await client.delete(url)
        assert deleted.json() == {"id": made["id"], "object": "response", "deleted": True}
        gone = [
            await client.get(url),
            await client.delete(url),
            await client.get(f"{url}/input_items"),
            await client.post(f"{url}/cancel"),
        ]
        assert [each.status_code for each in gone] == [404] * 4
        await ask(client, 404, input=[{"type": "item_reference", "id": made["output"][0]["id"]}])
        return await ask(client, 400, previous_response_id=made["id"])

    refused = run(work)
    assert refused["error"]["code"] == "previous_response_not_found"
    assert refused["error"]["param"] == "previous_response_id"


def test_what_is_not_stored_is_not_there():
    async def work(gateway, client):
        made = await ask(client, store=False)
        assert made["store"] is False
        assert (await client.get(f"{URL}/{made['id']}")).status_code == 404
        await ask(client, 400, previous_response_id=made["id"])

    run(work)


def test_each_token_has_its_own():
    async def main():
        async with serving(upstream(), tokens=("a:first", "b:second")) as (_, client):
            mine = {"headers": {"Authorization": "Bearer first"}}
            made = (await client.post(URL, json={"input": "Hi"}, **mine)).json()
            client.headers["Authorization"] = "Bearer second"
            assert (await client.get(f"{URL}/{made['id']}")).status_code == 404
            assert (await client.delete(f"{URL}/{made['id']}")).status_code == 404
            await ask(client, 400, previous_response_id=made["id"])
            await ask(client, 404, input=[{"type": "item_reference", "id": made["output"][0]["id"]}])
            assert (await client.get(f"{URL}/{made['id']}", **mine)).json() == made

    asyncio.run(main())


def test_items_are_listed_in_pages():
    turns = [{"role": "user", "content": str(n)} for n in range(5)]

    async def work(gateway, client):
        url = f"{URL}/{(await ask(client, input=turns))['id']}/input_items"

        async def page(query):
            return (await client.get(f"{url}?{query}")).json()

        first = await page("limit=2")
        assert [item["content"][0]["text"] for item in first["data"]] == ["4", "3"]
        assert (first["object"], first["has_more"]) == ("list", True)
        assert (first["first_id"], first["last_id"]) == tuple(item["id"] for item in first["data"])
        rest = await page(f"after={first['last_id']}")
        assert [item["content"][0]["text"] for item in rest["data"]] == ["2", "1", "0"]
        assert rest["has_more"] is False
        assert (await page("order=asc&limit=1"))["data"][0]["content"][0]["text"] == "0"
        for wrong, status in (("limit=0", 400), ("limit=x", 400), ("order=up", 400), ("after=gone", 404)):
            assert (await page(wrong))["status"] == status

    run(work)


@asynccontextmanager
async def streaming(app, *, reads=None, **body):
    """A stream that is read as it comes: its chunks, and the event that ends it for the client.

    Where `reads` is given, the client takes text only while it is set.
    """
    chunks, leave = asyncio.Queue(), asyncio.Event()
    request = [{"type": "http.request", "body": json.dumps({"input": "Hi", "stream": True, **body}).encode()}]
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"9")]
    scope = {"type": "http", "method": "POST", "path": URL, "scheme": "http", "query_string": b"", "headers": headers}

    async def receive():
        if request:
            return request.pop()
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.body":
            chunks.put_nowait(message.get("body", b"").decode())
            if reads and b"output_text.delta" in message.get("body", b""):
                await reads.wait()

    task = asyncio.create_task(app(scope, receive, send))
    try:
        yield chunks, leave, task
    finally:
        leave.set()
        await asyncio.gather(task, return_exceptions=True)


async def first_event(chunks):
    return events_of(await chunks.get())[0]["response"]


@pytest.mark.parametrize("how", ["cancel", "leave"])
def test_a_response_that_does_not_reach_its_end_is_kept_as_far_as_it_came(how):
    async def work(gateway, client):
        async with streaming(client._transport.app) as (chunks, leave, task):
            made = await first_event(chunks)
            url = f"{URL}/{made['id']}"
            while "Hel" not in await chunks.get():
                pass
            running = (await client.get(url)).json()
            assert running["status"] == "in_progress"
            assert (await client.delete(url)).status_code == 400
            assert len((await client.get(f"{url}/input_items")).json()["data"]) == 1
            if how == "cancel":
                canceled = (await client.post(f"{url}/cancel")).json()
                assert canceled["status"] == "cancelled"
            else:
                leave.set()
            await task
            assert (await client.post(f"{url}/cancel")).status_code == 400
            while gateway.runs.running:
                await asyncio.sleep(0)
            told = [event for text in _all(chunks) for event in events_of(text)]
            return (await client.get(url)).json(), told

    kept, told = run(work, hold=True)
    assert kept["status"] == ("cancelled" if how == "cancel" else "incomplete")
    [item] = kept["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "Hello")
    if how == "cancel":
        assert (told[-1]["type"], told[-1]["response"]) == ("response.incomplete", kept)


def test_nothing_is_told_after_a_cancel_but_the_end():
    async def work(gateway, client):
        reads = asyncio.Event()
        async with streaming(client._transport.app, reads=reads) as (chunks, _, task):
            made = await first_event(chunks)
            told = [""]
            while "Hel" not in told[-1]:
                told.append(await chunks.get())
            gateway.pool.backends[0].upstream.go.set()
            [run] = gateway.runs._runs.values()
            while len(run.output) < 2:
                await asyncio.sleep(0)
            for _ in range(9):  # until the reply has it
                await asyncio.sleep(0)
            canceled = (await client.post(f"{URL}/{made['id']}/cancel")).json()
            reads.set()
            await task
            return canceled, [event for text in (*told, *_all(chunks)) for event in events_of(text)]

    class Pausing(FakeUpstream):
        async def run(self, run_id, inputs):
            yield "output", {"chunk": "Hel"}
            await self.go.wait()
            yield "output", {"chunk": "lo"}
            await asyncio.Event().wait()

    async def main():
        async with serving(Pausing(hold=True, document=EVERY_INPUT)) as (gateway, client):
            return await work(gateway, client)

    canceled, told = asyncio.run(main())
    text = "".join(event["delta"] for event in told if event["type"] == "response.output_text.delta")
    assert canceled["output"][0]["content"][0]["text"] == text == "Hel"
    assert (told[-1]["type"], told[-1]["response"]) == ("response.incomplete", canceled)
    assert sum(event["type"] == "response.output_item.added" for event in told) == 1


@pytest.mark.parametrize("how", ["delete", "leave"])
def test_a_response_that_is_being_stored_is_no_longer_live(how):
    async def work(gateway, client):
        busy = threading.Event()
        async with streaming(client._transport.app) as (chunks, _, task):
            made = await first_event(chunks)
            url = f"{URL}/{made['id']}"
            gateway._store.do(busy.wait)
            gateway.pool.backends[0].upstream.go.set()
            while (await client.get(url)).json()["status"] != "completed":
                await asyncio.sleep(0)
            if how == "leave":
                task.cancel()
                busy.set()
                await asyncio.gather(task, return_exceptions=True)
            else:
                deleting = asyncio.create_task(client.delete(url))
                await asyncio.sleep(0)
                busy.set()
                assert (await deleting).status_code == 200
            return [(await client.delete(url)).status_code, (await client.get(url)).status_code]

    assert run(work, hold=True) == ([404, 404] if how == "delete" else [200, 404])


def _all(queue):
    while not queue.empty():
        yield queue.get_nowait()


def test_a_response_that_fails_says_so_and_is_kept(caplog):
    class Breaking(Recording):
        async def run(self, run_id, inputs):
            yield "output", {"chunk": "Half a sen"}
            yield "completed", {"status": "failed", "error": "E1203 EngineFailed: it broke"}

    async def main():
        async with serving(Breaking()) as (_, client):
            streamed = await events(client)
            return streamed, (await client.get(f"{URL}/{streamed[0]['response']['id']}")).json()

    streamed, kept = asyncio.run(main())
    last = streamed[-1]
    assert (last["type"], last["response"]) == ("response.failed", kept)
    assert (kept["status"], kept["error"]["code"]) == ("failed", "E1203")
    assert [(item["status"], item["content"][0]["text"]) for item in kept["output"]] == [("incomplete", "Half a sen")]


def test_a_fault_of_the_gateway_is_an_event_too(monkeypatch, caplog):
    prompts = ["a secret prompt"]
    monkeypatch.setattr(Reply, "usage", lambda reply: {}[prompts[0]])

    async def work(gateway, client):
        return await events(client)

    last = run(work)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["message"] == "the gateway failed: KeyError"
    assert "secret prompt" not in caplog.text


def test_what_cannot_be_stored_is_told_and_says_so(caplog):
    async def work(gateway, client):
        gateway._store.wait_for(gateway._store.database.execute, "PRAGMA max_page_count = 1")
        made = await ask(client, input="x" * 20_000)
        assert made["store"] is False
        assert made["status"] == "completed"
        assert (await client.get(f"{URL}/{made['id']}")).status_code == 404

    run(work)
    assert "is not stored" in caplog.text


def test_responses_are_bounded_as_predictions_are(tmp_path):
    async def work(gateway, client):
        made = [await ask(client) for _ in range(3)]
        return [(await client.get(f"{URL}/{each['id']}")).status_code for each in made]

    assert run(work, settings={"keep_runs": 2}) == [404, 200, 200]
    assert run(work, settings={"keep_bytes": 2500}) == [404, 404, 200]
    assert run(work, settings={"keep": 0}) == [404, 404, 404]


def test_responses_outlive_the_gateway(tmp_path):
    made = []

    async def first(gateway, client):
        made.append(await ask(client))

    async def second(gateway, client):
        assert (await client.get(f"{URL}/{made[0]['id']}")).json() == made[0]
        await ask(client, previous_response_id=made[0]["id"])

    for work in (first, second):
        run(work, settings={"store": tmp_path / "store.db"})


def test_a_small_request_refers_to_no_more_than_a_body_may_have():
    async def work(gateway, client):
        first = await ask(client, input=[{"id": "long", "role": "user", "content": "x" * 4000}])
        await ask(client, previous_response_id=first["id"])
        refused = [
            await ask(client, 413, input=[{"type": "item_reference", "id": "long"}] * 3),
            await ask(client, 413, previous_response_id=first["id"], input=[{"id": "long"}] * 2),
        ]
        assert [each["error"]["param"] for each in refused] == ["input[2]", "input[1]"]

    run(work, settings={"max_body": 10_000})


def test_what_a_response_repeats_of_its_request_is_not_referred_to():
    tools = [{**TOOLS[0], "description": "x" * 6000}]

    async def work(gateway, client):
        first = await ask(client, tools=tools)
        await ask(client, previous_response_id=first["id"], tools=tools, instructions="x" * 3000)

    run(work, settings={"max_body": 10_000})


def test_an_id_stands_for_the_item_that_had_it_last():
    asked = Recording()

    async def main():
        async with serving(asked, tokens=("a:first", "b:second")) as (_, client):
            for token, text in (("first", "old"), ("first", "new"), ("second", "another's")):
                client.headers["Authorization"] = f"Bearer {token}"
                made = await ask(client, input=[{"id": "m1", "role": "user", "content": text}])
                if text == "new":
                    mine = made["id"]
            client.headers["Authorization"] = "Bearer first"
            await ask(client, input=[{"id": "m1"}])
            await client.delete(f"{URL}/{mine}")
            await ask(client, input=[{"id": "m1"}])

    asyncio.run(main())
    read = [json.loads(inputs)["messages"][0]["content"] for inputs in asked.asked]
    assert read == ["old", "new", "another's", "new", "new"]


def test_a_busy_store_holds_no_thread_for_long(monkeypatch):
    async def work(gateway, client):
        made = await ask(client)
        busy = threading.Event()
        gateway._store.do(busy.wait)
        monkeypatch.setattr(response_store, "PATIENCE", 0.01)
        try:
            return await ask(client, 503, previous_response_id=made["id"])
        finally:
            busy.set()

    assert run(work)["detail"] == "the store cannot be read: it is busy"


def test_nothing_is_compacted():
    async def work(gateway, client):
        return await client.post(f"{URL}/compact", json={"input": "Hi"})

    assert run(work).status_code == 404


def test_nothing_is_held_when_all_is_answered():
    async def work(gateway, client):
        await ask(client)
        await events(client)
        await ask(client, 400, previous_response_id="resp_gone")
        return gateway._memory.held

    assert run(work) == 0
