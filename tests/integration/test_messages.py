"""Anthropic's official client, unmodified, and vLLM's /tokenize, against the gateway and the real model."""

import json

import anthropic
import httpx
import pytest
from anthropic import Anthropic

from tests.support.gateways import MODEL, City, gateway_before

QUESTION = {"role": "user", "content": "What is the capital of France?"}
ASK_WEATHER = {"role": "user", "content": "What is the weather in Oslo?"}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"name": "get_weather", "description": "Get the weather of a city.", "input_schema": SCHEMA}
FORCED = {"type": "tool", "name": "get_weather"}
EXACT = {"model": MODEL, "max_tokens": 60, "extra_body": {"temperature": 0}}


def client_of(gateway):
    return Anthropic(base_url=gateway.url, api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def client(quick_gateway):
    with client_of(quick_gateway) as client:
        yield client


@pytest.fixture(scope="module")
def sensible(gateway):
    """A client of a model whose answers make sense."""
    with client_of(gateway) as client:
        yield client


def test_a_message_is_the_same_streamed_and_not(sensible):
    whole = sensible.messages.create(messages=[QUESTION], **EXACT)
    assert "Paris" in whole.content[0].text
    assert (whole.role, whole.stop_reason, whole.model) == ("assistant", "end_turn", MODEL)
    with sensible.messages.stream(messages=[QUESTION], **EXACT) as stream:
        texts = list(stream.text_stream)
        streamed = stream.get_final_message()
    assert "".join(texts) == streamed.content[0].text == whole.content[0].text
    assert (streamed.stop_reason, streamed.usage) == (whole.stop_reason, whole.usage)


def test_a_long_message_comes_in_pieces(sensible):
    """A busy machine joins some of them."""
    exact = {"temperature": 0, "min_tokens": 100}
    with sensible.messages.stream(messages=[QUESTION], model=MODEL, max_tokens=100, extra_body=exact) as stream:
        assert len(list(stream.text_stream)) > 5


def test_max_tokens_ends_a_message(client):
    message = client.messages.create(messages=[QUESTION], **EXACT | {"max_tokens": 3})
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 3)


def test_the_assistants_last_message_is_continued(sensible):
    begun = {"role": "assistant", "content": "The capital of France is"}
    message = sensible.messages.create(messages=[QUESTION, begun], **EXACT)
    assert message.content[0].text.lstrip().startswith("Paris")
    cold = sensible.messages.count_tokens(model=MODEL, messages=[QUESTION])
    assert message.usage.input_tokens > cold.input_tokens


@pytest.mark.parametrize("streamed", [False, True])
def test_two_turns_with_a_tool(client, streamed):
    def ask(messages, **more):
        body = {**EXACT, "messages": messages, "tools": [WEATHER], **more}
        if not streamed:
            return client.messages.create(**body)
        with client.messages.stream(**body) as stream:
            return stream.get_final_message()

    first = ask([ASK_WEATHER], tool_choice=FORCED)
    [call] = first.content
    assert (first.stop_reason, call.type, call.name) == ("tool_use", "tool_use", "get_weather")
    assert call.input["city"] in ("Oslo", "Rome")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Snow, 3 degrees below zero"}
    conversation = [ASK_WEATHER, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = ask(conversation, tool_choice={"type": "none"})
    assert second.content[0].text
    assert second.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens


def test_several_calls_have_their_results_in_any_order(client):
    calls = [{"type": "tool_use", "id": f"toolu_{n}", "name": "get_weather", "input": {"city": "Oslo"}} for n in (1, 2)]
    results = [{"type": "tool_result", "tool_use_id": f"toolu_{n}", "content": f"{n}"} for n in (1, 2)]

    def tokens(*blocks):
        turns = [ASK_WEATHER, {"role": "assistant", "content": calls}, {"role": "user", "content": list(blocks)}]
        return client.messages.create(messages=turns, tools=[WEATHER], **EXACT).content

    text = {"type": "text", "text": "And now?"}
    first, second = (tokens(*blocks) for blocks in ([*results, text], [text, *reversed(results)]))
    assert [block.to_dict() | {"id": ""} for block in first] == [block.to_dict() | {"id": ""} for block in second]


def test_an_output_format_is_kept(client):
    parsed = client.messages.parse(messages=[ASK_WEATHER], output_format=City, **EXACT)
    assert isinstance(parsed.parsed_output, City)


def test_tokens_are_counted_as_the_response_counts_them(client):
    counted = client.messages.count_tokens(model=MODEL, messages=[QUESTION], system="Hi", tools=[WEATHER])
    message = client.messages.create(messages=[QUESTION], system="Hi", tools=[WEATHER], **EXACT | {"max_tokens": 1})
    assert counted.input_tokens == message.usage.input_tokens > 100


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"model": "claude-opus-9"}, anthropic.NotFoundError),
        ({"messages": []}, anthropic.BadRequestError),
        ({"messages": [{"role": "user", "content": "many " * 3000}]}, anthropic.BadRequestError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_is_anthropics(client, body, error, stream):
    with pytest.raises(error) as raised:
        client.messages.create(**{**EXACT, "messages": [QUESTION], "stream": stream, **body})
    assert raised.value.body["error"]["type"] == raised.value.type
    assert raised.value.request_id == raised.value.body["request_id"]


def test_a_token_goes_in_either_header(quick_server):
    with gateway_before(quick_server.url, environment={"HERMES_GATEWAY_TOKENS": "ada:right"}) as gateway:
        for given in ({"api_key": "right"}, {"auth_token": "right"}):
            with Anthropic(base_url=gateway.url, max_retries=0, **given) as client:
                assert client.messages.count_tokens(model=MODEL, messages=[QUESTION]).input_tokens > 5
        with (
            Anthropic(base_url=gateway.url, api_key="wrong", max_retries=0) as client,
            pytest.raises(anthropic.AuthenticationError),
        ):
            client.messages.create(messages=[QUESTION], **EXACT)


def ask(gateway, path, **body):
    response = httpx.post(f"{gateway.url}{path}", json=body, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("text", ["The quick brown fox", "naïve 🙂 <|im_end|>", " "])
def test_a_text_is_tokens_and_a_text_again(quick_gateway, text):
    found = ask(quick_gateway, "/tokenize", prompt=text, return_token_strs=True)
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
    assert found["max_model_len"] == 2048
    assert ask(quick_gateway, "/detokenize", tokens=found["tokens"]) == {"prompt": text}


def test_a_conversation_is_the_tokens_that_it_costs(quick_gateway, client):
    found = ask(quick_gateway, "/tokenize", messages=[QUESTION], tools=[])
    assert found["count"] == client.messages.count_tokens(model=MODEL, messages=[QUESTION]).input_tokens
    text = ask(quick_gateway, "/detokenize", tokens=found["tokens"])["prompt"]
    assert text.endswith("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n")
    short = ask(quick_gateway, "/tokenize", messages=[QUESTION], add_generation_prompt=False)
    assert (
        text.removesuffix("<|im_start|>assistant\n")
        == ask(quick_gateway, "/detokenize", tokens=short["tokens"])["prompt"]
    )


def test_a_token_that_the_model_has_not_is_refused(quick_gateway):
    response = httpx.post(f"{quick_gateway.url}/detokenize", json={"tokens": [1, 10**7]}, timeout=60)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "tokens[1]"


def test_the_models_have_the_context_of_the_engine(quick_gateway):
    listed = httpx.get(f"{quick_gateway.url}/v1/models", timeout=60)
    assert {entry["max_model_len"] for entry in listed.json()["data"]} == {2048}
    assert len(listed.content) < 2000
    assert json.loads(listed.content)["results"][0]["latest_version"]["id"]
