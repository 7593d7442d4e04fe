"""OpenAI's requests as inputs of predict.py."""

import json

import pytest
from pydantic import ValidationError

from hermes.devserver import PROJECT, PredictorSource
from hermes.gateway.chat_messages import messages_of
from hermes.gateway.chat_requests import ChatRequest
from hermes.gateway.completion_requests import CompletionRequest
from hermes.gateway.fields import without_nulls
from hermes.gateway.inputs import InputCheck
from hermes.gateway.problems import Problem, of_invalid

CHECK = InputCheck(PredictorSource(PROJECT / "predict.py").openapi())
USER = {"role": "user", "content": "Hi"}
NAMED = {"type": "function", "function": {"name": "clock"}}
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
OTHER = {"type": "function", "function": {"name": "other"}}
OPEN = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}


def named(name):
    return {"type": "function", "function": {"name": name}}


def allowed(mode, *tools):
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}


def chat(**body):
    request = ChatRequest.model_validate(without_nulls({"model": "m", "messages": [USER], **body}))
    return request.inputs(messages_of(request.messages).messages)


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
        ({"max_tokens": 5, "ignore_eos": True}, {"max_tokens": 5, "min_tokens": 5}),
        ({"ignore_eos": True}, {"min_tokens": 131_072}),  # the server lowers both to the room in the context
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
        ({"response_format": {"type": "json_object", "schema": {"type": "array"}}}, {"json_schema": {"type": "array"}}),
        ({"structured_outputs": {"json": {"type": "array"}}}, {"json_schema": {"type": "array"}}),
        ({"structured_outputs": {"json": '{"type": "array"}'}}, {"json_schema": {"type": "array"}}),
        ({"structured_outputs": {"json_object": True}}, {"json_schema": {"type": "object"}}),
        ({"guided_json": {"type": "array"}}, {"json_schema": {"type": "array"}}),
        ({"logprobs": False, "logit_bias": {}, "user": "me", "store": True, "unknown": {}}, {}),
        ({"continue_final_message": True, "add_generation_prompt": False}, {"continue_final_message": True}),
        ({"continue_final_message": False, "add_generation_prompt": True}, {}),
        ({"tools": [TOOL], "parallel_tool_calls": True}, {"tools": [TOOL], "tool_choice": "auto"}),
        (
            {"tools": [TOOL], "parallel_tool_calls": False},
            {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
        ),
        ({"parallel_tool_calls": False, "tool_choice": "none"}, {}),
        ({"tools": [TOOL, OTHER], "tool_choice": allowed("auto", NAMED)}, {"tools": [TOOL], "tool_choice": "auto"}),
        (
            {"tools": [TOOL, OTHER], "tool_choice": allowed("required", NAMED, OTHER)},
            {"tools": [TOOL, OTHER], "tool_choice": "required"},
        ),
        # null is absent, but for what is data
        ({"stream_options": {"include_usage": None}, "response_format": {"type": None}}, {}),
        ({"structured_outputs": {"json": None, "regex": None}}, {}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"strict": None, "schema": {"enum": [None]}}}},
            {"json_schema": {"enum": [None]}},
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": None, "parameters": {"const": None}}}]},
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"const": None}}}]}
            | {"tool_choice": "auto"},
        ),
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
        ([USER | {"reasoning": "Hm.", "unknown": 5}], [USER]),
        ([{"role": "user", "content": ["H", {"text": "i"}]}], [USER]),
        ([{"role": "assistant", "content": None, "refusal": "No."}], [{"role": "assistant", "content": "No."}]),
        ([{"role": "system", "content": "A"}], [{"role": "system", "content": "A"}]),
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


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"tools": [OTHER], "tool_choice": NAMED}, "tool_choice"),
        ({"tools": [OTHER], "tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tools": [OTHER], "tool_choice": allowed("auto", NAMED)}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": allowed("none", NAMED)}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": allowed("required")}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"tools": [TOOL, {"type": "custom", "custom": {"name": "clock"}}]}, "tools[1]"),
        ({"add_generation_prompt": False}, "add_generation_prompt"),
        ({"add_generation_prompt": True, "continue_final_message": True}, "add_generation_prompt"),
        ({"ignore_eos": True, "stop": "END"}, "ignore_eos"),
        ({"suffix": "x"}, "suffix"),
        ({"prompt": "x"}, "prompt"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"structured_outputs": {"grammar": ""}}, "structured_outputs.grammar"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"tools": [OTHER], "tool_choice": {}}, "tool_choice"),
        ({"tools": [named("auto")], "tool_choice": named("auto")}, "tool_choice"),
        ({"tools": [named("none")], "tool_choice": named("none")}, "tool_choice"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"response_format": {"json_schema": {"schema": {"type": "array"}}}}, "response_format"),
        ({"response_format": {"type": None, "schema": {"type": "array"}}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"structured_outputs": {"json": 5 * "["}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": 200 * "[" + 200 * "]"}}, "structured_outputs.json"),
        ({"messages": [USER | {"tools": [TOOL]}]}, "messages[0].tools"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
    ],
    ids=lambda each: str(each)[:70],
)
def test_what_chats_cannot_do_is_refused(body, param):
    with pytest.raises(Problem) as refused:
        chat(**body)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_an_error_counts_messages_as_the_client_sent_them():
    system = {"role": "developer", "content": "Be brief."}
    request = ChatRequest.model_validate({"messages": [system, system, USER, {"role": "root", "content": "Hi"}]})
    with pytest.raises(Problem, match=r"E1005 BadMessages: messages\[3\]\.role is 'root'") as refused:
        request.parsed(CHECK)
    assert refused.value.param == "messages[3].role"


def test_a_result_that_is_null_stays():
    messages = [USER, {"role": "assistant", "tool_calls": [{"id": "1", "function": {"arguments": {"a": None}}}]}]
    assert chat(messages=messages)["messages"][1]["tool_calls"][0]["function"] == {"arguments": {"a": None}}


@pytest.mark.parametrize("part", [{"text": None}, {"text": {"value": "Hi"}}, {}, {"text": ["Hi"]}])
def test_a_part_without_a_text_is_named(part):
    parts = [{"type": "text", "text": "Hi"}, {"type": "text", **part}]
    with pytest.raises(Problem, match=r"messages\[0\]\.content\[1\]\.text: has to be a string"):
        chat(messages=[{"role": "user", "content": parts}])


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"messages": [USER, 5]}, "messages[1]"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"guided_json": True}, "guided_json"),
        ({"stop": ["a", 5]}, "stop[1]"),
    ],
)
def test_a_value_of_another_type_is_named_by_its_place(sent, param):
    with pytest.raises(ValidationError) as invalid:
        chat(**sent)
    problem = of_invalid(invalid.value)
    assert (problem.param, problem.message.partition(": ")[0]) == (param, param)


SCHEMA_FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("none", {"tools", "tool_choice", "json_schema"}),
        ("required", {"tools", "tool_choice"}),
        ("auto", {"tools", "tool_choice", "json_schema"}),
    ],
)
def test_of_tools_and_a_schema_only_what_can_come_is_sent(choice, names):
    assert chat(tools=[TOOL], tool_choice=choice, response_format=SCHEMA_FORMAT).keys() - chat().keys() == names


def completion(**body):
    """The inputs of each prediction."""
    request = CompletionRequest.model_validate(without_nulls({"prompt": "Once", **body})).parsed(CHECK)
    return [json.loads(request.inputs_of(number)) for number in range(request.predictions)]


def raw(prompt):
    return OPEN | {"max_tokens": 16, "prompt": prompt, "prompt_template": "{prompt}"}


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        ({}, [raw("Once")]),
        ({"prompt": [""]}, [raw("")]),
        ({"prompt": ["a", "b"], "max_tokens": None}, [raw("a"), raw("b")]),
        ({"max_tokens": 4}, [raw("Once") | {"max_tokens": 4}]),
        ({"response_format": {"type": "json_object"}}, [raw("Once") | {"json_schema": {"type": "object"}}]),
        ({"guided_json": '{"type": "array"}'}, [raw("Once") | {"json_schema": {"type": "array"}}]),
        ({"n": 2, "best_of": 2}, [raw("Once"), raw("Once")]),
    ],
    ids=str,
)
def test_completions_are_raw_prompts(body, inputs):
    assert completion(**body) == inputs


@pytest.mark.parametrize(
    ("prompt", "inputs"),
    [
        ([5, 0], [{"prompt_token_ids": [5, 0]}]),
        ([[5], [0]], [{"prompt_token_ids": [5]}, {"prompt_token_ids": [0]}]),
        (["a", [5]], [{"prompt": "a", "prompt_template": "{prompt}"}, {"prompt_token_ids": [5]}]),
    ],
)
def test_prompts_may_be_token_ids(prompt, inputs):
    assert CompletionRequest.model_validate({"prompt": prompt}).prompts() == inputs


def test_each_of_several_answers_has_a_seed_of_its_own():
    seeds = [(inputs["prompt"], inputs["seed"]) for inputs in completion(prompt=["a", "b"], seed=2**53 - 1, n=2)]
    assert seeds == [("a", 2**53 - 1), ("a", 0), ("b", 2**53 - 1), ("b", 0)]
    assert [inputs["seed"] for inputs in completion(seed=7)] == [7]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": ["a"] * 65, "n": 2}, "n"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt[1]"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [[True]]}, "prompt[0]"),
        ({"prompt": {"text": "Once"}}, "prompt"),
        ({"best_of": 2}, "best_of"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": "[]"}, "guided_json"),
        ({"guided_json": {}, "response_format": {"type": "json_object"}}, "response_format"),
    ],
    ids=lambda each: str(each)[:40],
)
def test_what_completions_cannot_do_is_refused(body, param):
    with pytest.raises(Problem) as refused:
        completion(**body)
    assert refused.value.param == param
