"""OpenAI's official client, unmodified, against the gateway and the real model."""

import asyncio
import copy
import json
import time

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.support.asking import three_chances, until
from tests.support.gateways import MODEL, City

STORY = [{"role": "user", "content": "Write a short story about a lighthouse."}]
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
EXACT = {"temperature": 0, "max_tokens": 40, "extra_body": {"min_tokens": 40}}
LONG = {"temperature": 0, "extra_body": {"min_tokens": 1900}}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
ASK_WEATHER = [{"role": "user", "content": "What is the weather in Oslo?"}]


def client_of(gateway):
    return OpenAI(base_url=gateway.openai, api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def client(quick_gateway):
    with client_of(quick_gateway) as client:
        yield client


@pytest.fixture(scope="module")
def sensible(gateway):
    """A client of a model whose answers make sense."""
    with client_of(gateway) as client:
        yield client


@three_chances
def test_a_chat_completion_is_the_same_streamed_and_not(sensible):
    whole = sensible.chat.completions.create(model=MODEL, messages=STORY, **EXACT)
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 40
    chunks, times, began = [], [], time.monotonic()
    stream = sensible.chat.completions.create(
        model=MODEL, messages=STORY, stream=True, stream_options={"include_usage": True}, **EXACT
    )
    for chunk in stream:
        chunks.append(chunk)
        times.append(time.monotonic() - began)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert times[2] < times[-1] / 2, "the first words come before half of the time"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)


def test_the_async_client_and_the_stream_helper(gateway):
    """The helper raises at an answer that was cut off, so this one is whole."""
    asked = {"model": MODEL, "messages": CAPITAL, "temperature": 0}

    async def main():
        async with AsyncOpenAI(base_url=gateway.openai, api_key="none") as client:
            whole = await client.chat.completions.create(**asked)
            async with client.chat.completions.stream(**asked) as stream:
                text = "".join([event.delta async for event in stream if event.type == "content.delta"])
                final = await stream.get_final_completion()
            return whole.choices[0].message.content, text, final.choices[0].message.content

    whole, text, final = asyncio.run(main())
    assert "Paris" in whole
    assert whole == text == final


def test_parse_gives_a_pydantic_model(client):
    parsed = client.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": "Describe Oslo."}], response_format=City, temperature=0
    )
    assert isinstance(parsed.choices[0].message.parsed, City)
    assert parsed.choices[0].finish_reason == "stop"


def test_a_json_object_comes_whole_streamed_and_not(sensible):
    brief = {"role": "user", "content": "Write {} and nothing else."}
    asked = {"model": MODEL, "messages": [brief], "response_format": {"type": "json_object"}, "temperature": 0}
    whole = sensible.chat.completions.create(**asked).choices[0]
    assert isinstance(json.loads(whole.message.content), dict)
    chunks = sensible.chat.completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.message.content


def test_a_tool_call_comes_whole_streamed_and_not(sensible):
    long = copy.deepcopy(WEATHER)  # so long that even a busy machine does not join all of its pieces
    long["function"]["parameters"]["properties"]["why"] = {"type": "string", "minLength": 200, "maxLength": 250}
    long["function"]["parameters"]["required"].append("why")
    asked = {
        "model": MODEL,
        "messages": ASK_WEATHER,
        "tools": [long],
        "tool_choice": "required",
        "parallel_tool_calls": False,  # the small model repeats a call
        "max_tokens": 200,
        "temperature": 0,
        "seed": 1,
    }
    whole = sensible.chat.completions.create(**asked).choices[0]
    [call] = whole.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)["city"]) == ("get_weather", "Oslo")
    assert whole.finish_reason == "tool_calls"
    deltas = [chunk.choices[0] for chunk in sensible.chat.completions.create(**asked, stream=True)]
    [streamed, *more] = [part for each in deltas for part in each.delta.tool_calls or []]
    assert (streamed.index, streamed.type, streamed.function.name) == (0, "function", call.function.name)
    assert len(more) > 1, "the arguments come as they are written"
    assert "".join(part.function.arguments for part in [streamed, *more]) == call.function.arguments
    assert "".join(each.delta.content or "" for each in deltas) == (whole.message.content or "")
    assert deltas[-1].finish_reason == "tool_calls"
    assert {streamed.id, call.id} - {None, ""} == {streamed.id, call.id}
    assert streamed.id != call.id


def test_a_conversation_with_a_result_goes_on(sensible):
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        *ASK_WEATHER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "12 degrees"},
    ]
    answer = sensible.chat.completions.create(
        model=MODEL, messages=messages, tools=[WEATHER], tool_choice="none", max_tokens=20
    )
    assert answer.choices[0].message.content


def test_several_answers_have_seeds_of_their_own(client):
    answers = client.chat.completions.create(model=MODEL, messages=STORY, n=3, seed=5, max_tokens=20)
    assert [choice.index for choice in answers.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answers.choices}) == 3
    again = client.chat.completions.create(model=MODEL, messages=STORY, n=3, seed=5, max_tokens=20, stream=True)
    texts = ["", "", ""]
    for chunk in again:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in answers.choices]


def test_completions(sensible):
    asked = {
        "model": MODEL,
        "prompt": "one two three four one two three four one two",
        "temperature": 0,
        "max_tokens": 8,
    }
    whole = sensible.completions.create(**asked)
    assert whole.choices[0].text.startswith(" three four")
    assert (
        "".join(chunk.choices[0].text for chunk in sensible.completions.create(**asked, stream=True))
        == whole.choices[0].text
    )


def test_responses(sensible):
    asked = {
        "model": MODEL,
        "input": "Write a short story about a lighthouse.",
        "temperature": 0,
        "max_output_tokens": 40,
    }
    whole = sensible.responses.create(**asked)
    assert (whole.status, whole.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    events = list(sensible.responses.create(**asked, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text
    assert events[-1].type == "response.incomplete"
    with sensible.responses.stream(model=MODEL, input=CAPITAL, temperature=0) as stream:
        assert "Paris" in stream.get_final_response().output_text
    called = sensible.responses.create(
        model=MODEL,
        instructions="Call the tool.",
        input=ASK_WEATHER,
        tools=[{"type": "function", **WEATHER["function"]}],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
    )
    [call] = [item for item in called.output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Oslo"})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "12 degrees"}
    again = sensible.responses.create(
        model=MODEL, input=[*ASK_WEATHER, call.model_dump(), result], max_output_tokens=20
    )
    assert again.output_text


def test_a_schema_goes_with_responses(client):
    parsed = client.responses.parse(model=MODEL, input="Describe Oslo.", text_format=City, temperature=0)
    assert isinstance(parsed.output_parsed, City)


@pytest.mark.parametrize(
    ("asked", "param", "said"),
    [
        ({"logprobs": True}, "logprobs", "no probabilities"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "single tokens"),
        ({"modalities": ["audio"]}, "modalities", "only text"),
        ({"temperature": "0.5"}, "temperature", "valid number"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"n": 999}, "n", "less than or equal to 128"),
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]", "only text"),
        ({"messages": STORY, "continue_final_message": True}, "continue_final_message", "E1005"),
        ({"ignore_eos": True, "stop": "x"}, "ignore_eos", "stop"),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs.regex", "JSON schema only"),
        ({"tool_choice": "required"}, "tool_choice", "no tools to call"),
        ({"response_format": {"type": "xml"}}, "response_format", "json_object or json_schema"),
        ({"tools": [{"type": "function", "function": {"name": "no\nname"}}]}, "tools", "E1006 BadTools"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role", "E1005 BadMessages"),
    ],
    ids=lambda value: "" if not isinstance(value, str) else value[:20],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_what_cannot_be_is_a_400_that_names_the_parameter(quick_gateway, asked, param, said, stream):
    response = quick_gateway.post("/v1/chat/completions", {"model": MODEL, "messages": STORY, "stream": stream} | asked)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param), error
    assert said in error["message"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_prompt_that_is_too_long_has_openais_code(client, stream):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "word " * 4000}], stream=stream
        )
    assert refused.value.code == "context_length_exceeded"
    assert "maximum context length is 2048 tokens" in refused.value.message


def test_models_by_their_names(client):
    assert [model.id for model in client.models.list()] == [MODEL, "model", "gpt-4o"]
    for name in (MODEL, "gpt-4o"):
        assert client.models.retrieve(name).id == name
        assert client.chat.completions.create(model=name, messages=STORY, max_tokens=2).model == name
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-9", messages=STORY)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")


def leave_stream(gateway, client):
    stream = client.chat.completions.create(model=MODEL, messages=STORY, stream=True, **LONG)
    next(iter(stream))
    stream.close()


def leave_before_the_answer(gateway, client):
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{gateway.openai}/chat/completions",
            json={"model": MODEL, "messages": STORY, "min_tokens": 1900, "temperature": 0},
            timeout=1,
        )


def leave_many_prompts(gateway, client):
    body = {"model": MODEL, "prompt": ["Once"] * 100, "min_tokens": 1900, "max_tokens": 1900, "temperature": 0}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{gateway.openai}/completions", json=body, timeout=1)


@pytest.mark.parametrize("leave", [leave_stream, leave_before_the_answer, leave_many_prompts])
@three_chances
def test_a_caller_who_goes_away_frees_the_slot(gateway, sensible, leave):
    leave(gateway, sensible)
    assert until(lambda: gateway.running == 0, 10, "the slot is free") < 2


def test_one_request_has_more_prompts_than_slots(sensible):
    prompts = [f"<{number}> " * 3 + "<" for number in range(2000, 2100)]
    asked = {"model": MODEL, "prompt": prompts, "temperature": 0, "max_tokens": 4}
    texts = [f"{number}" for number in range(2000, 2100)]
    assert [choice.text for choice in sensible.completions.create(**asked).choices] == texts
    streamed = [""] * 100
    for chunk in sensible.completions.create(**asked, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == texts


def test_an_answer_goes_on_with_the_last_message(sensible):
    messages = [*CAPITAL, {"role": "assistant", "content": "The capital of France is"}]
    asked = {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 8}
    went_on = sensible.chat.completions.create(**asked, extra_body={"continue_final_message": True})
    assert went_on.choices[0].message.content.startswith(" Paris")
    assert not sensible.chat.completions.create(**asked).choices[0].message.content.startswith(" Paris")


def test_two_hundred_callers_at_thirty_two_slots_are_all_answered(gateway):
    """Each has a code of its own, and gets it back."""

    async def main():
        async with httpx.AsyncClient(base_url=gateway.openai, limits=httpx.Limits(), timeout=300) as http:

            async def ask(number):
                body = {"model": MODEL, "prompt": f"<{number}> " * 3 + "<", "temperature": 0, "max_tokens": 4}
                response = await http.post("/completions", json=body)
                return response.status_code, response.json()["choices"][0]["text"]

            return await asyncio.gather(*map(ask, range(2000, 2200)))

    answers = asyncio.run(main())
    assert {status for status, _ in answers} == {200}
    assert [text for _, text in answers] == [f"{number}" for number in range(2000, 2200)]
