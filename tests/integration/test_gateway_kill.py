"""kill -9 of the gateway in mid-load, again and again: what it told its clients is still true after each start."""

import random
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

import httpx
import pytest

from hermes.client.cog import EventReader
from hermes.devserver.server import free_port
from tests.support.asking import until
from tests.support.fake_cog import FakeCog, pieces_of
from tests.support.gateways import MODEL, gateway_before
from tests.support.scripted import Handler, serving

CLIENTS = 12
ENDED = ("succeeded", "failed", "canceled")
OPENAI = "asked in the dialect of OpenAI"
SEED = 26


@dataclass
class Made:
    """A prediction whose id a client was told."""

    id: str
    kind: str
    output: str  # that it has if it succeeds
    hooked: bool = False  # a webhook is to get its end
    told: str | None = None  # the status that it ended with, if somebody was told


class Load:
    """Clients that send what clients send until the gateway breaks off."""

    def __init__(self):
        self.made: list[Made] = []
        self.completed: dict[str, str] = {}  # by id: the status in the webhook
        self.wrong: list[str] = []
        self.openai = Counter()
        self._draw = random.Random(SEED)
        self._numbers = iter(range(10**9))

    def on_webhook(self, prediction):
        if prediction["status"] in ENDED:
            self.completed[prediction["id"]] = prediction["status"]

    def until_killed(self, gateway, hook, seconds):
        clients = [threading.Thread(target=self._client, args=(gateway.url, hook)) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        threading.Event().wait(seconds)
        before = len(self.made)  # a slow machine has told nothing by then
        until(lambda: any(made.told for made in self.made) and len(self.made) > before, 30, "the load is at work")
        gateway.process.kill()
        for client in clients:
            client.join(timeout=60)
            assert not client.is_alive(), "a client still waits for a gateway that is gone"

    def _client(self, url, hook):
        kinds = [
            self._polled,
            self._waited,
            self._streamed,
            self._hooked,
            self._cancelled,
            self._chat,
            self._chat_stream,
        ]
        with suppress(httpx.TransportError), httpx.Client(base_url=url, timeout=30) as client:
            while True:
                number = next(self._numbers)
                kinds[number % len(kinds)](client, f"number-{number}", hook)

    def _create(self, client, kind, prompt, headers=None, **more):
        inputs = {"prompt": prompt}
        response = client.post("/v1/predictions", json={"version": MODEL, "input": inputs, **more}, headers=headers)
        if response.status_code != 201:
            self.wrong.append(f"{kind} got {response.status_code} {response.text[:300]}")
            return None, None
        prediction = response.json()
        made = Made(prediction["id"], kind, "".join(pieces_of(inputs)), hooked="webhook" in more)
        self.made.append(made)
        self._see(made, prediction)
        return made, prediction

    def _see(self, made, prediction):
        if prediction["status"] in ENDED:
            made.told = prediction["status"]
            if made.told == "succeeded" and "".join(prediction["output"]) != made.output:
                self.wrong.append(f"{made} has the output {prediction['output']}")

    def _polled(self, client, prompt, _):
        made, _ = self._create(client, "polled", prompt)
        while made and not made.told:
            self._see(made, client.get(f"/v1/predictions/{made.id}").json())
            threading.Event().wait(0.05)

    def _waited(self, client, prompt, _):
        self._create(client, "waited", prompt, {"Prefer": "wait"})

    def _streamed(self, client, prompt, _):
        made, prediction = self._create(client, "streamed", prompt)
        if made:
            reader, text = EventReader(), ""
            with client.stream("GET", httpx.URL(prediction["urls"]["stream"]).path) as response:
                for piece in response.iter_text():
                    for name, data in reader.feed(piece):
                        text += data if name == "output" else ""
                        if name == "done":
                            made.told = "succeeded"
            if made.told and text != made.output:
                self.wrong.append(f"{made} streamed {text!r}")

    def _hooked(self, client, prompt, hook):
        self._create(client, "hooked", prompt, webhook=hook)

    def _cancelled(self, client, prompt, _):
        made, _ = self._create(client, "cancelled", prompt)
        if made:
            self._see(made, client.post(f"/v1/predictions/{made.id}/cancel").json())

    def _chat(self, client, prompt, _):
        prompt = f"{OPENAI} {prompt}"
        body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}]}
        answer = client.post("/v1/chat/completions", json=body).json()
        self._said("chat", prompt, answer["choices"][0]["message"]["content"] if "choices" in answer else str(answer))

    def _chat_stream(self, client, prompt, _):
        prompt = f"{OPENAI} {prompt}"
        body = {"model": MODEL, "prompt": prompt, "stream": True}
        reader, text = EventReader(), ""
        with client.stream("POST", "/v1/completions", json=body) as response:
            for piece in response.iter_text():
                for _, data in reader.feed(piece):
                    if data == "[DONE]":
                        self._said("completion stream", prompt, text)
                    else:
                        text += httpx.Response(200, text=data).json()["choices"][0]["text"]

    def _said(self, kind, prompt, text):
        self.openai[kind] += 1
        if text != "".join(pieces_of({"prompt": prompt})):
            self.wrong.append(f"{kind} of {prompt} said {text!r}")


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.long)])
def test_what_the_gateway_told_is_true_after_kill_9(kills, tmp_path):
    load, port, draw = Load(), free_port(), random.Random(SEED)
    options = ["--store", str(tmp_path / "predictions.sqlite"), "--webhooks", "127.0.0.1"]

    class Hook(Handler):
        def do_POST(self):  # noqa: N802
            load.on_webhook(self.body())
            self.answer({})

    with FakeCog(delay=0.02) as fake, serving(Hook) as hook:
        ends, checked = Counter(), 0
        for kill in range(kills + 1):
            with gateway_before(fake.url, options=options, port=port) as gateway:
                check(gateway, load, load.made[checked:], ends)
                checked = len(load.made)
                if kill < kills:
                    load.until_killed(gateway, hook, draw.uniform(0.2, 1.0))
                    continue
                check(gateway, load, load.made, Counter())  # after all starts
                assert listed(gateway) >= {made.id for made in load.made}
    print(f"{len(load.made)} predictions and {kills} kills: {dict(ends)}; {dict(load.openai)} answered")
    assert load.wrong == []
    assert {how for _, how in ends} >= {"told", "interrupted"}, "the kills came in mid-load"


def check(gateway, load, several, ends):
    """Each is found: as it was told, or with an end."""
    with httpx.Client(base_url=gateway.url, timeout=30) as client:
        for made in several:
            told = made.told or load.completed.get(made.id)
            response = client.get(f"/v1/predictions/{made.id}")
            assert response.status_code == 200, f"{made} is lost: {response.text}"
            prediction = response.json()
            if told:
                how = "told"
                assert prediction["status"] == told, f"{made} became {prediction}"
            else:
                how = "interrupted" if prediction["status"] == "failed" else "ended untold"
                assert prediction["status"] in ENDED, f"{made} has no end: {prediction}"
            if prediction["status"] == "succeeded":
                assert "".join(prediction["output"]) == made.output
            elif prediction["status"] == "failed":
                assert prediction["error"].startswith("E1206"), prediction
                assert prediction["completed_at"]
            ends[made.kind, how] += 1
    hooked = {made.id for made in several if made.hooked}
    until(lambda: hooked <= set(load.completed), 30, "the webhooks of all ends have arrived")


def listed(gateway):
    """The ids in the list of predictions."""
    ids, url = set(), f"{gateway.url}/v1/predictions"
    while url:
        response = httpx.get(url, timeout=30)
        assert OPENAI not in response.text, "what is asked in OpenAI's dialect is in nobody's list"
        ids |= {prediction["id"] for prediction in response.json()["results"]}
        url = response.json()["next"]
    return ids
