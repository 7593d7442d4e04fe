"""What is known of the model's context."""

import asyncio

from hermes.devserver import PROJECT, PredictorSource
from tests.support.asgi_gateway import FakeUpstream, serving

DOCUMENT = PredictorSource(PROJECT / "predict.py").openapi()


class Asked(FakeUpstream):
    """An upstream that keeps the inputs of its predictions."""

    def __init__(self, **more):
        super().__init__(**{"document": DOCUMENT, "metrics": {"context_tokens": 4096}, **more})
        self.inputs = []

    def run(self, run_id, inputs):
        self.inputs.append(inputs)
        return super().run(run_id, inputs)


def lengths(upstream, *, before=(), times=2):
    """What GET /v1/models says, each time."""

    async def main():
        async with serving(upstream) as (_, client):
            for body in before:
                await client.post("/v1/predictions", json=body, headers={"Prefer": "wait"})
            bodies = [(await client.get("/v1/models")).json() for _ in range(times)]
        return [{entry["max_model_len"] for entry in body["data"]} for body in bodies]

    return asyncio.run(main())


def test_a_model_is_asked_once_for_its_context():
    upstream = Asked()
    assert lengths(upstream) == [{4096}, {4096}]
    assert upstream.inputs == [b'{"prompt":"Hi","max_tokens":0}']


def test_any_prediction_says_it():
    upstream = Asked()
    assert lengths(upstream, before=[{"version": "local/model", "input": {"prompt": "Ho"}}]) == [{4096}, {4096}]
    assert upstream.inputs == [b'{"prompt":"Ho"}']


def test_what_costs_money_is_not_asked():
    upstream = Asked(name="replicate:owner/name")
    assert lengths(upstream) == [{None}, {None}]
    assert upstream.inputs == []


def test_a_model_without_a_slot_is_asked_when_it_has_one():
    upstream = Asked()
    upstream.slots = 0
    assert lengths(upstream) == [{None}, {None}]
    assert upstream.inputs == []


def test_another_model_is_not_asked():
    assert lengths(FakeUpstream()) == [{None}, {None}]


def test_who_does_not_answer_in_time_is_asked_no_more(monkeypatch):
    monkeypatch.setattr("hermes.gateway.context.PATIENCE", 0.01)
    upstream = Asked(hold=True)
    assert lengths(upstream) == [{None}, {None}]
    assert len(upstream.inputs) == 1
