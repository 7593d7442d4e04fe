"""Anthropic's own client before the gateway and the package's service; only the engine is scripted."""

import asyncio
import json

import anthropic
import httpx2
import pytest
from anthropic import AsyncAnthropic, beta_async_tool
from pydantic import BaseModel

from hermes.engine import Chunk
from tests.support.asgi_gateway import serving
from tests.support.served import Served

QUESTION = {"role": "user", "content": "What is the weather in Oslo?"}
WEATHER = {
    "name": "weather",
    "description": "Of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
BODY = {"model": "model", "max_tokens": 50, "messages": [QUESTION]}
TEXT = [Chunk("It ", 1), Chunk("snows.", 1, "stop")]
CALL = [Chunk('<tool_call>\n{"arguments": {"city": ', 9), Chunk('"Oslo"}, "name": "weather"}\n</tool_call>', 9, "stop")]


class Weather(BaseModel):
    city: str


def with_client(work, *responses, api_key="none", **settings):
    """What `work(client)` returns, and the inputs of the predictions. The engine gives these responses in turn."""
    upstream, waiting = Served(context_tokens=2000), list(responses)
    scripted = upstream.run

    def run(run_id, inputs):
        if b'"max_tokens":0' not in inputs and waiting:
            upstream.engine.chunks = waiting.pop(0)
        return scripted(run_id, inputs)

    upstream.run = run

    async def main():
        async with serving(upstream, **settings) as (_, http):
            transport = httpx2.AsyncClient(transport=httpx2.ASGITransport(http._transport.app))
            async with AsyncAnthropic(
                base_url=str(http.base_url), api_key=api_key, max_retries=0, http_client=transport
            ) as client:
                return await work(client)

    return asyncio.run(main()), upstream.inputs


async def streamed(client, **body):
    async with client.messages.stream(**BODY | body) as stream:
        return [event async for event in stream], await stream.get_final_message()


def test_a_streamed_message_is_the_whole_one():
    async def work(client):
        return await client.messages.create(**BODY), *(await streamed(client))

    (whole, events, final), _ = with_client(work, TEXT, TEXT)
    assert final.to_dict(exclude_none=True) | {"id": whole.id} == whole.to_dict(exclude_none=True)
    assert "".join(event.text for event in events if event.type == "text") == "It snows." == whole.content[0].text
    assert whole.usage.output_tokens == 2


def test_a_streamed_call_is_the_whole_one():
    async def work(client):
        body = {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "weather"}}
        return await client.messages.create(**BODY | body), *(await streamed(client, **body))

    (whole, events, final), _ = with_client(work, CALL, CALL)
    [call] = final.content
    assert call.to_dict() | {"id": ""} == whole.content[0].to_dict() | {"id": ""}
    assert (call.name, call.input, final.stop_reason) == ("weather", {"city": "Oslo"}, "tool_use")
    parts = [event.partial_json for event in events if event.type == "input_json"]
    assert json.loads("".join(parts)) == {"city": "Oslo"}


def test_a_loop_with_a_tool_sends_all_of_the_first_turn_back():
    @beta_async_tool
    async def weather(city: str) -> str:
        """Of a city."""
        return f"Snow in {city}."

    async def work(client):
        return await client.beta.messages.tool_runner(**BODY, tools=[weather]).until_done()

    final, (_, second) = with_client(work, CALL, TEXT)
    assert final.content[0].text == "It snows.", "though it asked for a thread on the server"
    asked, called, result = second["messages"]
    assert (asked, called["role"], result["role"]) == (QUESTION, "assistant", "tool")
    assert called["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Oslo"}}
    assert (result["tool_call_id"], result["content"]) == (called["tool_calls"][0]["id"], "Snow in Oslo.")


def test_a_tool_that_fails_is_an_error_to_the_model():
    @beta_async_tool
    async def weather(city: str) -> str:
        """Of a city."""
        raise OSError("no network")

    async def work(client):
        return await client.beta.messages.tool_runner(**BODY, tools=[weather]).until_done()

    _, (_, second) = with_client(work, CALL, TEXT)
    assert "no network" in second["messages"][-1]["content"]["error"]


def test_an_output_format_is_parsed():
    chunks = [Chunk('{"city": ', 1), Chunk('"Oslo"}', 1, "stop")]

    async def work(client):
        return await client.messages.parse(**BODY, output_format=Weather)

    message, [inputs] = with_client(work, chunks)
    assert message.parsed_output == Weather(city="Oslo")
    assert inputs["json_schema"]["properties"]["city"]["type"] == "string"


def test_tokens_are_counted_as_the_response_counts_them():
    body = {"model": "model", "messages": [QUESTION], "system": "Be brief.", "tools": [WEATHER]}

    async def work(client):
        return await client.messages.count_tokens(**body), await client.messages.create(**body, max_tokens=9)

    (counted, message), _ = with_client(work, TEXT)
    assert counted.input_tokens == message.usage.input_tokens > 200


@pytest.mark.parametrize(
    ("body", "error", "kind"),
    [
        ({"model": "claude-opus-9"}, anthropic.NotFoundError, "not_found_error"),
        ({"messages": []}, anthropic.BadRequestError, "invalid_request_error"),
        ({"messages": [QUESTION | {"content": "x" * 9000}]}, anthropic.BadRequestError, "invalid_request_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_is_the_clients(body, error, kind, stream):
    async def work(client):
        with pytest.raises(error) as raised:
            await client.messages.create(**BODY | body, stream=stream)
        return raised.value

    raised, _ = with_client(work)
    assert raised.body["error"]["type"] == kind
    assert raised.request_id == raised.body["request_id"]


def test_a_wrong_token_is_an_authentication_error():
    async def work(client):
        with pytest.raises(anthropic.AuthenticationError):
            await client.messages.create(**BODY)

    with_client(work, api_key="wrong", tokens=("ada:right",))
    with_client(lambda client: client.messages.create(**BODY), api_key="right", tokens=("ada:right",))
