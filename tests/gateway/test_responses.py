"""Requests of OpenAI's responses as inputs of predict.py."""

import json

import pytest
from pydantic import ValidationError

from hermes.devserver import PROJECT, PredictorSource
from hermes.gateway.fields import without_nulls
from hermes.gateway.inputs import InputCheck
from hermes.gateway.problems import Problem
from hermes.gateway.responses_requests import ResponsesRequest
from tests.support.alone import Kept

CHECK = InputCheck(PredictorSource(PROJECT / "predict.py").openapi())
USER = {"role": "user", "content": "Hi"}
FLAT = {"type": "function", "name": "clock", "parameters": {"type": "object", "properties": {}}}
SCHEMA = {"type": "array"}
CALL = {"type": "function_call", "call_id": "c1", "name": "clock", "arguments": "{}", "status": "completed"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "noon"}
SAID = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me look."}]}
CALLED = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}


def parsed(kept=None, **body):
    request = ResponsesRequest.model_validate(without_nulls({"model": "m", "input": "Hi", **body}))
    return request.looked_up(kept or Kept()).parsed(CHECK)


def inputs(kept=None, **body):
    return json.loads(parsed(kept, **body).inputs_of(0))


def echo(**body):
    return json.loads(b"{" + parsed(**body).echo + b"}")


def messages(*items, **body):
    return inputs(input=list(items), **body)["messages"]


def test_a_response_answers_a_conversation():
    turns = messages(USER, {"type": "reasoning"}, SAID, CALL, OUTPUT, instructions="Be brief.")
    assert turns == [
        {"role": "system", "content": "Be brief."},
        USER,
        {"role": "assistant", "content": "Let me look.", "tool_calls": [CALLED]},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
    ]


def test_what_the_gateway_wrote_can_be_sent_back_as_it_is():
    called = {"role": "assistant", "content": "Let me look.", "tool_calls": [CALLED]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "noon"}
    assert messages(USER, CALL, SAID, OUTPUT) == [USER, called, result]
    assert messages(USER, CALL, USER, OUTPUT) == [USER, called | {"content": ""}, result, USER]


def test_a_call_that_was_cut_is_taken_as_far_as_it_came():
    for text, arguments in (('{"zone": "Os', {"zone": "Os"}), ('{"zone', {}), ("", {}), ('{"a": [1, 2', {"a": [1, 2]})):
        cut = CALL | {"arguments": text, "status": "incomplete"}
        [_, turn, _] = messages(USER, cut, USER)
        assert turn["tool_calls"][0]["function"]["arguments"] == (arguments if text else {})


@pytest.mark.parametrize(
    ("items", "turns"),
    [
        ([{"type": "web_search_call", "id": "ws_1", "status": "completed"}], []),
        ([{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}], []),
        ([{"type": "local_shell_call_output", "id": "gone", "output": "x"}], []),
        ([{"type": "local_shell_call_output", "call_id": ["gone"], "output": "x"}], []),
        (
            [
                {"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": "a"},
                {"type": "custom_tool_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "b"}]},
            ],
            [("patch", {"input": "a"}), "b"],
        ),
        (
            [
                {"type": "local_shell_call", "call_id": "c1", "id": "lsh", "action": {"command": ["ls"]}},
                {"type": "local_shell_call_output", "call_id": "c1", "output": "a.txt"},
            ],
            [("local_shell", {"action": {"command": ["ls"]}}), "a.txt"],
        ),
        (
            [{"type": "mcp_call", "id": "c1", "name": "find", "arguments": '{"q":1}', "output": "it"}],
            [("find", '{"q":1}'), "it"],
        ),
    ],
)
def test_what_another_server_wrote_is_read_or_skipped(items, turns):
    found = []
    for turn in messages(USER, *items)[1:]:
        functions = [call["function"] for call in turn.get("tool_calls", [])]
        found += [(call["name"], call["arguments"]) for call in functions] or [turn["content"]]
    assert found == turns


@pytest.mark.parametrize(
    ("items", "said", "param"),
    [
        ([USER, OUTPUT], r"input\[1\] is the output of the call 'c1', which is not in the conversation", "input[1]"),
        ([USER, CALL, OUTPUT, OUTPUT], r"input\[3\] .* has its output already", "input[3]"),
        ([{"type": "compaction", "encrypted_content": "x"}], r"input\[0\]: is 'compaction'", "input[0]"),
        ([CALL, OUTPUT | {"output": 5}], r"input\[1\]\.output: has to be text", "input[1].output"),
        ([], "input: is empty", "input"),
        ("", "input: is empty", "input"),
        ([{"role": "user", "content": [{"type": "input_image"}]}], r"input\[0\]\.content\[0\]: is 'input_image'", None),
    ],
)
def test_an_item_that_cannot_be_read_is_named(items, said, param):
    with pytest.raises(Problem, match=said) as refused:
        parsed(input=items)
    assert refused.value.status == 400
    assert param in (None, refused.value.param)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"type": "xml"}, "text.format: is 'xml'"),
        ({"type": "json_schema"}, "text.format: has no JSON schema"),
        ({"type": "json_schema", "schema": {"type": 5}}, "E1007"),
    ],
)
def test_a_format_that_cannot_be_had_is_refused_by_the_field_that_has_it(form, said):
    with pytest.raises(Problem, match=said) as refused:
        parsed(text={"format": form})
    assert refused.value.param == "text.format"


@pytest.mark.parametrize("name", ResponsesRequest.misplaced)
def test_a_field_of_another_api_is_refused_with_what_to_send(name):
    with pytest.raises(Problem, match=f"^{name}: ") as refused:
        parsed(**{name: "x"})
    assert (refused.value.param, refused.value.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}}, {"json_schema": SCHEMA}),
        ({"truncation": "auto"}, {"truncate": "oldest_turns"}),
        ({"tools": [FLAT], "tool_choice": FLAT}, {"tools": [FLAT], "tool_choice": "clock"}),
        ({"tools": [FLAT], "parallel_tool_calls": False}, {"parallel_tool_calls": False}),
        ({"max_output_tokens": 9}, {"max_tokens": 9}),
        ({"stop": "END"}, {"stop": ["END"]}),
        ({"temperature": 0.5, "top_k": 3}, {"temperature": 0.5, "top_k": 3}),
    ],
)
def test_each_parameter_has_its_input(given, expected):
    assert inputs(**given) | expected == inputs(**given)


PATCH = {"type": "custom", "name": "patch", "description": "Patches."}
SPACE = {"type": "namespace", "name": "agents", "tools": [FLAT]}
GRAMMAR = PATCH | {"format": {"type": "grammar", "syntax": "lark", "definition": "x"}}


def test_a_custom_tool_is_a_function_with_one_text():
    [tool] = inputs(tools=[PATCH])["tools"]
    assert (tool["type"], tool["name"], tool["description"]) == ("function", "patch", "Patches.")
    assert tool["parameters"]["required"] == ["input"]
    assert inputs(tools=[PATCH], tool_choice={"type": "custom", "name": "patch"})["tool_choice"] == "patch"
    assert parsed(tools=[PATCH]).custom == {"patch"}


@pytest.mark.parametrize("tool", [SPACE, GRAMMAR, {"type": "web_search_preview_2025_03_11"}, {"type": "mcp"}])
def test_what_runs_elsewhere_is_left_out_beside_functions_and_the_response_says_so(tool):
    assert inputs(tools=[tool, FLAT])["tools"] == [FLAT]
    said = echo(tools=[tool, FLAT], metadata={"k": "v"})
    assert [each["name"] for each in said["tools"]] == ["clock"]
    assert said["metadata"]["k"] == "v"
    assert tool["type"] in said["metadata"]["hermes_warning"]
    full = {str(n): "x" for n in range(16)}
    assert echo(tools=[tool, FLAT], metadata=full)["metadata"] == full
    with pytest.raises(Problem, match="which the gateway cannot run; send functions") as refused:
        parsed(tools=[tool])
    assert refused.value.param == "tools[0]"


def test_the_warning_is_no_longer_than_metadata_may_be():
    many = [{"type": "namespace", "name": f"{n}" * 50} for n in range(50)]
    assert len(echo(tools=[*many, FLAT])["metadata"]["hermes_warning"]) == 512


@pytest.mark.parametrize(
    ("choice", "tools", "said"),
    [
        ("required", [], "there are no tools"),
        ({"type": "web_search"}, [FLAT], "has to be auto, none, required, or name one function"),
        ({"type": "function", "name": "other"}, [FLAT], "there is no tool 'other'"),
        ({"type": "allowed_tools", "mode": "auto", "tools": [FLAT | {"name": "x"}]}, [FLAT], "no tool 'x'"),
    ],
)  # fmt: skip
def test_a_choice_that_cannot_be_had_is_refused(choice, tools, said):
    with pytest.raises(Problem, match=said) as refused:
        parsed(tools=tools, tool_choice=choice)
    assert refused.value.param == "tool_choice"


def test_allowed_tools_are_those_that_can_be_called():
    listed = [{"type": "function", "name": "clock"}, {"type": "web_search"}]
    choice = {"type": "allowed_tools", "mode": "required", "tools": listed}
    given = inputs(tools=[FLAT, FLAT | {"name": "other"}, {"type": "web_search"}], tool_choice=choice)
    assert (given["tools"], given["tool_choice"]) == ([FLAT], "required")


def test_a_tool_of_an_unknown_type_is_refused():
    with pytest.raises(Problem, match=r"tools\[1\]: is 'hammer'"):
        parsed(tools=[FLAT, {"type": "hammer"}])


def test_a_response_has_what_its_request_left_out():
    said = echo(tools=[{"type": "function", "name": "clock"}])
    assert said["tools"] == [
        {"type": "function", "name": "clock", "description": None, "parameters": None, "strict": True}
    ]
    assert (said["temperature"], said["top_p"], said["presence_penalty"], said["top_logprobs"]) == (1.0, 1.0, 0.0, 0)
    assert said["text"] == {"format": {"type": "text"}}
    assert said["reasoning"] == {"effort": None, "summary": None}
    assert (said["service_tier"], said["background"], said["metadata"]) == ("default", False, {})


def test_references_are_replaced_by_what_is_kept():
    kept = Kept({"resp_1": [USER | {"type": "message"}, CALL]}, {"msg_1": SAID})
    turns = inputs(kept, previous_response_id="resp_1", input=[OUTPUT, {"type": "item_reference", "id": "msg_1"}, USER])
    assert [turn["role"] for turn in turns["messages"]] == ["user", "assistant", "tool", "assistant", "user"]
    assert inputs(kept, input=[{"id": "msg_1"}, USER])["messages"][0]["content"] == "Let me look."
    with pytest.raises(Problem, match="there is no 'msg_2'"):
        parsed(kept, input=[{"type": "item_reference", "id": "msg_2"}])


def test_the_instructions_of_an_earlier_response_are_not_those_of_the_next():
    kept = Kept({"resp_1": [USER | {"type": "message"}, SAID]})
    assert [turn["role"] for turn in inputs(kept, previous_response_id="resp_1")["messages"]] == [
        "user",
        "assistant",
        "user",
    ]


def test_what_is_kept_of_a_request_has_ids():
    found = parsed(input=[USER, SAID | {"id": "msg_1"}, CALL, OUTPUT])
    kept = json.loads(found.conversation)
    assert [item["id"].partition("_")[0] for item in kept] == ["msg", "msg", "fc", "fco"]
    assert kept[0] | {"id": ""} == {
        "id": "",
        "status": "completed",
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "Hi"}],
    }
    assert found.before == 0
    assert found.size > len(found.conversation)
    assert parsed(input="Hi", store=False).conversation == b""


@pytest.mark.parametrize("metadata", [{"k": "x" * 513}, {"k" * 65: "x"}, {str(n): "x" for n in range(17)}, {"k": 1}])
def test_metadata_has_openais_limits(metadata):
    with pytest.raises(ValidationError):
        parsed(metadata=metadata)


def test_probabilities_cannot_be_included():
    with pytest.raises(Problem) as refused:
        parsed(include=["message.output_text.logprobs"])
    assert refused.value.param == "include"
    assert inputs(include=["reasoning.encrypted_content", "file_search_call.results"]) == inputs()
