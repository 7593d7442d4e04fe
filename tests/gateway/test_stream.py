"""Streams of OpenAI's dialect that break off, or in which nothing comes for long."""

import asyncio
import json

import pytest
from starlette.requests import ClientDisconnect

from hermes.gateway import reply as module
from hermes.gateway.bodies import Bodies
from hermes.gateway.caller import Caller
from hermes.gateway.memory import Memory
from hermes.gateway.openai_api import _Chat, _Completion, _stream
from hermes.gateway.openai_requests import ParsedRequest
from hermes.gateway.problems import Problem
from hermes.gateway.reply import Reply
from hermes.gateway.run import Run

BROKE = "E1203 EngineFailed: the connection to the server broke; the request can be sent again"


class Scripted:
    """Runs that go as a test says, from when they are begun."""

    def __init__(self, *steps):
        self.steps, self.tasks = steps, []

    def start(self, inputs, caller, also_held=0, follows=None):
        run = Run(inputs, caller=caller)
        self.tasks.append(asyncio.create_task(self._go(run)))
        return run

    def abandon(self, run):
        pass

    def release(self, run):
        pass

    def drop_inputs(self, run):
        pass

    async def _go(self, run):
        for step in self.steps:
            if isinstance(step, str):
                run.add(step)
            elif isinstance(step, dict):
                run.ended = run.created
                for name, value in step.items():
                    setattr(run, name, value)
            else:
                await step()
            run.notify()


FAILED = {"status": "failed", "error": BROKE}
DONE = {"status": "succeeded", "metrics": {"input_token_count": 3, "output_token_count": 2}}


def parsed(*each, per_prompt=1, **more):
    return ParsedRequest("m", True, True, b"{}", each or (b"{}",), per_prompt, **more)


def reply_of(*steps, **more):
    return Reply(Scripted(*steps), Bodies(100, Memory(100)), parsed(*more.pop("inputs", ()), **more), Caller())


def bodies_of(events):
    return [
        json.loads(event.partition("data: ")[2])
        for event in "".join(events).split("\n\n")[:-1]
        if "[DONE]" not in event
    ]


def test_an_error_in_mid_stream_is_an_event_and_the_end_is_said():
    async def main():
        reply = reply_of("Half a sen", FAILED)
        await reply.begun()
        return [text async for text in _stream(reply, _Chat("m"), usage=True)]

    *_, said, error, done = asyncio.run(main())
    assert json.loads(said.removeprefix("data: "))["choices"][0]["delta"] == {"content": "Half a sen"}
    assert json.loads(error.removeprefix("data: ")) == {
        "error": {"message": BROKE, "type": "server_error", "param": None, "code": "E1203"}
    }
    assert done == "data: [DONE]\n\n"


def test_an_error_before_the_first_piece_is_a_status_even_of_a_stream():
    async def main():
        await reply_of(FAILED).begun(10)

    with pytest.raises(Problem) as failed:
        asyncio.run(main())
    assert failed.value.status == 503


def test_a_client_that_left_is_no_failure():
    async def main():
        await reply_of({"status": "canceled", "cancel_asked": True}).begun()

    with pytest.raises(ClientDisconnect):
        asyncio.run(main())


def test_so_it_is_after_the_first_piece(caplog):
    async def main():
        reply = reply_of("Hi", {"status": "canceled", "cancel_asked": True})
        reply.give_up()
        with pytest.raises(ClientDisconnect):
            await reply.whole()
        left = reply_of("Hi", {"status": "canceled", "cancel_asked": True})
        left.give_up()
        return [text async for text in _stream(left, _Chat("m"), usage=True)]

    assert len(asyncio.run(main())) <= 2
    assert caplog.text == ""


def test_a_prediction_that_the_server_canceled_is_one_to_send_again():
    async def main():
        await reply_of({"status": "canceled"}).begun()

    with pytest.raises(Problem, match="send the request again") as canceled:
        asyncio.run(main())
    assert canceled.value.status == 503


def test_a_fault_of_the_gateway_in_a_stream_is_an_event_too(monkeypatch, caplog):
    prompts = ["a secret prompt"]
    monkeypatch.setattr(Reply, "usage", lambda reply: {}[prompts[0]])

    async def main():
        return [text async for text in _stream(reply_of("Hi", DONE), _Chat("m"), usage=True)]

    text = "".join(asyncio.run(main()))
    assert "the gateway failed: KeyError" in text
    assert text.rstrip().endswith("[DONE]")
    assert "in <lambda>" in caplog.text
    assert "secret" not in caplog.text


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(module, "PING_SECONDS", 0.01)


async def while_silent(write):
    """The events of a stream whose first piece, and whose end, come only after a sign of life, and the reply."""
    signs = asyncio.Queue()
    reply = reply_of(signs.get, "Hi", signs.get, DONE)
    await reply.begun(0.001)
    events = []
    async for text in write(reply):
        events.append(text)
        if any(map(is_sign, bodies_of([text]))):
            signs.put_nowait(None)
    return events


def is_sign(body):
    choice = (body["choices"] or [{"finish_reason": "usage"}])[0]
    return not choice["finish_reason"] and (choice.get("delta") == {} or choice.get("text") == "")


def test_a_stream_begins_before_its_first_piece_and_shows_signs_of_life(impatient):
    events = asyncio.run(while_silent(lambda reply: _stream(reply, _Chat("m"), usage=True)))
    first, *rest = bodies_of(events)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert sum(map(is_sign, rest)) >= 2
    rest = [body for body in rest if not is_sign(body)]
    assert [each["choices"][0]["delta"] for each in rest[:-1]] == [{"content": "Hi"}, {}]
    assert rest[-1]["usage"]["total_tokens"] == 5


def test_signs_of_life_are_of_a_response_that_has_not_ended(impatient):
    async def main():
        reply = reply_of("Hi", DONE, inputs=(b'{"a":1}', b'{"a":2}'))  # the second begins again, below
        release, events = asyncio.Event(), []
        await reply.begun()
        reply._runs.steps = (release.wait, "Ho", DONE)
        reply.runs[1] = reply._runs.start(b"2", Caller())
        async for text in _stream(reply, _Chat("m"), usage=False):
            events += bodies_of([text])
            if events and is_sign(events[-1]):
                release.set()
        return events

    events = asyncio.run(main())
    assert {event["choices"][0]["index"] for event in events if is_sign(event)} == {1}


def test_so_do_completions(impatient):
    text = asyncio.run(while_silent(lambda reply: _stream(reply, _Completion("m"), usage=False)))
    assert "".join(body["choices"][0]["text"] for body in bodies_of(text)) == "Hi"


def tools_of(*names, choice="auto"):
    tools = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in names]
    return {"inputs": [json.dumps({"tools": tools, "tool_choice": choice}).encode()], "may_call": True}


CALL = ['<tool_call>\n{"arguments": {"ci', 'ty": "Oslo"}, "na', 'me": "clock"}\n</tool_call>']
CUT = {**DONE, "metrics": {**DONE["metrics"], "finish_reason": "length"}}


def streamed(*steps, **more):
    """The deltas of a stream, without their ids, and why it ended."""

    async def main():
        return [text async for text in _stream(reply_of(*steps, **more), _Chat("m"), usage=False)]

    choices = [body["choices"][0] for body in bodies_of(asyncio.run(main()))]
    first, *deltas = [choice["delta"] for choice in choices]
    assert first == {"role": "assistant", "content": ""}
    for call in (call for delta in deltas for call in delta.get("tool_calls", [])):
        assert bool(call.pop("id", "")) == ("type" in call)
    return [delta for delta in deltas if delta], choices[-1]["finish_reason"]


def begun(index):
    return {"index": index, "type": "function", "function": {"name": "clock", "arguments": ""}}


def went_on(index, arguments):
    return {"index": index, "function": {"arguments": arguments}}


def test_a_call_begins_with_its_name_and_its_arguments_follow():
    async def turn():
        await asyncio.sleep(0)

    steps = [step for piece in CALL for step in (piece, turn, turn)]
    deltas, reason = streamed("Now: ", turn, turn, *steps, DONE, **tools_of("clock"))
    assert reason == "tool_calls"
    assert deltas.pop(0) == {"content": "Now: "}
    calls = [call for delta in deltas for call in delta["tool_calls"]]
    assert calls.pop(0) == begun(0)
    assert len(calls) > 1
    assert all(call == went_on(0, call["function"]["arguments"]) for call in calls)
    assert "".join(call["function"]["arguments"] for call in calls) == '{"city": "Oslo"}'


def test_a_second_call_has_the_next_index():
    deltas, _ = streamed("".join(CALL) + "\n" + "".join(CALL), DONE, **tools_of("clock", "other"))
    calls = [call for delta in deltas for call in delta["tool_calls"]]
    whole = '{"city": "Oslo"}'
    assert calls == [begun(0), went_on(0, whole), begun(1), went_on(1, whole)]


@pytest.mark.parametrize(
    ("steps", "more", "reason"),
    [
        ([*CALL, DONE], {}, "tool_calls"),
        ([*CALL, DONE], {"named": True}, "stop"),
        ([*CALL, CUT], {"named": True}, "length"),
        ([*CALL[:2], CUT], {}, "length"),
        (["Hi", DONE], {}, "stop"),
    ],
)
def test_why_an_answer_with_tools_ended(steps, more, reason):
    assert streamed(*steps, **tools_of("clock"), **more)[1] == reason


def test_a_call_that_was_cut_is_given_as_far_as_it_came_streamed_and_not():
    async def main():
        return await reply_of(*CALL[:1], CUT, **tools_of("clock", "other", choice="clock")).whole()

    [(text, [call])] = asyncio.run(main())
    assert (text, call.name, call.text) == ("", "clock", '{"ci')
    deltas, _ = streamed(*CALL[:1], CUT, **tools_of("clock", "other", choice="clock"))
    assert [call for delta in deltas for call in delta["tool_calls"]] == [begun(0), went_on(0, '{"ci')]


def test_while_a_call_of_several_tools_is_held_back_there_are_signs_of_life(impatient):
    async def main():
        signs = asyncio.Queue()
        reply = reply_of(CALL[0], signs.get, *CALL[1:], DONE, **tools_of("clock", "other"))
        bodies = []
        async for text in _stream(reply, _Chat("m"), usage=False):
            bodies += bodies_of([text])
            if bodies and is_sign(bodies[-1]):
                signs.put_nowait(None)
        return bodies

    bodies = asyncio.run(main())
    called = next(n for n, body in enumerate(bodies) if body["choices"][0]["delta"].get("tool_calls"))
    assert sum(map(is_sign, bodies[1:called])) >= 1


def test_the_tokens_of_each_prompt_are_counted_once():
    async def main(inputs, per_prompt):
        reply = reply_of("Hi", DONE, inputs=inputs, per_prompt=per_prompt)
        await reply.whole()
        return reply.usage()

    two = (b'{"a":1}', b'{"a":2}')
    assert asyncio.run(main(two, 1)) == {"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10}
    assert asyncio.run(main(two, 2)) == {
        "prompt_tokens": 6,
        "completion_tokens": 8,
        "total_tokens": 14,
    }
