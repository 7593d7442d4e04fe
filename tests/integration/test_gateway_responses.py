"""OpenAI's Python client over the Responses API on the real model: loops of calls, and responses that are kept."""

import json

import openai
import pytest

from tests.support.asking import until
from tests.support.gateways import MODEL

TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
ASK = {"role": "user", "content": "What is the weather in Oslo?"}
FORCED = {"tools": [TOOL], "tool_choice": "required", "temperature": 0, "max_output_tokens": 200}
BRIEF = {"temperature": 0, "max_output_tokens": 20}


@pytest.fixture(scope="module")
def client(gateway):
    with openai.OpenAI(base_url=gateway.openai, api_key="none", max_retries=0) as client:
        yield client


def respond(client, streamed, **asked):
    """A response, whole or as the last event of its stream has it."""
    if not streamed:
        return client.responses.create(model=MODEL, **asked)
    events = list(client.responses.create(model=MODEL, stream=True, **asked))
    deltas = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    assert deltas == "".join(item.arguments for item in events[-1].response.output if item.type == "function_call")
    return events[-1].response


def outputs_of(response):
    """Results of the calls, the last one first."""
    calls = [item for item in response.output if item.type == "function_call"]
    assert calls
    assert all("city" in json.loads(call.arguments) for call in calls)
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "7 C, rain"} for call in calls]
    return results[::-1]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_loop_that_sends_back_what_it_got(client, streamed):
    first = respond(client, streamed, input=[ASK], store=False, **FORCED)
    history = [ASK, *(item.model_dump() for item in first.output), {"role": "user", "content": "Hurry."}]
    second = respond(client, streamed, input=[*history, *outputs_of(first)], store=False, **BRIEF)
    assert second.output_text
    assert second.usage.input_tokens > first.usage.output_tokens


@pytest.mark.parametrize("streamed", [False, True])
def test_a_loop_that_names_the_response_before(client, streamed):
    first = respond(client, streamed, input=[ASK], **FORCED)
    whole = respond(client, False, input=[ASK, *first.output, *outputs_of(first)], **BRIEF)
    again = respond(client, streamed, input=outputs_of(first), previous_response_id=first.id, **BRIEF)
    assert (again.output_text, again.usage.input_tokens) == (whole.output_text, whole.usage.input_tokens)
    listed = client.responses.input_items.list(again.id, order="asc")
    assert [item.type for item in listed][:2] == ["message", "function_call"]


def test_a_reference_is_read_as_the_item(client):
    first = respond(client, False, input=[ASK], **BRIEF)
    by_text = respond(client, False, input=[ASK, *first.output, ASK], **BRIEF)
    reference = {"type": "item_reference", "id": first.output[0].id}
    by_id = respond(client, False, input=[ASK, reference, ASK], **BRIEF)
    assert by_id.usage.input_tokens == by_text.usage.input_tokens
    with pytest.raises(openai.NotFoundError, match="msg_gone"):
        respond(client, False, input=[ASK, reference | {"id": "msg_gone"}])


def test_kept_responses_are_read_and_deleted(client):
    made = respond(client, False, input=[ASK], **BRIEF)
    assert client.responses.retrieve(made.id) == made
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError, match=made.id):
        respond(client, False, input=[ASK], previous_response_id=made.id)


def test_a_response_that_is_written_can_be_canceled(client, gateway):
    asked = {"input": "Count to a thousand.", "extra_body": {"min_tokens": 1500}, "max_output_tokens": 1500}
    stream = client.responses.create(model=MODEL, stream=True, **asked)
    made = next(stream).response
    canceled = client.responses.cancel(made.id)
    assert canceled.status == "cancelled"
    rest = list(stream)
    assert rest[-1].response.status == "cancelled"
    assert client.responses.retrieve(made.id).status == "cancelled"
    until(lambda: not gateway.running, 5, "the model has stopped")
