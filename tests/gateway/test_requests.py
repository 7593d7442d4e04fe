"""OpenAI's requests as inputs of predict.py."""

import pytest
from pydantic import ValidationError

from hermes.client.cog import given
from hermes.gateway.openai_requests import ChatRequest, CompletionRequest, several
from hermes.gateway.problems import Problem
from hermes.gateway.responses_api import ResponsesRequest

USER = {"role": "user", "content": "Hi"}
NAMED = {"type": "function", "function": {"name": "clock"}}
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
OPEN = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}


def chat(**body):
    return ChatRequest.model_validate(given({"model": "m", "messages": [USER], **body})).inputs()


def responses(**body):
    return ResponsesRequest.model_validate(given({"model": "m", "input": "Hi", **body})).inputs()


def test_what_is_left_out_is_openais_default_and_no_small_limit():
    expected = OPEN | {"max_tokens": 131_072, "system_prompt": "", "messages": [USER]}
    assert chat() == expected
    assert chat(temperature=None, stop=None, tools=None, max_tokens=None, response_format=None, seed=None) == expected


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 7}, {"max_tokens": 7}),
        ({"max_completion_tokens": 10**9}, {"max_tokens": 131_072}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"top_p": 0}, {"temperature": 0.0, "top_p": 1.0}),
        ({"seed": -1}, {"seed": 2**53 - 1}),
        ({"stop": "END"}, {"stop": ["END"]}),
        ({"stop": ["a", "b,c"]}, {"stop": ["a", "b,c"]}),
        ({"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "min_tokens": 3, "timeout": 9.0}, None),
        ({"truncate": "oldest_turns"}, None),
        ({"tools": [TOOL]}, {"tools": [TOOL], "tool_choice": "auto"}),
        ({"tools": [TOOL], "tool_choice": "required"}, {"tools": [TOOL], "tool_choice": "required"}),
        ({"tools": [TOOL], "tool_choice": NAMED}, {"tools": [TOOL], "tool_choice": "clock"}),
        ({"tools": [], "tool_choice": "auto"}, {}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"json_schema": {"type": "object"}}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}},
            {"json_schema": {"type": "array"}},
        ),
        ({"logprobs": False, "logit_bias": {}, "user": "me", "store": True, "unknown": {}}, {}),
    ],
)
def test_each_parameter_has_its_input(given, inputs):
    assert chat(**given) == chat() | (given if inputs is None else inputs)


@pytest.mark.parametrize(
    ("messages", "turns"),
    [
        ([{"role": "developer", "content": "Be brief."}, USER], [{"role": "system", "content": "Be brief."}, USER]),
        (
            [{"role": "system", "content": "A"}, {"role": "developer", "content": "B"}, USER],
            [{"role": "system", "content": "A\n\nB"}, USER],
        ),
        ([{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "input_text", "text": "i"}]}], [USER]),
        ([USER | {"name": None}], [USER]),
        (
            [
                USER,
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
                {"role": "tool", "content": "x"},
            ],
            [USER, {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}, {"role": "tool", "content": "x"}],
        ),
        ([USER, {"role": "assistant"}, USER], [USER, {"role": "assistant", "content": ""}, USER]),
    ],
)
def test_messages_are_those_of_predict_py(messages, turns):
    assert chat(messages=messages)["messages"] == turns


@pytest.mark.parametrize("part", [{"text": None}, {"text": {"a": 1}}, {}, {"text": ["Hi"]}])
def test_a_part_without_a_text_is_named(part):
    parts = [{"type": "text", "text": "Hi"}, {"type": "text", **part}]
    with pytest.raises(Problem, match=r"messages\[0\]\.content\[1\]\.text: has to be a string"):
        chat(messages=[{"role": "user", "content": parts}])


SCHEMA_FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("none", {"json_schema"}),
        ("required", {"tools", "tool_choice"}),
        ("auto", {"tools", "tool_choice", "json_schema"}),
    ],
)
def test_of_tools_and_a_schema_only_what_can_come_is_sent(choice, names):
    assert chat(tools=[TOOL], tool_choice=choice, response_format=SCHEMA_FORMAT).keys() - chat().keys() == names


def test_completions_are_raw_prompts():
    asked = CompletionRequest.model_validate({"model": "m", "prompt": "Once", "max_tokens": 4})
    assert asked.prompt == ["Once"]
    assert asked.inputs("Once") == OPEN | {"max_tokens": 4, "prompt": "Once", "prompt_template": "{prompt}"}


@pytest.mark.parametrize("more", [{"echo": True}, {"suffix": "x"}, {"best_of": 2}, {"logprobs": 3}])
def test_what_completions_cannot_do_is_refused(more):
    with pytest.raises(Problem):
        CompletionRequest.model_validate({"model": "m", "prompt": "Once", **more}).inputs("Once")


def test_responses_are_conversations():
    call = {"type": "function_call", "call_id": "c1", "name": "clock", "arguments": "{}", "status": "completed"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "noon"}
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me look."}]}
    inputs = responses(
        instructions="Be brief.", input=[USER, {"type": "reasoning"}, said, call, output], max_output_tokens=9
    )
    written = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    assert inputs["messages"] == [
        {"role": "system", "content": "Be brief."},
        USER,
        {"role": "assistant", "content": "Let me look.", "tool_calls": [written]},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
    ]
    assert inputs["max_tokens"] == 9


FLAT = {"type": "function", "name": "clock"}
SCHEMA = {"type": "array"}


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}}, {"json_schema": SCHEMA}),
        ({"truncation": "auto"}, {"truncate": "oldest_turns"}),
        ({"tools": [FLAT], "tool_choice": FLAT}, {"tools": [FLAT], "tool_choice": "clock"}),
    ],
)
def test_each_parameter_of_responses_has_its_input(given, inputs):
    assert responses(**given) == responses() | inputs


@pytest.mark.parametrize("name", ["previous_response_id", "conversation"])
def test_responses_have_no_memory(name):
    with pytest.raises(Problem, match="keeps no responses") as refused:
        responses(**{name: "resp_1"})
    assert refused.value.param == name


@pytest.mark.parametrize("metadata", [{"k": "x" * 513}, {"k" * 65: "x"}, {str(n): "x" for n in range(17)}, {"k": 1}])
def test_metadata_has_openais_limits(metadata):
    with pytest.raises(ValidationError):
        responses(metadata=metadata)


def test_tools_of_openai_itself_are_refused():
    with pytest.raises(Problem, match="'web_search'; only functions can be called"):
        responses(tools=[{"type": "web_search"}])


def test_each_of_several_answers_has_a_seed_of_its_own():
    assert several({"seed": 2**53 - 1}, b"as it is", 3) == [b"as it is", b'{"seed":0}', b'{"seed":1}']
    assert several({"prompt": "Hi"}, b"as it is", 2) == [b"as it is"] * 2
