"""What the server would refuse is refused before it is queued, in the server's words."""

import json

import pytest

from hermes.chat.request import Request
from hermes.devserver import PROJECT, PredictorSource
from hermes.errors import RequestError
from hermes.gateway.inputs import InputCheck
from hermes.gateway.problems import PARAMS, Problem

DOCUMENT = PredictorSource(PROJECT / "predict.py").openapi()
CHECK = InputCheck(DOCUMENT)
USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "clock"}}
OTHER = {"type": "function", "function": {"name": "clock", "description": "another"}}


def test_inputs_are_written_as_compact_json():
    assert CHECK.written({"prompt": "Hé\u2028", "top_k": 5}) == '{"prompt":"Hé\u2028","top_k":5}'.encode()


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"top_k": "x"}, "input.top_k: 'x' is not of type 'integer'"),
        ({"temperature": 9}, "input.temperature: 9 is greater than the maximum"),
        ({"max_tokens": -1}, "input.max_tokens: -1 is less than the minimum of 0"),
        ({"colour": 1}, "input.colour: is not an input of this model"),
    ],
)
def test_what_the_document_does_not_allow_is_named(inputs, problem):
    with pytest.raises(Problem, match=problem) as refused:
        CHECK.written(inputs, status=422, at="input.")
    assert refused.value.status == 422


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"prompt": "", "messages": []},
        {"messages": [{"role": "root", "content": "Hi"}]},
        {"messages": [USER], "continue_final_message": True},
        {"prompt": "Hi", "prompt_token_ids": [1]},
        {"messages": [{"role": "tool", "content": "Hi"}]},
        {"messages": [USER], "tools": [TOOL, OTHER]},
        {"messages": [USER], "tools": [TOOL], "tool_choice": "nothing"},
        {"messages": [USER], "tool_choice": "required"},
        {"messages": [USER], "prompt_template": "{prompt}"},
        {"messages": [USER], "json_schema": {"type": 3}},
        {"prompt": "Hi", "min_tokens": 9, "max_tokens": 3},
        {"prompt": "Hi", "prompt_template": "{{ 7 * 7 }}"},
        {"prompt": "Hi", "top_p": 0},
    ],
    ids=json.dumps,
)
def test_the_words_are_those_of_the_server(inputs):
    names = DOCUMENT["components"]["schemas"]["Input"]["properties"]
    with pytest.raises(RequestError) as server:
        Request.from_inputs(**{**{name: each.get("default") for name, each in names.items()}, **inputs})
    with pytest.raises(Problem) as gateway:
        CHECK.conversation(inputs)
    assert (gateway.value.status, gateway.value.code) == (400, server.value.code)
    assert gateway.value.message == str(server.value)


@pytest.mark.parametrize(
    ("inputs", "param", "said"),
    [
        (
            {"messages": [USER, {"role": "root", "content": "Hi"}]},
            "input[4].role",
            "E1005 BadMessages: input[4].role is",
        ),
        ({"messages": [USER, {"role": "user", "content": 5}]}, "input[4].content", "input[4].content has to be text"),
        ({"messages": [USER], "continue_final_message": True}, "continue_final_message", "E1005 BadMessages: continue"),
        ({"messages": [USER], "tools": [TOOL, OTHER]}, "functions", "E1006 BadTools: tools[1]"),
        ({"messages": [USER], "json_schema": {"type": 3}}, "format", "E1007 BadJsonSchema: json_schema"),
        ({"messages": [USER], "top_p": 0}, None, "E1008"),
    ],
)
def test_a_problem_names_what_the_client_sent(inputs, param, said):
    params = PARAMS | {"E1006": "functions", "E1007": "format"}
    with pytest.raises(Problem) as refused:
        CHECK.conversation(inputs, params, {"messages[0]": "input[0]", "messages[1]": "input[4]"})
    assert refused.value.param == param
    assert said in refused.value.message


def test_a_model_with_other_inputs_is_left_to_itself():
    other = {"components": {"schemas": {"Input": {"type": "object", "properties": {"prompt": {"type": "string"}}}}}}
    InputCheck(other).conversation({})
