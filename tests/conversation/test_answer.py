"""What is recorded of an answer, beside its text."""

import pytest
from fakes import request

from hermes.conversation.answer import typed_record

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
        "finish_reason": "stop",
    }


def test_of_an_answer_that_was_broken_off_what_is_whole_is_recorded():
    bad = {"text": CALL[12:40], "problem": "cut off before its end", "name": None}
    assert record(CALL + CALL[:40], None, tools=[WEATHER]) == {"tool_calls": [READ], "tool_call_errors": [bad]}


def test_where_no_call_was_wanted_none_is_read():
    assert record(CALL, "stop", tools=[WEATHER], tool_choice="none") == {
        "tool_calls": [],
        "tool_call_errors": [],
        "finish_reason": "stop",
    }


@pytest.mark.parametrize(
    ("text", "finish_reason", "valid"),
    [
        pytest.param('{"a": 1}', "stop", True, id="valid"),
        pytest.param(' {"a": 1}\n', "length", True, id="whole before it was cut"),
        pytest.param('{"a": "1"}', "stop", False, id="not of the schema"),
        pytest.param('{"a": 1', "length", False, id="cut"),
        pytest.param("", "length", False, id="nothing"),
        pytest.param("[" * 9999, "length", False, id="nested too deeply"),
    ],
)
def test_json_is_checked_against_its_schema(text, finish_reason, valid):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert record(text, finish_reason, json_schema=schema) == {"json_valid": valid, "finish_reason": finish_reason}


@pytest.mark.parametrize(
    ("text", "finish_reason", "stop_sequences", "valid"),
    [
        pytest.param("12345", "length", None, False, id="a number at max_tokens"),
        pytest.param("-1.5", "timeout", None, False, id="a number when the time is over"),
        pytest.param("1234", "stop", "END,5", False, id="a number at a stop sequence that it may hold"),
        pytest.param("1234", "stop", "END", True, id="a number that the model ended"),
        pytest.param("12345", "stop", None, True, id="a number"),
        pytest.param("true", "length", None, True, id="a word is whole"),
        pytest.param('"12"', "length", None, True, id="a text is whole"),
        pytest.param("[12]", "length", None, True, id="a list is whole"),
    ],
)
def test_a_number_is_whole_only_where_the_model_ended_it(text, finish_reason, stop_sequences, valid):
    found = record(text, finish_reason, json_schema={}, stop_sequences=stop_sequences)
    assert found == {"json_valid": valid, "finish_reason": finish_reason}


def test_json_that_was_broken_off_is_not_judged():
    assert record('{"a": 1', None, json_schema={}) == {}
