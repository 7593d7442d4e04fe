"""Anthropic's messages: bodies as inputs of predict.py, and responses as its clients read them."""

import asyncio
import json

import pytest
from pydantic import ValidationError

from hermes.devserver import PROJECT, PredictorSource
from hermes.gateway import reply as reply_module
from hermes.gateway.bodies import Bodies
from hermes.gateway.caller import Caller
from hermes.gateway.fields import without_nulls
from hermes.gateway.inputs import InputCheck
from hermes.gateway.memory import Memory
from hermes.gateway.messages_api import _MessageWriter, _stream
from hermes.gateway.messages_blocks import conversation_of
from hermes.gateway.messages_requests import CountTokensRequest, MessagesRequest
from hermes.gateway.openai_requests import ParsedRequest
from hermes.gateway.problems import Problem
from hermes.gateway.reply import Reply
from tests.gateway.test_stream import DONE, FAILED, Scripted
from tests.support.asgi_gateway import FakeUpstream, serving

USER = {"role": "user", "content": "Hi"}
WEATHER = {"name": "weather", "description": "Of a city.", "input_schema": {"type": "object", "properties": {}}}
FUNCTION = {
    "type": "function",
    "function": {"name": "weather", "description": "Of a city.", "parameters": WEATHER["input_schema"]},
}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}
CALLED = {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
DOCUMENT = PredictorSource(PROJECT / "predict.py").openapi()


def text(words, **more):
    return {"type": "text", "text": words, **more}


def result(call_id, content, **more):
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **more}


def inputs(kind=MessagesRequest, **body):
    request = kind.model_validate(without_nulls({"max_tokens": 9, "messages": [USER], **body}))
    return request.inputs(conversation_of(request.system, request.messages))


def turns(*messages, **body):
    return inputs(messages=list(messages), **body)["messages"]


def test_what_is_left_out_is_anthropics_default():
    assert inputs() == {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "system_prompt": "",
        "messages": [USER],
        "max_tokens": 9,
    }
    assert inputs(CountTokensRequest) == inputs() | {"max_tokens": 0}


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"temperature": 0.5, "top_p": 0.9, "top_k": 5}, {"temperature": 0.5, "top_p": 0.9, "top_k": 5}),
        ({"max_tokens": 10**9}, {"max_tokens": 131_072}),
        ({"stop_sequences": ["END"]}, {"stop": ["END"]}),
        ({"tools": [WEATHER]}, {"tools": [FUNCTION], "tool_choice": "auto"}),
        ({"tools": [WEATHER | {"type": "custom"}]}, {"tools": [FUNCTION], "tool_choice": "auto"}),
        ({"tools": [WEATHER], "tool_choice": {"type": "any"}}, {"tools": [FUNCTION], "tool_choice": "required"}),
        ({"tools": [WEATHER], "tool_choice": {"type": "none"}}, {"tools": [FUNCTION], "tool_choice": "none"}),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "weather"}},
            {"tools": [FUNCTION], "tool_choice": "weather"},
        ),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
            {"tools": [FUNCTION], "tool_choice": "auto", "parallel_tool_calls": False},
        ),
        ({"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}, {"json_schema": SCHEMA}),
        ({"output_format": {"type": "json_schema", "schema": SCHEMA}}, {"json_schema": SCHEMA}),
        (
            {"tools": [{"name": "fs/read", "input_schema": []}], "tool_choice": {"type": "tool", "name": "fs/read"}},
            {
                "tools": [{"type": "function", "function": {"name": "fs/read", "parameters": []}}],
                "tool_choice": "fs/read",
            },
        ),
        ({"output_config": {"effort": "low"}}, {}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}, "metadata": {"user_id": "me"}}, {}),
        ({"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}}, {}),
        ({"mcp_servers": [], "container": None, "unknown": 1}, {}),
    ],
)
def test_each_field_has_its_input(sent, expected):
    assert inputs(**sent) == inputs() | expected


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "user", "content": [text("H", cache_control={"type": "ephemeral"}), text("i")]}], ["H\ni"]),
        ([USER, USER], ["Hi\nHi"]),
        ([{"role": "user", "content": []}], [""]),
        (
            [
                {
                    "role": "user",
                    "content": [{"type": "document", "title": "T", "source": {"type": "text", "data": "D"}}],
                }
            ],
            ["T\nD"],
        ),
        (
            [
                {
                    "role": "user",
                    "content": [{"type": "search_result", "title": "T", "source": "S", "content": [text("C")]}],
                }
            ],
            ["T\nS\nC"],
        ),
    ],
)
def test_a_user_turn_is_its_text(messages, expected):
    assert turns(*messages) == [{"role": "user", "content": each} for each in expected]


def test_the_system_is_the_first_turn_and_another_one_stays_where_it_is():
    system = [text("x-anthropic-billing-header: cc_version=1; cch=1a2b"), text("Be brief."), text("Be kind.")]
    later = {"role": "system", "content": "Be loud."}
    first = {"role": "system", "content": "Be brief.\nBe kind."}
    assert turns(USER, later, USER, system=system) == [first, USER, later, USER]
    assert turns(USER, system="Be brief.") == [{"role": "system", "content": "Be brief."}, USER]


def test_a_call_and_its_result():
    thought = {"type": "thinking", "thinking": "?", "signature": "x"}
    said = {"role": "assistant", "content": [thought, text("I "), text("look."), CALL]}
    assert turns(USER, said, {"role": "user", "content": [result("toolu_1", "cold")]}) == [
        USER,
        {"role": "assistant", "content": "I look.", "tool_calls": [CALLED]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "cold"},
    ]


def test_results_go_before_the_text_beside_them_whatever_their_order():
    calls = [CALL, CALL | {"id": "toolu_2"}]
    apart = [{"role": "assistant", "content": [call]} for call in calls]
    results = [result("toolu_2", [text("wa"), text("rm")]), text("And now?"), result("toolu_1", "lost", is_error=True)]
    both = {"role": "assistant", "content": "", "tool_calls": [CALLED, CALLED | {"id": "toolu_2"}]}
    expected = [
        USER,
        both,
        {"role": "tool", "tool_call_id": "toolu_2", "content": "wa\nrm"},
        {"role": "tool", "tool_call_id": "toolu_1", "content": {"error": "lost"}},
        {"role": "user", "content": "And now?"},
    ]
    assert turns(USER, {"role": "assistant", "content": calls}, {"role": "user", "content": results}) == expected
    assert turns(USER, *apart, *({"role": "user", "content": [each]} for each in results)) == expected


def test_what_anthropics_servers_did_is_left_out_of_an_earlier_turn():
    served = [
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
    ]
    said = {"role": "assistant", "content": [*served, text("It rains.")]}
    assert turns(USER, said, USER) == [USER, {"role": "assistant", "content": "It rains."}, USER]


def test_a_document_cannot_begin_with_the_assistants_last_message():
    begun = {"role": "assistant", "content": "{"}
    form = {"format": {"type": "json_schema", "schema": SCHEMA}}
    body = {"max_tokens": 9, "messages": [USER, begun], "output_config": form}
    with pytest.raises(Problem, match=r"messages\[1\] can't go with json_schema") as refused:
        MessagesRequest.model_validate(body).parsed(InputCheck(DOCUMENT))
    assert refused.value.param == "messages[1]"


def test_the_last_message_of_the_assistant_is_continued():
    begun = {"role": "assistant", "content": "The capital is"}
    assert inputs(messages=[USER, begun]) == inputs() | {"messages": [USER, begun], "continue_final_message": True}
    assert inputs(messages=[USER, {"role": "assistant", "content": []}]) == inputs(), "which begins nothing"


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"mcp_servers": [{"url": "https://x"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"vllm_xargs": {"a": 1}}, "vllm_xargs"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "context_management"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [WEATHER | {"input_examples": [{"city": "Oslo"}]}]}, "tools[0].input_examples"),
        ({"tools": [WEATHER | {"name": "none"}], "tool_choice": {"type": "tool", "name": "none"}}, "tool_choice"),
        ({"tools": [WEATHER | {"allowed_callers": ["code_execution_20250825"]}]}, "tools[0].allowed_callers"),
        ({"tools": [{"name": "weather"}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool"}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "required"}}, "tool_choice"),
        ({"output_config": {"task_budget": {"total": 1}}}, "output_config.task_budget"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [USER, {"role": "user", "content": None}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [text(None)]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [text("a"), {"type": "image"}]}]}, "messages[0].content[1]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "url"}}]}]},
            "messages[0].content[0].source",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "messages[0].content[0].tool_use_id"),
        ({"messages": [{"role": "user", "content": [CALL]}]}, "messages[0].content[0]"),
        ({"messages": [USER, {"role": "assistant", "content": [CALL]}]}, "messages[1]"),
        (
            {
                "messages": [
                    USER,
                    {"role": "assistant", "content": [CALL]},
                    {"role": "user", "content": [result("toolu_1", ""), result("toolu_1", "")]},
                ]
            },
            "messages[2].content[1].tool_use_id",
        ),
        (
            {"messages": [{"role": "user", "content": [result("toolu_1", "")]}]},
            "messages[0].content[0].tool_use_id",
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": [CALL | {"input": "x"}]}]},
            "messages[1].content[0].input",
        ),
        ({"messages": [{"role": "assistant", "content": ""}]}, "messages"),
        *(({name: "x"}, name) for name in MessagesRequest.misplaced),
        ({"system": [{"type": "image"}]}, "system[0]"),
    ],
)
def test_what_cannot_be_had_is_refused_by_its_place(sent, param):
    with pytest.raises(Problem) as refused:
        inputs(**sent)
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    "sent",
    [
        {"messages": []},
        {"max_tokens": -1},
        {"max_tokens": None},
        {"temperature": 3},
        {"output_config": {"format": {"type": "text"}}},
        {"tools": [{"input_schema": {}}]},
        {"context_management": {"edits": 5}},
    ],
)
def test_a_body_of_another_shape_is_invalid(sent):
    with pytest.raises(ValidationError):
        inputs(**sent)


def with_gateway(work, *pieces, **settings):
    metrics = {"finish_reason": "stop", "input_token_count": 7, "output_token_count": 2}
    upstream = FakeUpstream(*pieces, document=DOCUMENT, metrics=metrics)

    async def main():
        async with serving(upstream, **settings) as (_, client):
            return await work(client)

    return asyncio.run(main())


def post(*pieces, path="/v1/messages", headers=None, settings=None, **body):
    whole = {"model": "model", "max_tokens": 9, "messages": [USER], **body}
    return with_gateway(
        lambda client: client.post(path, json=whole, headers=headers or {}), *pieces, **(settings or {})
    )


CALLED_TEXT = '<tool_call>\n{"arguments": {"city": "Oslo"}, "name": "weather"}\n</tool_call>'


def events_of(response):
    events = [event.split("\n") for event in response.strip().split("\n\n")]
    bodies = [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in events]
    assert all(name == body["type"] for name, body in bodies)
    return [body for _, body in bodies]


def test_a_whole_message():
    response = post("Hel", "lo")
    message = response.json()
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "model",
        "content": [text("Hello")],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 7,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 2,
        },
    }
    assert response.headers["request-id"] == response.headers["x-request-id"]


def test_a_message_with_a_call():
    message = post("I look.\n", CALLED_TEXT, tools=[WEATHER]).json()
    said, call = message["content"]
    assert said == text("I look.\n")
    assert call.pop("id").startswith("toolu_")
    assert call == {"type": "tool_use", "name": "weather", "input": {"city": "Oslo"}}
    assert message["stop_reason"] == "tool_use"


def test_a_stream_of_text_and_a_call():
    events = events_of(post("I ", "look.\n", CALLED_TEXT, tools=[WEATHER], stream=True).text)
    assert [(event["type"], event.get("index")) for event in events] == [
        ("message_start", None),
        ("content_block_start", 0),
        *[("content_block_delta", 0)] * sum(event.get("delta", {}).get("type") == "text_delta" for event in events),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        *[("content_block_delta", 1)]
        * sum(event.get("delta", {}).get("type") == "input_json_delta" for event in events),
        ("content_block_stop", 1),
        ("message_delta", None),
        ("message_stop", None),
    ]
    joined = "".join(event.get("delta", {}).get("partial_json", "") for event in events)
    assert json.loads(joined) == {"city": "Oslo"}
    assert "".join(event.get("delta", {}).get("text", "") for event in events) == "I look.\n"
    assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert (events[-2]["usage"]["input_tokens"], events[-2]["usage"]["output_tokens"]) == (7, 2)


def reply_of(*steps, may_call=False, inputs=b"{}"):
    parsed = ParsedRequest("m", True, False, inputs, (b"{}",), may_call=may_call)
    return Reply(Scripted(*steps), Bodies(100, Memory(100)), parsed, Caller())


def stream_of(*steps, **more):
    async def main():
        reply = reply_of(*steps, **more)
        await reply.begun()
        return events_of("".join([event async for event in _stream(reply, _MessageWriter("m"), "r1")]))

    return asyncio.run(main())


CUT = DONE | {"metrics": DONE["metrics"] | {"finish_reason": "length"}}
NAMED = json.dumps({"tools": [FUNCTION], "tool_choice": "weather"}).encode()


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ('<tool_call>\n{"arguments": {"city": "Oslo", "day": "Mon', {"city": "Oslo"}),
        ('<tool_call>\n{"arguments": {', {}),
        ('<tool_call>\n{"arguments": ' + '{"deep": ' * 3000, {}),
    ],
)
def test_a_call_that_max_tokens_cut_is_given_as_far_as_it_came(written, arguments):
    events = stream_of(written, CUT, may_call=True, inputs=NAMED)
    joined = "".join(event.get("delta", {}).get("partial_json", "") for event in events)
    assert written.endswith(joined)
    assert joined.startswith("{")
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"

    async def whole():
        writer, reply = _MessageWriter("m"), reply_of(written, CUT, may_call=True, inputs=NAMED)
        async for _, part in reply.parts():
            if part is not None:
                writer.take(part)
        return json.loads(writer.whole(reply))

    message = asyncio.run(whole())
    assert message["content"][0]["input"] == arguments
    assert message["stop_reason"] == "max_tokens"


def test_an_error_in_mid_stream_is_an_event_and_the_end():
    events = stream_of("Half a sen", FAILED)
    assert [event["type"] for event in events][-2:] == ["content_block_delta", "error"]
    assert (events[-1]["error"]["type"], events[-1]["request_id"]) == ("overloaded_error", "r1")


def test_a_silent_stream_has_pings(monkeypatch):
    monkeypatch.setattr(reply_module, "PING_SECONDS", 0.01)

    async def main():
        go = asyncio.Event()
        reply, events = reply_of(go.wait, "Hi", DONE), []
        async for event in _stream(reply, _MessageWriter("m"), "r1"):
            events += events_of(event)
            if events[-1]["type"] == "ping":
                go.set()
        return [event["type"] for event in events]

    assert asyncio.run(main())[:2] == ["message_start", "ping"]


@pytest.mark.parametrize(
    ("more", "status", "kind"),
    [
        ({"model": "claude-3-5-sonnet"}, 404, "not_found_error"),
        ({"max_tokens": -1}, 400, "invalid_request_error"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, 400, "invalid_request_error"),
        ({"path": "/v1/messages/batches"}, 404, "not_found_error"),
        ({"settings": {"tokens": ("ada:right",)}}, 401, "authentication_error"),
        ({"settings": {"max_body": 50}}, 413, "request_too_large"),
        ({"path": "/v1/messages/count_tokens", "messages": []}, 400, "invalid_request_error"),
    ],
)
def test_a_refusal_is_anthropics(more, status, kind):
    response = post(**more)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    body = response.json()
    assert set(body) == {"type", "error", "request_id"}
    assert (body["type"], body["error"]["type"], body["request_id"]) == ("error", kind, response.headers["request-id"])


def test_a_gateway_that_stops_is_overloaded():
    async def main():
        async with serving(FakeUpstream(document=DOCUMENT)) as (gateway, client):
            await gateway.stop()
            return await client.post("/v1/messages", json={"model": "model", "max_tokens": 9, "messages": [USER]})

    response = asyncio.run(main())
    assert (response.status_code, response.json()["error"]["type"]) == (529, "overloaded_error")


def test_tokens_are_counted():
    response = post(path="/v1/messages/count_tokens")
    assert response.json() == {"input_tokens": 7}
