import asyncio
import json
import logging

import pytest

from hermes.chat.chatml import ChatML
from hermes.chat.messages import Message
from hermes.chat.sampling import Sampling
from hermes.engine import Chunk
from hermes.errors import BadMessages, EngineFailed, InvalidConfiguration, PromptTooLong, ServerStopping
from hermes.serving import ChatService
from hermes.serving.metrics import Meter
from hermes.serving.service import check_default_template
from hermes.settings import Settings
from tests.support.fakes import INPUTS, FakeEngine, byte_tokenizer, request

TOKENIZER = byte_tokenizer()
CHATML = ChatML(TOKENIZER)
OURS = {**INPUTS, "system_prompt": "", "seed": 7, "max_tokens": 50}


def service(engine, **settings):
    return ChatService(engine, CHATML, Settings(profile="local", **settings))


def raw(text):
    return [*CHATML.bos_ids, *CHATML.encode_raw(text)]


def respond(service, record=print, **inputs):
    """The pieces of a response, and the error that ended it, if one did."""

    async def collect():
        pieces = []
        try:
            async for piece in service.respond(record, **{**OURS, **inputs}):
                pieces.append(piece)
        except Exception as error:
            return pieces, error
        return pieces, None

    return asyncio.run(collect())


def test_the_engine_gets_token_ids_and_what_fits_and_its_text_comes_back():
    engine = FakeEngine(context_tokens=40)
    assert respond(service(engine)) == (["Hello", " there."], None)
    ids = raw("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert engine.seen == [(ids, Sampling(seed=7, max_tokens=40 - len(ids)), None)]


def test_a_step_that_decides_no_text_gives_no_empty_piece():
    engine = FakeEngine([Chunk("", 1), Chunk("😀", 2), Chunk("", 1, "stop")])
    assert respond(service(engine)) == (["😀"], None)


def test_a_prompt_that_is_too_long_never_reaches_the_engine():
    engine = FakeEngine(context_tokens=10)
    pieces, error = respond(service(engine))
    assert (pieces, type(error), engine.seen) == ([], PromptTooLong, [])


def test_the_text_before_a_failure_stands():
    pieces, error = respond(service(FakeEngine([Chunk("half", 1)], error=EngineFailed("the engine has died"))))
    assert pieces == ["half"]
    assert str(error) == "E1203 EngineFailed: the engine has died; the request can be sent again"


def test_leaving_early_ends_the_engines_request():
    engine = FakeEngine([Chunk("a", 1)] * 100)

    async def leave():
        pieces = aiter(service(engine).respond(print, **OURS))
        await anext(pieces)
        assert engine.unfinished == 1
        await pieces.aclose()

    asyncio.run(leave())
    assert engine.unfinished == 0


def test_the_servers_template_is_for_requests_that_bring_none():
    engine = FakeEngine()
    asked = service(engine, prompt_template="A {prompt}")
    respond(asked)
    respond(asked, prompt_template="B {prompt}")
    respond(asked, messages=[{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}])
    assert [ids for ids, _, _ in engine.seen] == [
        raw("A Hi"),
        raw("B Hi"),
        CHATML.encode([Message("user", "Hello"), Message("assistant", "Hi."), Message("user", "Hi")]),
    ]


@pytest.mark.parametrize("template", ["no place", "{% for message in messages %}{prompt}"])
def test_a_server_template_that_no_request_could_use_is_refused_at_start(template):
    with pytest.raises(InvalidConfiguration, match=r"E1202 InvalidConfiguration: prompt_template: E100[34]"):
        check_default_template(template)


@pytest.mark.parametrize("template", [None, "", "A {prompt}"])
def test_a_usable_server_template_passes(template):
    check_default_template(template)


def log_lines(caplog, name):
    """The JSON of each line of that name."""
    return [json.loads(line.split(": ", 1)[1]) for line in caplog.messages if line.startswith(f"{name}: ")]


def test_each_prediction_has_one_line_in_the_log_and_nothing_that_was_said(caplog):
    caplog.set_level(logging.INFO, "hermes")
    respond(service(FakeEngine()), prompt="my secret")
    respond(service(FakeEngine()), prompt="my secret", messages=[{"role": "my secret"}])
    respond(service(FakeEngine([Chunk("my secret", 1)], error=EngineFailed("the engine has died"))))
    assert "secret" not in caplog.text
    assert len(caplog.messages) == 3
    done, refused, died = log_lines(caplog, "prediction")
    assert done["seconds"] >= done["time_to_first_token"] > 0
    assert {**done, "seconds": 1, "time_to_first_token": 1} == {
        "input_tokens": 29,
        "output_tokens": 3,
        "time_to_first_token": 1,
        "seconds": 1,
        "finish_reason": "stop",
        "code": None,
        "preemptions": 0,
        "engine": {"unfinished": 0, "output_tokens": 0},
    }
    assert (refused["input_tokens"], refused["finish_reason"], refused["code"]) == (None, None, BadMessages.code)
    assert (died["output_tokens"], died["finish_reason"], died["code"]) == (1, None, "E1203")


def test_prompts_and_answers_are_logged_when_asked_for(caplog):
    caplog.set_level(logging.INFO, "hermes")
    respond(service(FakeEngine(), log_prompts=True), prompt="Say\nhello")
    assert log_lines(caplog, "prompt") == [CHATML.shown(CHATML.encode([Message("user", "Say\nhello")]))]
    assert log_lines(caplog, "response") == ["Hello there."]


class StrictEngine(FakeEngine):
    """It refuses the grammar of one tool."""

    async def usable(self, constraint):
        return constraint.freed(["heavy"])


def test_a_tool_whose_grammar_the_engine_refuses_is_named_in_the_metrics():
    engine, recorded = StrictEngine(context_tokens=9_000), {}
    respond(service(engine), recorded.__setitem__, tools=[{"name": "heavy"}, {"name": "light"}])
    assert recorded["tools_unenforced"] == {"heavy": ["$"]}
    assert engine.seen[0][2].tools_unenforced == {"heavy": ("$",), "light": ()}


class StuckEngine(FakeEngine):
    """It gives its chunks, and nothing after them."""

    async def generate(self, token_ids, sampling, take, constraint=None, stream_interval=1):
        await super().generate(token_ids, sampling, take, constraint, stream_interval)
        await asyncio.Event().wait()


@pytest.mark.parametrize(("own", "servers"), [(0.3, 900), (None, 0.3), (900, 0.3)])
def test_a_time_that_is_over_ends_the_answer_and_what_is_there_stands(own, servers):
    engine, recorded = StuckEngine([Chunk("half", 1)]), {}
    ended = respond(service(engine, request_timeout=servers), recorded.__setitem__, timeout=own)
    assert ended == (["half"], None)
    assert (recorded["finish_reason"], recorded["output_token_count"]) == ("timeout", 1)
    assert engine.unfinished == 0


def test_a_response_that_has_ended_was_not_ended_by_the_time():
    engine, recorded = StuckEngine([Chunk("whole", 1, "stop")]), {}
    assert respond(service(engine), recorded.__setitem__, timeout=0.1) == (["whole"], None)
    assert recorded["finish_reason"] == "stop"


def test_replies_can_all_be_ended_and_later_ones_too():
    chat = service(StuckEngine([Chunk("half", 1)]))

    async def stop():
        pieces = aiter(chat.respond(print, **OURS))
        got = [await anext(pieces)]
        chat.stop(lambda: ServerStopping(5))
        with pytest.raises(ServerStopping, match=r"E1205 .* not finished within 5 s; the request can be sent again"):
            await anext(pieces)
        return got

    assert asyncio.run(stop()) == ["half"]
    assert isinstance(respond(chat)[1], ServerStopping)


@pytest.mark.parametrize(("settings", "later"), [({}, 2), ({"stream_interval": 1}, 1), ({"stream_interval": 5}, 5)])
def test_with_many_at_once_the_later_ones_come_several_tokens_a_piece(settings, later):
    engine = FakeEngine()
    chat = service(engine, **settings)

    async def ask_all():
        return await asyncio.gather(*(anext(aiter(chat.respond(print, **OURS))) for _ in range(18)))

    assert asyncio.run(ask_all()) == ["Hello"] * 18
    assert engine.intervals == [1] * 15 + [later] * 3


@pytest.mark.parametrize(
    ("inputs", "last"), [({"min_tokens": 3}, 1), ({"min_tokens": 0}, 2), ({"min_tokens": 3, "tools": None}, 2)]
)
def test_no_chunk_straddles_min_tokens_where_stop_strings_are_looked_for_here(inputs, last):
    engine = StuckEngine(context_tokens=9_000)
    chat = service(engine)
    asked = {**OURS, "tools": [{"name": "f"}], "stop": ["Paris"], **inputs}

    async def ask_all():
        await asyncio.gather(*(anext(aiter(chat.respond(print, **asked))) for _ in range(18)))

    asyncio.run(ask_all())
    assert engine.intervals[-1] == last


def test_preemptions_are_in_the_metrics():
    recorded = {}
    engine = FakeEngine([Chunk("a", 1), Chunk("b", 1, preemptions=2), Chunk("c", 1, "stop", preemptions=2)])
    respond(service(engine), recorded.__setitem__)
    assert recorded["preemptions"] == 2


def test_the_engine_gets_the_constraint_and_the_metrics_get_the_calls():
    call = '<tool_call>\n{"arguments": {"x": 1}, "name": "f"}\n</tool_call>'
    engine, recorded = FakeEngine([Chunk(call[:20], 9), Chunk(call[20:], 9, "stop")], context_tokens=2000), {}
    tools = [{"name": "f"}]
    assert respond(service(engine), recorded.__setitem__, tools=tools) == ([call[:20], call[20:]], None)
    assert engine.seen[0][2] == request(tools=tools).constraint is not None
    assert (recorded["finish_reason"], recorded["tool_call_errors"]) == ("tool_calls", [])
    assert recorded["tool_calls"] == [{"name": "f", "arguments": {"x": 1}}]


CUT_JSON = {"json_unenforced": [], "json_valid": False, "json_problem": "$: is not JSON: it was cut off"}
BEGUN = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "It is "}]


@pytest.mark.parametrize(
    ("inputs", "text", "bos"),
    [
        ({}, "<|begin_of_text|><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", 1),
        ({"prompt_template": "A {prompt}"}, "<|begin_of_text|>A Hi", 1),
        ({"prompt_template": "<|begin_of_text|>{prompt}"}, "<|begin_of_text|>Hi", 0),
        ({"prompt": "", "prompt_token_ids": raw("<|im_end|>Hi")[1:]}, "<|im_end|>Hi", 0),
        (
            {"prompt": "", "messages": BEGUN, "continue_final_message": True},
            "<|begin_of_text|><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nIt is ",
            1,
        ),
        ({"prompt": "Hi", "json_schema": {}, "truncate": "oldest_turns"}, None, 1),
        ({"prompt": "x" * 300}, None, 1),
    ],
)
def test_without_a_token_to_generate_the_metrics_have_the_prompts_tokens_and_the_engine_is_not_asked(inputs, text, bos):
    engine, recorded = FakeEngine(alive=False), {}
    assert respond(service(engine), recorded.__setitem__, max_tokens=0, **inputs) == ([], None)
    assert engine.seen == []
    found = recorded.pop("tokenized")
    assert recorded == {
        "context_tokens": 100,
        "seed": 7,
        "input_token_count": len(found["ids"]),
        "output_token_count": 0,
        "max_tokens": 0,
        "finish_reason": "length",
        **({"dropped_turns": 0} if "truncate" in inputs else {}),
        **(CUT_JSON if "json_schema" in inputs else {}),
    }
    shown = TOKENIZER.shown(found["ids"])
    assert found == {
        "ids": found["ids"],
        "strings": [TOKENIZER.backend_tokenizer.id_to_token(each) for each in found["ids"]],
        "text": shown,
        "bos": bos,
    }
    assert text in (None, shown)


def test_a_prompt_of_many_tokens_is_not_even_counted():
    pieces, error = respond(service(FakeEngine()), prompt="", prompt_token_ids=[5] * 16_384, max_tokens=0)
    assert (pieces, str(error)) == (
        [],
        "E1002 PromptTooLong: the prompt is 16384 tokens and max_tokens is 0; with that, fewer than 16384 are counted; "
        "shorten it by at least 1 tokens",
    )


def test_a_prompt_of_token_ids_reaches_the_engine_as_it_is():
    engine = FakeEngine()
    assert respond(service(engine, prompt_template="A {prompt}"), prompt="", prompt_token_ids=[5, 6.0])[1] is None
    assert engine.seen[0][0] == [5, 6]
    assert isinstance(respond(service(engine), prompt="", prompt_token_ids=[5] * 100)[1], PromptTooLong)


@pytest.mark.parametrize("wrong", [-1, 259, 2**32, 10**400, True, "5", None, 1.5, float("nan"), float("inf"), [1]])
def test_an_id_that_is_none_of_the_models_is_refused_with_its_place(wrong):
    engine = FakeEngine()
    pieces, error = respond(service(engine), prompt="", prompt_token_ids=[5, wrong])
    assert (pieces, engine.seen) == ([], [])
    assert str(error).startswith("E1005 BadMessages: prompt_token_ids[1] is ")
    assert str(error).endswith("; it has to be the id of a token that the model has")


def test_every_prediction_tells_the_context_of_the_model():
    recorded = {}
    assert isinstance(respond(service(FakeEngine()), recorded.__setitem__, messages=[{"role": "x"}])[1], BadMessages)
    assert recorded == {"context_tokens": 100}


def test_a_conversation_that_is_too_long_loses_turns_when_asked_to():
    turns = [{"role": "user", "content": "old " * 20}, {"role": "assistant", "content": "answer"}]
    engine = FakeEngine(context_tokens=80)
    assert isinstance(respond(service(engine), messages=turns)[1], PromptTooLong)
    assert respond(service(engine), messages=turns, truncate="oldest_turns")[1] is None
    assert engine.seen[0][0] == CHATML.encode([Message("user", "Hi")])


def test_metrics_are_what_is_known_so_far():
    meter = Meter()
    assert dict(meter.metrics()) == {}
    meter.request = request(seed=7)
    assert dict(meter.metrics()) == {"seed": 7}
    meter.input_token_count = 5
    assert dict(meter.metrics()) == {"seed": 7, "input_token_count": 5, "output_token_count": 0}
    meter.add(Chunk("a", 1))
    assert {"time_to_first_token", "tokens_per_second"} <= dict(meter.metrics()).keys()
    first = meter.time_to_first_token
    meter.add(Chunk("b", 2, "length"))
    assert (meter.time_to_first_token, meter.output_token_count) == (first, 3)
    assert dict(meter.metrics())["finish_reason"] == "length"
