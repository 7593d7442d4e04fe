"""Replies of many predictions: some at a time, in their order, and none is left behind."""

import asyncio
import json
from contextlib import suppress

import pytest
from starlette.requests import ClientDisconnect

from hermes.devserver import PROJECT, PredictorSource
from hermes.gateway.bodies import Bodies
from hermes.gateway.caller import Caller
from hermes.gateway.memory import Memory
from hermes.gateway.openai_requests import ParsedRequest
from hermes.gateway.pool import QueueFull
from hermes.gateway.problems import PARAMS, Problem
from hermes.gateway.reply import AT_ONCE, Reply
from hermes.gateway.run import Run
from tests.support.asgi_gateway import FakeUpstream, serving

DOCUMENT = PredictorSource(PROJECT / "predict.py").openapi()


class Counting:
    """Runs that say their inputs, each when the test lets it; `room`: as many may be begun that follow nobody."""

    def __init__(self, room=AT_ONCE, failing=None):
        self.room, self.failing = room, failing
        self.running = self.most = 0
        self.abandoned = []

    def start(self, inputs, caller, also_held=0, follows=None):
        if self.running >= self.room and not follows:
            raise QueueFull("the queue is full", retry_after=1)
        run = Run(inputs, caller=caller)
        self.running += 1
        self.most = max(self.most, self.running)
        run.task = asyncio.create_task(self._go(run))
        return run

    def abandon(self, run):
        self.abandoned.append(run)

    def release(self, run):
        run.holds_place = False

    def drop_inputs(self, run):
        run.inputs = b""

    async def _go(self, run):
        number = json.loads(run.inputs)["number"]
        await asyncio.sleep(0)  # the others begin
        self.running -= 1
        run.add(f"{number}")
        run.ended, run.status = run.created, "succeeded"
        run.metrics = {"input_token_count": 2, "output_token_count": 1}
        if number == self.failing:
            run.output.clear()
            run.status, run.error, run.refused = "failed", "E1005 BadMessages: prompt_token_ids[3] is bad", True
        run.notify()


def reply_of(runs, predictions, per_prompt=1):
    each = tuple(b'{"number":%d}' % number for number in range(predictions // per_prompt))
    parsed = ParsedRequest("m", False, False, b"{}", each, per_prompt, params=PARAMS | {"E1005": "prompt"})
    return Reply(runs, Bodies(100, Memory(100)), parsed, Caller())


@pytest.mark.parametrize("room", [1, 3, AT_ONCE, 100])
def test_many_predictions_are_begun_some_at_a_time_and_answered_in_their_order(room):
    runs = Counting(room)

    async def main():
        reply = reply_of(runs, 100)
        await reply.begun()
        return await reply.whole(), reply.usage(), {run.inputs for run in reply.runs}

    texts, usage, left = asyncio.run(main())
    assert [text for text, _ in texts] == [str(number) for number in range(100)]
    assert runs.most == min(room, AT_ONCE)
    assert usage == {"prompt_tokens": 200, "completion_tokens": 100, "total_tokens": 300}
    assert left == {b""}, "what has ended needs its inputs no more"


def test_where_there_is_room_for_none_the_request_is_refused():
    async def main():
        reply_of(Counting(0), 20)

    with pytest.raises(QueueFull):
        asyncio.run(main())


@pytest.mark.parametrize(("failing", "place"), [(0, "prompt[0]"), (40, "prompt[40]")])
def test_one_refusal_refuses_the_request(failing, place):
    async def main():
        reply = reply_of(Counting(failing=failing), 60)
        await reply.begun()
        await reply.whole()

    with pytest.raises(Problem) as refused:
        asyncio.run(main())
    assert (refused.value.status, refused.value.param) == (400, f"{place}[3]")
    assert refused.value.message == f"E1005 BadMessages: {place}[3] is bad"


def test_what_nobody_reads_begins_no_more():
    async def main():
        runs = Counting()
        reply = reply_of(runs, 60)
        with suppress(ClientDisconnect):
            async for _, part in reply.parts():
                if part is None:
                    reply.give_up()
        return len(reply.runs), set(runs.abandoned) == set(reply.runs)

    assert asyncio.run(main()) == (AT_ONCE + 1, True)


class Echo(FakeUpstream):
    """Says the prompt, in two slots."""

    def __init__(self):
        super().__init__(document=DOCUMENT)
        self.slots = 2

    async def run(self, run_id, inputs):
        said = json.loads(inputs)
        yield "output", {"chunk": f"<{said['prompt']}"}
        yield "output", {"chunk": f"{said['seed']}>"}
        yield "completed", self.end


@pytest.mark.parametrize("stream", [False, True])
def test_a_gateway_with_two_slots_a_short_queue_and_a_limit_answers_128(stream):
    prompts = [f"p{number}" for number in range(64)]
    body = {"prompt": prompts, "n": 2, "seed": 5, "stream": stream}

    async def main():
        async with serving(Echo(), max_waiting=4, max_per_token=3) as (gateway, client):
            response = await client.post("/v1/completions", json=body, timeout=60)
            await asyncio.sleep(0)
            return response, gateway._memory.held, gateway.runs.running

    response, held, running = asyncio.run(main())
    assert response.status_code == 200
    lines = response.text.split("\n\n")[:-2] if stream else ["data: " + response.text]
    texts = [""] * 128
    for line in lines:
        for choice in json.loads(line.removeprefix("data: "))["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == [f"<{prompt}{seed}>" for prompt in prompts for seed in (5, 6)]
    assert (held, running) == (0, 0)


class Crowded(FakeUpstream):
    """Counts how many predictions run at once."""

    def __init__(self):
        super().__init__(document=DOCUMENT)
        self.running = self.most = 0

    async def run(self, run_id, inputs):
        self.running += 1
        self.most = max(self.most, self.running)
        yield "output", {"chunk": "x"}
        await asyncio.sleep(0)
        self.running -= 1
        yield "completed", self.end


def test_many_requests_with_many_responses_never_pass_the_limit_of_their_token():
    upstream = Crowded()

    async def main():
        async with serving(upstream, max_per_token=4) as (gateway, client):

            async def ask():
                while (await client.post("/v1/completions", json={"prompt": "a", "n": 16})).status_code == 429:
                    pass

            await asyncio.gather(*(ask() for _ in range(12)))
            return gateway._memory.held, gateway.runs.running

    assert asyncio.run(main()) == (0, 0)
    assert upstream.most == 4


def test_a_request_with_many_responses_does_not_fill_the_queue_beyond_its_limit():
    upstream = FakeUpstream(hold=True, document=DOCUMENT)
    upstream.slots = 2

    async def main():
        async with serving(upstream, max_waiting=3) as (gateway, client):
            asking = asyncio.create_task(client.post("/v1/completions", json={"prompt": "a", "n": 16}))
            while not gateway.pool.waiting:
                await asyncio.sleep(0)
            waiting = gateway.pool.waiting, gateway.runs.running
            upstream.go.set()
            return waiting, (await asking).status_code, gateway.runs.running

    assert asyncio.run(main()) == ((3, 5), 200, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_one_of_whose_responses_fails_counts_for_nothing_afterwards(stream):
    class Failing(Crowded):
        async def run(self, run_id, inputs):
            if b"bad" in inputs:
                yield "completed", {"status": "failed", "error": "E1005 BadMessages: bad"}
                return
            async for event in super().run(run_id, inputs):
                yield event

    body = {"prompt": [*["a"] * 20, "bad", *["a"] * 20], "stream": stream}

    async def main():
        async with serving(Failing(), max_per_token=2) as (gateway, client):
            answers = [await client.post("/v1/completions", json=body) for _ in range(3)]
            while gateway.runs.running or gateway._memory.held:
                await asyncio.sleep(0)
            return [(answer.status_code, answer.text.count("E1005")) for answer in answers]

    answers = asyncio.run(asyncio.wait_for(main(), 30))
    assert {status for status, _ in answers} == {200 if stream else 400}
    assert all(count for _, count in answers)
