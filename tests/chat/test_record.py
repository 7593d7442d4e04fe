"""What is recorded of an answer, beside its text."""

import json

import pytest

from hermes.chat.record import typed_record
from tests.support.fakes import request

CALL = '<tool_call>\n{"arguments": {"city": "Oslo"}, "name": "weather"}\n</tool_call>'
WEATHER = {"name": "weather", "parameters": {"properties": {"city": {"type": "string"}}, "required": ["city"]}}
READ = {"name": "weather", "arguments": {"city": "Oslo"}}


def record(text, finish_reason, **inputs):
    return dict(typed_record(request(**inputs), text, finish_reason))


@pytest.mark.parametrize("finish_reason", ["stop", "length"])
def test_of_plain_text_the_finish_reason_is_recorded(finish_reason):
    assert record(CALL, finish_reason) == {"finish_reason": finish_reason}
    assert record(CALL, None) == {}


@pytest.mark.parametrize(
    ("text", "finish_reason", "calls", "recorded"),
    [
        pytest.param(CALL, "stop", [READ], "tool_calls", id="a call"),
        pytest.param("Hello", "stop", [], "stop", id="no call"),
        pytest.param(CALL, "length", [READ], "length", id="a call, and more may have come"),
    ],
)
def test_calls_are_recorded_and_are_a_reason_to_finish(text, finish_reason, calls, recorded):
    assert record(f"So: {text}", finish_reason, tools=[WEATHER]) == {
        "tool_calls": calls,
        "tool_call_errors": [],
        "tools_unenforced": {},
        "finish_reason": recorded,
    }


def test_a_broken_call_is_an_error_and_no_reason_to_finish():
    assert record(CALL.replace('"Oslo"', "5"), "stop", tools=[WEATHER]) == {
        "tool_calls": [],
        "tool_call_errors": [
            {
                "text": '{"arguments": {"city": 5}, "name": "weather"}',
                "problem": "$.city: expected string, got 5",
                "name": "weather",
            }
        ],
        "tools_unenforced": {},
        "finish_reason": "stop",
    }


def test_of_an_answer_that_was_broken_off_what_is_whole_is_recorded():
    bad = {"text": CALL[12:40], "problem": "cut off before its end", "name": None}
    assert record(CALL + CALL[:40], None, tools=[WEATHER]) == {
        "tool_calls": [READ],
        "tool_call_errors": [bad],
        "tools_unenforced": {},
    }


def test_where_no_call_was_wanted_none_is_read():
    assert record(CALL, "stop", tools=[WEATHER], tool_choice="none") == {
        "tool_calls": [],
        "tool_call_errors": [],
        "tools_unenforced": {},
        "finish_reason": "stop",
    }


SCHEMA = {"type": "object", "properties": {"say": {"type": "string"}}, "required": ["say"]}
NO_CALLS = {"tool_calls": [], "tool_call_errors": [], "tools_unenforced": {}, "json_unenforced": []}
CALLED = {**NO_CALLS, "tool_calls": [READ], "finish_reason": "tool_calls"}


@pytest.mark.parametrize(
    ("text", "choice", "recorded"),
    [
        pytest.param(CALL, "auto", CALLED, id="a call"),
        pytest.param(
            json.dumps({"say": CALL}),
            "auto",
            {**NO_CALLS, "json_valid": True, "finish_reason": "stop"},
            id="a document with the text of a call",
        ),
        pytest.param(
            "{}",
            "none",
            {
                **NO_CALLS,
                "json_valid": False,
                "json_problem": "$: 'say' is missing",
                "finish_reason": "stop",
            },
            id="no call wanted",
        ),
        pytest.param(
            CALL,
            "required",
            {name: value for name, value in CALLED.items() if name != "json_unenforced"},
            id="the schema is not used",
        ),
        pytest.param(
            "",
            "auto",
            {
                **NO_CALLS,
                "json_valid": False,
                "json_problem": "$: is not JSON: Expecting value: line 1 column 1 (char 0)",
                "finish_reason": "stop",
            },
            id="neither",
        ),
    ],
)
def test_beside_tools_the_first_character_says_whether_it_is_json(text, choice, recorded):
    assert record(text, "stop", tools=[WEATHER], json_schema=SCHEMA, tool_choice=choice) == recorded


def test_of_tools_and_json_each_has_its_own_list_of_what_the_grammar_left_out():
    unique = {"type": "object", "properties": {"tags": {"type": "array", "uniqueItems": True}}}
    found = record("{}", "stop", tools=[{"name": "json_schema", "parameters": unique}], json_schema=SCHEMA)
    assert found["tools_unenforced"] == {"json_schema": ["$.properties.tags.uniqueItems"]}
    assert found["json_unenforced"] == []


@pytest.mark.parametrize(
    ("text", "finish_reason", "problem"),
    [
        pytest.param('{"a": 1}', "stop", None, id="valid"),
        pytest.param(' {"a": 1}\n', "length", None, id="whole before it was cut"),
        pytest.param('{"a": "1"}', "stop", "$.a: expected integer, got '1'", id="not of the schema"),
        pytest.param('{"a": 1', "length", "$: is not JSON: it was cut off", id="cut"),
        pytest.param(
            '{"a" 1}', "stop", "$: is not JSON: Expecting ':' delimiter: line 1 column 6 (char 5)", id="no JSON"
        ),
        pytest.param("", "length", "$: is not JSON: it was cut off", id="nothing"),
        pytest.param("[" * 9999, "timeout", "$: is not JSON: it was cut off", id="nested too deeply"),
    ],
)
def test_json_is_checked_against_its_schema(text, finish_reason, problem):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert record(text, finish_reason, json_schema=schema) == {
        "json_unenforced": [],
        "json_valid": problem is None,
        **({"json_problem": problem} if problem else {}),
        "finish_reason": finish_reason,
    }


CUT = "$: the number may have been cut off"


@pytest.mark.parametrize(
    ("text", "finish_reason", "problem"),
    [
        pytest.param("12345", "length", CUT, id="a number at max_tokens"),
        pytest.param("-1.5", "timeout", CUT, id="a number when the time is over"),
        pytest.param("12345", "stop", None, id="a number"),
        pytest.param("true", "length", None, id="a word is whole"),
        pytest.param('"12"', "length", None, id="a text is whole"),
        pytest.param("[12]", "length", None, id="a list is whole"),
    ],
)
def test_a_number_is_whole_only_where_the_model_ended_it(text, finish_reason, problem):
    found = record(text, finish_reason, json_schema={}, stop_sequences="5")
    assert (found["json_valid"], found.get("json_problem")) == (problem is None, problem)


@pytest.mark.parametrize("schema", [{"name": "John", "age": 3}, {"title": "Dune"}, {"nullable": True}])
def test_a_schema_that_restricts_nothing_is_said_to_do_so_beside_valid_json(schema):
    found = record("5", "stop", json_schema=schema)
    assert found["json_valid"]
    assert found["json_problem"].startswith("$: no keyword of the schema restricts the response")
    assert "not JSON" in record("{", "stop", json_schema=schema)["json_problem"]


@pytest.mark.parametrize("schema", [{}, {"type": "object"}, {"minLength": 1}])
def test_a_schema_that_was_chosen_so_is_not(schema):
    assert "json_problem" not in record("{}", "stop", json_schema=schema)


def test_a_call_of_a_tool_whose_schema_is_not_valid_is_checked_by_the_rest_of_it():
    parameters = {"type": "object", "properties": {"path": {"type": "file"}, "days": {"type": "integer"}}}
    tools = [{"name": "f", "parameters": parameters}]
    texts = [
        f'<tool_call>{{"arguments": {{"path": 5, "days": {days}}}, "name": "f"}}</tool_call>' for days in (2, '"x"')
    ]
    good, bad = (record(text, "stop", tools=tools) for text in texts)
    assert good["tools_unenforced"] == {"f": ["$.properties.path.type"]}
    assert [each["name"] for each in good["tool_calls"]] == ["f"]
    assert [each["problem"] for each in bad["tool_call_errors"]] == ["$.days: expected integer, got 'x'"]


def test_json_that_was_broken_off_is_not_judged():
    assert record('{"a": 1', None, json_schema={}) == {"json_unenforced": []}


def test_what_the_grammar_left_out_is_named_and_checked_afterwards():
    schema = {"type": "object", "properties": {"tags": {"type": "array", "uniqueItems": True}}}
    left_out = ["$.properties.tags.uniqueItems"]
    found = record('{"tags": [1, 1]}', "stop", json_schema=schema)
    assert found["json_unenforced"] == left_out
    assert (found["json_valid"], found["json_problem"]) == (False, "$.tags: [1, 1] has the same item twice")
    call = CALL.replace('{"city": "Oslo"}', '{"tags": [1, 1]}')
    found = record(call, "stop", tools=[{"name": "weather", "parameters": schema}, {"name": "clock"}])
    assert found["tools_unenforced"] == {"weather": left_out}
    assert [each["problem"] for each in found["tool_call_errors"]] == ["$.tags: [1, 1] has the same item twice"]


@pytest.mark.parametrize(
    ("draft", "schema"),
    [
        ("http://json-schema.org/draft-04/schema#", {"minimum": 0, "exclusiveMinimum": True}),
        ("http://json-schema.org/draft-06/schema", {"exclusiveMinimum": 0}),
        ("http://json-schema.org/draft-07/schema#", {"if": {"const": 0}, "then": False}),
        ("https://json-schema.org/draft/2019-09/schema", {"exclusiveMinimum": 0}),
        ("https://json-schema.org/draft/2020-12/schema", {"exclusiveMinimum": 0}),
        (None, {"minimum": 0, "exclusiveMinimum": True}),  # which only draft 4 has
    ],
)
def test_a_schema_is_read_in_its_own_draft(draft, schema):
    schema |= {"$schema": draft} if draft else {}
    assert [record(text, "stop", json_schema=schema)["json_valid"] for text in ("1", "0")] == [True, False]
