import asyncio
import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fakes import FakeEngine, byte_tokenizer, request

from hermes.conversation import ChatML, Message, Request, Sampling
from hermes.engine import Chunk
from hermes.errors import EngineFailed, InvalidConfiguration, PromptTooLong
from hermes.serving import ChatService
from hermes.serving.metrics import Meter
from hermes.serving.service import check_default_template

CHATML = ChatML(byte_tokenizer())
REQUEST = Request("Hi", "", None, Sampling(seed=7, max_tokens=50))


def service(engine, template=None):
    return ChatService(engine, CHATML, template)


def reply(service, request=REQUEST):
    """The pieces of a reply, and the error that ended it, if one did."""

    async def collect():
        pieces = []
        try:
            async for piece in service.reply(request):
                pieces.append(piece)
        except Exception as error:
            return pieces, error
        return pieces, None

    return asyncio.run(collect())


def test_the_engine_gets_token_ids_and_what_fits_and_its_text_comes_back():
    engine = FakeEngine(context_tokens=40)
    assert reply(service(engine)) == (["Hello", " there."], None)
    ids = CHATML.encode_raw("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert engine.seen == [(ids, replace(REQUEST.sampling, max_tokens=40 - len(ids)), None)]


def test_a_step_that_decides_no_text_gives_no_empty_piece():
    engine = FakeEngine([Chunk("", 1), Chunk("😀", 2), Chunk("", 1, "stop")])
    assert reply(service(engine)) == (["😀"], None)


def test_a_prompt_that_is_too_long_never_reaches_the_engine():
    engine = FakeEngine(context_tokens=10)
    pieces, error = reply(service(engine))
    assert (pieces, type(error), engine.seen) == ([], PromptTooLong, [])


def test_the_text_before_a_failure_stands():
    pieces, error = reply(service(FakeEngine([Chunk("half", 1)], error=EngineFailed("the engine has died"))))
    assert pieces == ["half"]
    assert str(error) == "E1203 EngineFailed: the engine has died; the request can be sent again"


def test_leaving_early_ends_the_engines_request():
    engine = FakeEngine([Chunk("a", 1)] * 100)

    async def leave():
        pieces = service(engine).reply(REQUEST)
        await anext(pieces)
        assert engine.unfinished == 1
        await pieces.aclose()

    asyncio.run(leave())
    assert engine.unfinished == 0


def test_the_servers_template_is_for_requests_that_bring_none():
    engine = FakeEngine()
    reply(service(engine, "A {prompt}"))
    reply(service(engine, "A {prompt}"), replace(REQUEST, prompt_template="B {prompt}"))
    conversation = replace(REQUEST, messages=(Message("user", "Hello"), Message("assistant", "Hi.")))
    reply(service(engine, "A {prompt}"), conversation)
    assert [ids for ids, _, _ in engine.seen] == [
        CHATML.encode_raw("A Hi"),
        CHATML.encode_raw("B Hi"),
        CHATML.encode(conversation.conversation()),
    ]


@pytest.mark.parametrize("template", ["no place", "{% for message in messages %}{prompt}"])
def test_a_server_template_that_no_request_could_use_is_refused_at_start(template):
    with pytest.raises(InvalidConfiguration, match=r"E1202 InvalidConfiguration: prompt_template: E100[34]"):
        check_default_template(template)


@pytest.mark.parametrize("template", [None, "", "A {prompt}"])
def test_a_usable_server_template_passes(template):
    check_default_template(template)


def test_the_log_has_the_counts_and_never_the_prompt(caplog):
    caplog.set_level(logging.INFO, "hermes")
    reply(service(FakeEngine()), replace(REQUEST, prompt="my secret"))
    assert "secret" not in caplog.text
    assert "tokens in, 3 out, stop" in caplog.text


def test_the_engine_gets_the_constraint_and_the_metrics_get_the_calls(monkeypatch):
    recorded = {}
    monkeypatch.setattr(
        "hermes.serving.metrics.current_scope", lambda: SimpleNamespace(record_metric=recorded.__setitem__)
    )
    call = '<tool_call>\n{"arguments": {"x": 1}, "name": "f"}\n</tool_call>'
    engine = FakeEngine([Chunk(call[:20], 9), Chunk(call[20:], 9, "stop")], context_tokens=2000)
    asked = request(tools=[{"name": "f"}])
    assert reply(service(engine), asked) == ([call[:20], call[20:]], None)
    assert engine.seen[0][2] == asked.constraint is not None
    assert (recorded["finish_reason"], recorded["tool_call_errors"]) == ("tool_calls", [])
    assert recorded["tool_calls"] == [{"name": "f", "arguments": {"x": 1}}]


def test_a_conversation_that_is_too_long_loses_turns_when_asked_to():
    turns = (Message("user", "old " * 20), Message("assistant", "answer"))
    engine = FakeEngine(context_tokens=80)
    assert isinstance(reply(service(engine), replace(REQUEST, messages=turns))[1], PromptTooLong)
    assert reply(service(engine), replace(REQUEST, messages=turns, truncate=True))[1] is None
    assert engine.seen[0][0] == CHATML.encode([Message("user", "Hi")])


def test_metrics_are_what_is_known_so_far():
    meter = Meter(REQUEST)
    assert dict(meter.metrics()) == {"seed": 7}
    meter.input_token_count = 5
    assert dict(meter.metrics()) == {"seed": 7, "input_token_count": 5, "output_token_count": 0}
    meter.add(Chunk("a", 1))
    assert {"time_to_first_token", "tokens_per_second"} <= dict(meter.metrics()).keys()
    first = meter.time_to_first_token
    meter.add(Chunk("b", 2, "length"))
    assert (meter.time_to_first_token, meter.output_token_count) == (first, 3)
    assert dict(meter.metrics())["finish_reason"] == "length"
