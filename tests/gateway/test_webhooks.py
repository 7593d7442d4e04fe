"""Webhooks to a receiver on this machine, from a gateway in the test's own event loop."""

import asyncio
import gc
import json
import logging
import socket
import sqlite3
import ssl
from contextlib import asynccontextmanager

import pytest
from standardwebhooks import Webhook

from hermes.gateway import GatewaySettings, webhooks
from hermes.gateway.addresses import address_of
from hermes.gateway.app import Gateway
from hermes.gateway.destinations import Busy
from hermes.gateway.run import Hook, Run
from tests.support.asgi_gateway import FakeUpstream, serving
from tests.support.certificates import certificate_of

ASKED = {"version": "local/model", "input": {"prompt": "Hi"}}
TOKENS = {"tokens": ("anna:anna-secret-1", "bert:bert-secret-1")}
ANNA, BERT = ({"Authorization": f"Bearer {name}-secret-1"} for name in ("anna", "bert"))
HERE = {"webhooks": ("127.0.0.1",)}
HOOK = Hook("http://127.0.0.1:9/", ())


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(webhooks, "BETWEEN_SECONDS", 0)
    monkeypatch.setattr(webhooks, "SECOND_TRY_SECONDS", 0)


class Receiver:
    """Takes webhooks, with the next of these statuses; the last one goes on for ever."""

    def __init__(self, *statuses, headers=""):
        self.statuses, self.headers = list(statuses or [200]), headers
        self.got = []  # (path, headers, text)
        self.came = asyncio.Event()

    async def take(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.got.append((head[0].split(" ")[1], headers, body.decode()))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n{self.headers}\r\n".encode())
        await writer.drain()
        writer.close()
        self.came.set()

    async def until(self, count):
        async with asyncio.timeout(10):
            while len(self.got) < count:
                self.came.clear()
                await self.came.wait()

    @property
    def statuses_told(self):
        return [json.loads(text)["status"] for _, _, text in self.got]


@asynccontextmanager
async def receiving(*statuses, ssl=None, **options):
    receiver = Receiver(*statuses, **options)
    server = await asyncio.start_server(receiver.take, "127.0.0.1", 0, ssl=ssl)
    async with server:
        receiver.port = server.sockets[0].getsockname()[1]
        receiver.url = f"http://127.0.0.1:{receiver.port}/hook?x=1"
        yield receiver


async def post(client, url, headers=None, **fields):
    body = ASKED | {"webhook": url} | fields
    return await client.post("/v1/predictions", json=body, headers={"Prefer": "wait"} | (headers or {}))


async def delivered(gateway):
    """Wait until nothing is under way. Returns what the store has not delivered."""
    async with asyncio.timeout(10):
        while gateway._webhooks._tasks:
            await asyncio.wait(gateway._webhooks._tasks)
    return await gateway._store.undelivered()


def test_webhooks_are_disabled_unless_the_operator_lists_hosts():
    async def main():
        async with receiving() as receiver, serving() as (gateway, client):
            refused = await post(client, receiver.url)
            return refused, receiver.got, gateway.runs.running

    refused, got, running = asyncio.run(main())
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "webhook")
    assert "the operator has to start the gateway with --webhooks HOST" in refused.json()["detail"]
    assert (got, running) == ([], 0)


@pytest.mark.parametrize("allowed", ["127.0.0.1", "*"])
def test_no_list_lets_a_webhook_reach_an_upstream_or_the_gateway(allowed):
    """Cog's open POST /shutdown is there."""

    async def main():
        async with receiving() as cog:
            upstream = FakeUpstream(name=f"http://127.0.0.1:{cog.port}")
            async with serving(upstream, webhooks=(allowed, "127.0.0.1"), port=8123) as (_, client):
                urls = [f"http://127.0.0.1:{cog.port}/shutdown", "http://127.0.0.1:8123/v1/predictions"]
                return [await post(client, url, webhook_events_filter=["start"]) for url in urls], cog.got

    refused, got = asyncio.run(main())
    for response in refused:
        assert response.status_code == 422
        assert "leads to the gateway or to an upstream" in response.json()["detail"]
    assert got == []


def test_a_webhook_is_told_the_start_the_output_and_the_end_and_is_signed():
    async def main():
        upstream = FakeUpstream(hold=True)
        async with receiving() as receiver, serving(upstream, **HERE, **TOKENS) as (gateway, client):
            made = await client.post("/v1/predictions", json=ASKED | {"webhook": receiver.url}, headers=ANNA)
            await receiver.until(2)
            upstream.go.set()
            left = await delivered(gateway)
            prediction = (await client.get(made.json()["urls"]["get"], headers=ANNA)).json()
            secret = (await client.get("/v1/webhooks/default/secret", headers=ANNA)).json()["key"]
            return receiver, left, prediction, secret

    receiver, left, prediction, secret = asyncio.run(main())
    assert receiver.statuses_told[0] == "starting"
    assert receiver.statuses_told[1] == "processing"
    assert json.loads(receiver.got[-1][2]) == prediction
    assert prediction["status"] == "succeeded"
    assert left == []
    for path, headers, text in receiver.got:
        assert path == "/hook?x=1"
        assert headers["host"] == f"127.0.0.1:{receiver.port}"
        Webhook(secret).verify(text, headers)
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == len(receiver.got)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (["completed"], ["succeeded"]),
        (["start"], ["starting"]),
        (["start", "completed"], ["starting", "succeeded"]),
        (["output"], ["processing"]),
        (["logs"], []),
    ],
)
def test_only_what_is_asked_for_is_told(wanted, told):
    async def main():
        upstream = FakeUpstream("Hello", hold=True)
        async with receiving() as receiver, serving(upstream, **HERE) as (gateway, client):
            body = ASKED | {"webhook": receiver.url, "webhook_events_filter": wanted}
            assert (await client.post("/v1/predictions", json=body)).status_code == 201
            await receiver.until(len(told) - ("completed" in wanted))
            upstream.go.set()
            return await delivered(gateway), receiver.statuses_told

    assert asyncio.run(main()) == ([], told)


def test_webhook_completed_is_told_the_end_only():
    async def main():
        async with receiving() as receiver, serving(**HERE) as (gateway, client):
            body = ASKED | {"webhook_completed": receiver.url}
            assert (await client.post("/v1/predictions", json=body)).status_code == 201
            await delivered(gateway)
            return receiver.statuses_told

    assert asyncio.run(main()) == ["succeeded"]


def test_the_end_is_sent_again_with_one_id_until_it_is_taken():
    async def main():
        statuses, redirect = (500, 302, 200), "Location: http://127.0.0.1:9/\r\n"
        async with receiving(*statuses, headers=redirect) as receiver, serving(**HERE) as (gateway, client):
            await post(client, receiver.url, webhook_events_filter=["completed"])
            return await delivered(gateway), [headers["webhook-id"] for _, headers, _ in receiver.got]

    left, ids = asyncio.run(main())
    assert left == []
    assert len(ids) == 3
    assert len(set(ids)) == 1


def test_a_receiver_that_never_takes_it_is_given_up_with_a_line_in_the_log(caplog):
    async def main():
        async with receiving(500) as receiver, serving(**HERE) as (gateway, client):
            await post(client, receiver.url, webhook_events_filter=["completed"])
            return await delivered(gateway), len(receiver.got)

    assert asyncio.run(main()) == ([], webhooks.TRIES)
    assert [each.message.rpartition(": ")[2] for each in caplog.records if each.levelno >= logging.WARNING] == [
        "it answered 500"
    ]


def test_what_was_not_delivered_is_sent_after_a_start_with_the_same_signature(tmp_path, monkeypatch):
    monkeypatch.setattr(webhooks, "CLOSE_SECONDS", 0)
    monkeypatch.setattr(webhooks, "SECOND_TRY_SECONDS", 3600)
    settings = HERE | TOKENS | {"store": tmp_path / "runs.sqlite"}

    async def main():
        async with receiving(500, 200) as receiver:
            async with serving(**settings) as (_, client):
                made = await post(client, receiver.url, ANNA, webhook_events_filter=["completed"])
                secret = (await client.get("/v1/webhooks/default/secret", headers=ANNA)).json()["key"]
                await receiver.until(1)
            async with serving(**settings) as (gateway, _):
                await receiver.until(2)
                left = await delivered(gateway)
            async with serving(**settings) as (gateway, _):
                again = gateway._webhooks._tasks
            return receiver.got, made.json()["id"], secret, left, again

    got, made, secret, left, again = asyncio.run(main())
    assert [json.loads(text)["id"] for _, _, text in got] == [made, made]
    assert got[0][1]["webhook-id"] == got[1][1]["webhook-id"]
    for _, headers, text in got:
        Webhook(secret).verify(text, headers)
    assert (left, again) == ([], set())


def test_what_the_stop_of_a_gateway_ends_is_told_after_the_next_start_at_the_latest(tmp_path):
    settings = HERE | {"store": tmp_path / "runs.sqlite"}

    async def main():
        async with receiving() as receiver:
            async with serving(FakeUpstream(hold=True), **settings) as (_, client):
                body = ASKED | {"webhook": receiver.url, "webhook_events_filter": ["completed"]}
                await client.post("/v1/predictions", json=body)
            async with serving(**settings) as (gateway, _):
                left = await delivered(gateway)
            return receiver, left

    receiver, left = asyncio.run(main())
    assert set(receiver.statuses_told) == {"failed"}
    assert json.loads(receiver.got[-1][2])["error"].startswith("E1205")
    assert left == []


def test_a_secret_is_each_tokens_own_and_another_stores():
    async def main():
        async with serving() as (one, _), serving() as (other, _):
            return [each._webhooks.secret(name) for each in (one, other) for name in ("anna", "bert")] + [
                one._webhooks.secret("anna")
            ]

    *secrets, again = asyncio.run(main())
    assert len(set(secrets)) == 4
    assert again == secrets[0]


def test_a_name_that_leads_here_later_is_not_followed_and_logged_once(caplog):
    """DNS rebinding: the name was looked up when the webhook was made, and is looked up again for each connection."""
    lookups = []

    def dns(host):
        if host != "hook.example":
            return [address_of(host)]
        lookups.append(host)
        return [address_of("8.8.8.8" if len(lookups) == 1 else "127.0.0.1")]

    async def main():
        async with receiving() as receiver, serving(webhooks=("*",)) as (gateway, client):
            gateway._webhooks._destinations._look_up = dns
            response = await post(client, f"http://hook.example:{receiver.port}/")
            return response.status_code, await delivered(gateway), receiver.got

    assert asyncio.run(main()) == (201, [], [])
    [line] = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    assert "hook.example has no public address" in line
    assert "http://" not in line


def with_dns(gateway, answers):
    """Let the DNS of a gateway answer so, in turn: with an address, or not at all. The last answer goes on."""

    def dns(host):
        if host != "hook.example":
            return [address_of(host)]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [address_of(answer)]

    gateway._webhooks._destinations._look_up = dns


@pytest.mark.parametrize("wanted", [["completed"], ["start", "completed"], ["output", "completed"]])
def test_a_dns_that_fails_for_a_while_loses_no_last_event(wanted):
    async def main():
        async with receiving() as receiver, serving(webhooks=("hook.example",)) as (gateway, client):
            with_dns(gateway, ["127.0.0.1", None, None, "127.0.0.1"])
            await post(client, f"http://hook.example:{receiver.port}/", webhook_events_filter=wanted)
            return await delivered(gateway), receiver.statuses_told[-1]

    assert asyncio.run(main()) == ([], "succeeded")


def test_what_no_dns_was_there_for_is_sent_after_the_next_start(tmp_path):
    settings = {"webhooks": ("hook.example",), "store": tmp_path / "runs.sqlite"}

    async def main():
        async with receiving() as receiver:
            async with serving(**settings) as (gateway, client):
                with_dns(gateway, ["127.0.0.1", None])
                await post(client, f"http://hook.example:{receiver.port}/", webhook_events_filter=["completed"])
                left = len(await delivered(gateway))
                refused = await post(client, f"http://hook.example:{receiver.port}/")
            again = Gateway(GatewaySettings(tokens=(), **settings), [FakeUpstream()])
            app = again.app()
            with_dns(again, ["127.0.0.1"])
            async with again._lifespan(app):
                return left, refused, await delivered(again), receiver.statuses_told

    left, refused, then, told = asyncio.run(main())
    assert (left, then, told) == (1, [], ["succeeded"])
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "webhook")
    assert "hook.example has no address" in refused.json()["detail"]


def test_a_create_that_gets_no_lookup_is_told_to_come_again():
    async def main():
        async with serving(webhooks=("hook.example",)) as (gateway, client):

            async def busy(*_, **__):
                raise Busy("hook.example was not looked up")

            gateway._webhooks._destinations.find = busy
            return await post(client, "http://hook.example/")

    refused = asyncio.run(main())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert (refused.json()["error"]["code"], refused.json()["error"]["param"]) == ("lookups_busy", "webhook")


def test_a_store_that_cannot_be_written_is_logged_and_the_webhook_sent(caplog):
    def full(*_):
        raise sqlite3.OperationalError("disk is full")

    async def main():
        async with receiving() as receiver, serving(**HERE) as (gateway, client):
            gateway._store._mark_delivered = full
            await post(client, receiver.url, webhook_events_filter=["completed"])
            return len(await delivered(gateway)), receiver.statuses_told

    assert asyncio.run(main()) == (1, ["succeeded"])
    assert any("it may be sent again: disk is full" in line for line in caplog.messages)


def test_a_backlog_is_sent_with_a_few_tasks_for_each_token(monkeypatch):
    monkeypatch.setattr(webhooks, "AT_ONCE", 2)
    left = [(f"run{number}", owner, HOOK) for number in range(5) for owner in ("anna", "bert")]
    sent, together = [], []

    async def deliver(run_id, owner, hook, base):
        together.append(len(gateway._webhooks._tasks))
        await asyncio.sleep(0)
        sent.append((run_id, owner, hook))

    async def undelivered():
        return left

    async def main():
        gateway._webhooks._deliver, gateway._store.undelivered = deliver, undelivered
        await gateway._webhooks.resume()
        while gateway._webhooks._tasks:
            await asyncio.wait(gateway._webhooks._tasks)
        del gateway._store.undelivered
        await gateway.runs.close()

    gateway = Gateway(GatewaySettings(tokens=(), **HERE), [FakeUpstream()])
    gateway.app()
    asyncio.run(main())
    assert sorted(sent, key=str) == sorted(left, key=str)
    assert max(together) == 4


def test_a_connection_is_to_the_address_that_was_checked_with_the_name_as_its_host():
    async def main():
        async with receiving() as receiver, serving(webhooks=("hook.example",)) as (gateway, client):
            # the first one refuses the connection
            answers = ["127.0.0.7", "127.0.0.1"]
            gateway._webhooks._destinations._look_up = lambda host: (
                [address_of(each) for each in answers] * (host == "hook.example")
            )
            await post(client, f"http://hook.example:{receiver.port}/", webhook_events_filter=["completed"])
            await delivered(gateway)
            return receiver

    receiver = asyncio.run(main())
    assert [headers["host"] for _, headers, _ in receiver.got] == [f"hook.example:{receiver.port}"]


@pytest.mark.parametrize(("host", "count"), [("hook.example", 1), ("other.example", 0)])
def test_a_certificate_is_checked_for_the_name_though_the_connection_is_to_an_address(
    tmp_path, monkeypatch, host, count
):
    certificate = tmp_path / "certificate.pem"
    certificate.write_bytes(certificate_of("hook.example"))
    trusting = ssl.create_default_context(cafile=certificate)
    monkeypatch.setattr(webhooks, "tls", lambda: trusting)
    names = []

    async def main():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.sni_callback = lambda _socket, name, _context: names.append(name)
        async with receiving(ssl=context) as receiver, serving(webhooks=(host,)) as (gateway, client):
            gateway._webhooks._destinations._look_up = lambda name: [address_of("127.0.0.1")] * (name == host)
            await post(client, f"https://{host}:{receiver.port}/", webhook_events_filter=["completed"])
            await delivered(gateway)
            return len(receiver.got)

    assert asyncio.run(main()) == count
    assert set(names) == {host}


def test_no_proxy_is_asked(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    async def main():
        async with receiving() as receiver, serving(**HERE) as (gateway, client):
            await post(client, receiver.url, webhook_events_filter=["completed"])
            await delivered(gateway)
            return receiver.statuses_told

    assert asyncio.run(main()) == ["succeeded"]


def test_a_token_whose_receivers_take_nothing_makes_no_more(monkeypatch):
    monkeypatch.setattr(webhooks, "MAX_UNDELIVERED", 2)
    monkeypatch.setattr(webhooks, "SECOND_TRY_SECONDS", 3600)
    monkeypatch.setattr(webhooks, "CLOSE_SECONDS", 0)

    async def main():
        async with receiving(500) as receiver, serving(**HERE, **TOKENS) as (_, client):
            for _ in range(2):
                await post(client, receiver.url, ANNA, webhook_events_filter=["completed"])
            await receiver.until(2)
            return [await post(client, receiver.url, each) for each in (ANNA, BERT)]

    anna, bert = asyncio.run(main())
    assert (anna.status_code, anna.json()["error"]["code"], bert.status_code) == (429, "too_many_webhooks", 201)
    assert anna.headers["retry-after"] == "10"


def live_runs(ids):
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, Run) and each.id in ids]


def test_a_webhook_without_a_free_slot_is_not_told_what_comes_before_the_end(monkeypatch):
    """A prediction that waits for a slot is counted nowhere, and may be a megabyte."""
    monkeypatch.setattr(webhooks, "AT_ONCE", 1)
    upstream, answers = FakeUpstream(hold=True), asyncio.Event()

    async def main():
        async with receiving() as receiver, serving(upstream, **HERE) as (gateway, client):
            take = receiver.take

            async def slowly(reader, writer):
                begun.append(reader)
                await answers.wait()
                await take(reader, writer)

            begun = []
            async with await asyncio.start_server(slowly, "127.0.0.1", 0) as server:
                url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
                body = ASKED | {"webhook": url, "webhook_events_filter": ["start", "completed"]}
                made = [(await client.post("/v1/predictions", json=body)).json()["id"]]
                while not begun:
                    await asyncio.sleep(0.001)
                made += [(await client.post("/v1/predictions", json=body)).json()["id"] for _ in range(3)]
                upstream.go.set()
                async with asyncio.timeout(5):
                    while gateway.runs.running or len(live_runs(made)) > 1:
                        await asyncio.sleep(0.001)
                answers.set()
                await delivered(gateway)
            told = [(made.index(json.loads(text)["id"]), json.loads(text)["status"]) for _, _, text in receiver.got]
            return sorted(told)

    assert asyncio.run(main()) == [(0, "starting"), *((number, "succeeded") for number in range(4))]


def test_predictions_with_webhooks_are_counted_before_their_end(monkeypatch):
    monkeypatch.setattr(webhooks, "MAX_UNDELIVERED", 2)
    upstream = FakeUpstream(hold=True)

    async def main():
        async with receiving() as receiver, serving(upstream, **HERE) as (gateway, client):
            body = ASKED | {"webhook": receiver.url, "webhook_events_filter": ["start"]}
            statuses = [(await client.post("/v1/predictions", json=body)).status_code for _ in range(3)]
            upstream.go.set()
            await delivered(gateway)
            return statuses, (await client.post("/v1/predictions", json=body)).status_code

    assert asyncio.run(main()) == ([201, 201, 429], 201)


def test_a_bug_in_one_delivery_holds_up_no_other_and_is_logged_by_its_type(monkeypatch, caplog):
    monkeypatch.setattr(webhooks, "AT_ONCE", 2)
    sent, left = [], [(f"run{number}", "anna", HOOK) for number in range(9)]

    async def attempt(run_id, *_):
        if run_id in ("run0", "run1", "run2"):
            raise KeyError("what a prompt said")
        sent.append(run_id)

    async def undelivered():
        return left

    async def main():
        gateway._webhooks._try, gateway._store.undelivered = attempt, undelivered
        await gateway._webhooks.resume()
        await asyncio.gather(*gateway._webhooks._tasks)
        await gateway.runs.close()

    gateway = Gateway(GatewaySettings(tokens=(), **HERE), [FakeUpstream()])
    gateway.app()
    asyncio.run(main())
    assert sent == [f"run{number}" for number in range(3, 9)]
    assert [line for line in caplog.messages if "KeyError" in line] == [
        f"gateway: run run{number}: its webhook is sent at the next start: KeyError" for number in range(3)
    ]
    assert "what a prompt said" not in caplog.text


def test_a_bug_before_the_end_loses_no_last_event(caplog):
    async def main():
        async with receiving() as receiver, serving(**HERE) as (gateway, client):

            async def broken(*_):
                raise KeyError("what a prompt said")

            gateway._webhooks._tell = broken
            await post(client, receiver.url)
            return await delivered(gateway), receiver.statuses_told

    assert asyncio.run(main()) == ([], ["succeeded"])
    assert "KeyError" in caplog.text
    assert "what a prompt said" not in caplog.text


def test_what_is_being_sent_is_counted(monkeypatch):
    async def main():
        async with receiving() as receiver, serving(**HERE, **TOKENS) as (gateway, client):
            held = []

            async def post_and_look(*args, post=gateway._webhooks._post):
                held.append((gateway._memory.held, gateway._memory._of_owners["anna"]))
                return await post(*args)

            monkeypatch.setattr(gateway._webhooks, "_post", post_and_look)
            await post(client, receiver.url, ANNA, webhook_events_filter=["completed"])
            await delivered(gateway)
            return held, len(receiver.got[0][2]), gateway._memory.held

    [(held, of_anna)], sent, afterwards = asyncio.run(main())
    assert held == of_anna > sent
    assert afterwards == 0


def test_a_receiver_that_answers_without_end_is_not_read_to_the_end():
    async def endless(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                await writer.drain()
        except OSError:
            writer.close()

    async def main():
        async with await asyncio.start_server(endless, "127.0.0.1", 0) as server, serving(**HERE) as (gateway, client):
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            await post(client, url, webhook_events_filter=["completed"])
            return await delivered(gateway)

    assert asyncio.run(main()) == []
