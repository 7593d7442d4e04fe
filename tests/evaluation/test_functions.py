"""Questions of BFCL as requests, and what is counted of the replies."""

import json

import pytest

from evaluation.__main__ import app
from evaluation.asking import Reply
from evaluation.functions import Case, as_json_schema, calls_in, cases, figures
from hermes.cli import main

AREA = {
    "name": "math.area",
    "description": "The area of a triangle.",
    "parameters": {
        "type": "dict",
        "properties": {"base": {"type": "float"}, "units": {"type": "tuple", "items": {"type": "any"}}},
        "required": ["base"],
    },
}
CASE = Case("one", "simple_python", [{"role": "user", "content": "?"}], [AREA], [{"math.area": {"base": [2.0]}}])


def reply(text="", calls=(), **metrics):
    status = "failed" if "error" in metrics else "succeeded"
    error = metrics.pop("error", None)
    return Reply("one", status, text, error, {"tool_calls": list(calls), "finish_reason": "stop", **metrics}, 1.0)


def block(name, **arguments):
    return f'<tool_call>\n{{"arguments": {json.dumps(arguments)}, "name": "{name}"}}\n</tool_call>'


def test_only_the_names_of_types_are_other_in_json_schema():
    assert as_json_schema(AREA["parameters"]) == {
        "type": "object",
        "properties": {"base": {"type": "number"}, "units": {"type": "array", "items": {"type": "string"}}},
        "required": ["base"],
    }


def test_a_property_may_be_called_type():
    assert as_json_schema({"properties": {"type": {"type": "dict", "default": "dict"}}}) == {
        "properties": {"type": {"type": "object", "default": "dict"}}
    }


def test_a_question_is_asked_greedily_with_its_tools():
    question = CASE.asked(seed=3)
    assert (question.id, question.inputs["temperature"], question.inputs["seed"]) == ("one", 0, 3)
    assert question.inputs["tools"][0]["parameters"]["type"] == "object"
    assert question.inputs["tools"][0]["name"] == "math.area"
    assert question.inputs["tool_choice"] == "auto"
    assert CASE.asked(seed=3, required=True).inputs["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("Paris.", []),
        (block("f", a=1) + "\n" + block("g"), [("f", {"a": 1}), ("g", {})]),
        (block("f", a="</tool>") + " and so on", [("f", {"a": "</tool>"})]),
        ("<tool_call>\n{cut", []),
        ("<tool_call>{</tool_call>", []),
        (block("f", a={"b": {}})[:-12], [("f", {"a": {"b": {}}})]),
        (block("f") + block("g", a=2).removeprefix("<tool_call>"), [("f", {}), ("g", {"a": 2})]),
        (block("f") + '\n```\n{"arguments": {}, "name": "g"}\n```', [("f", {})]),
    ],
)
def test_calls_are_read_from_the_text(text, calls):
    assert calls_in(text) == [{"name": name, "arguments": arguments} for name, arguments in calls]


AREA_OF_2 = {"id": "call_0", "name": "math.area", "arguments": {"base": 2}}


@pytest.mark.parametrize(
    ("came", "counted"),
    [
        pytest.param(reply(block("math.area", base=2), [AREA_OF_2]), {"calls": 1}, id="a call"),
        pytest.param(reply("Two."), {}, id="no call"),
        pytest.param(reply(block("math.area", base=2)), {"differing": ["one"]}, id="a call that the metrics lost"),
        pytest.param(reply("", [AREA_OF_2]), {"calls": 1, "differing": ["one"]}, id="a call that nobody wrote"),
        pytest.param(
            reply(block("math.area", base="x"), [{"name": "math.area", "arguments": {"base": "x"}}]),
            {"calls": 1, "invalid": ["one: math.area: $.base: 'x' is not of type 'number'"]},
            id="an invalid call",
        ),
        pytest.param(
            reply(block("f"), [{"name": "f", "arguments": {}}]),
            {"calls": 1, "invalid": ["one: there is no tool f"]},
            id="a call of no tool",
        ),
        pytest.param(
            reply(block("math.area"), [{"name": "math.area", "arguments": {}}], tools_unenforced={"math.area": ["$"]}),
            {"calls": 1, "unenforced": 1},
            id="a call of which a part was not enforced",
        ),
        pytest.param(reply("<tool_call>\n{", finish_reason="length"), {"cut_off": 1}, id="cut off"),
        pytest.param(reply(error="E1006 ..."), {"refused": ["one: E1006 ..."]}, id="refused"),
    ],
)
def test_what_came_of_a_question_is_counted(came, counted):
    found = figures([CASE], {"one": came}, {"one": True})
    empty = {"refused": [], "calls": 0, "unenforced": 0, "invalid": [], "differing": [], "cut_off": 0}
    assert {**vars(found)} == {"questions": 1, "right": 1, **empty, **counted}


def test_questions_are_read_with_their_answers_and_a_sample_is_drawn_by_the_seed(tmp_path):
    (tmp_path / "possible_answer").mkdir()
    questions = [
        {"id": f"x_{n}", "question": [[{"role": "user", "content": str(n)}]], "function": [AREA]} for n in range(9)
    ]
    answers = [{"id": f"x_{n}", "ground_truth": [{"math.area": {"base": [n]}}]} for n in range(9)]
    (tmp_path / "BFCL_v4_x.json").write_text("\n".join(map(json.dumps, questions)))
    (tmp_path / "possible_answer" / "BFCL_v4_x.json").write_text("\n".join(map(json.dumps, answers)))
    assert [case.id for case in cases(tmp_path, "x", None, 0)] == [f"x_{n}" for n in range(9)]
    drawn = cases(tmp_path, "x", 3, 1)
    assert drawn == cases(tmp_path, "x", 3, 1) != cases(tmp_path, "x", 3, 2)
    assert [case.right for case in drawn] == [[{"math.area": {"base": [int(case.id[2:])]}}] for case in drawn]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--category", "simple"], "there is no category simple; there are simple_python, multiple, "),
        (["--wheel", "nowhere"], "bfcl-eval is not in nowhere; `make evaluate` installs it"),
    ],
)
def test_what_has_no_questions_is_misuse_and_no_success(options, said, tmp_path, capsys):
    assert main(["functions", "--out", str(tmp_path), *options], commands=app) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
