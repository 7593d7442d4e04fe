"""Whatever a model writes, its tool calls are read: nothing is raised, however the text is cut, and in good time."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.chat.record import typed_record
from hermes.tool_calls.judge import BadToolCall
from hermes.tool_calls.literal import parse
from hermes.tool_calls.parser import read_tool_calls
from tests.support.fakes import request
from tests.support.hostile import (
    TAGS,
    any_text,
    doubled,
    examples,
    json_texts,
    long,
    mixed,
    nested,
    quiet,
    words,
)
from tests.support.work import at_most

pytestmark = quiet
SCHEMAS = {
    "any": {},
    "weather": {"type": "object", "properties": {"city": {"type": "string", "pattern": "^(a|aa)+$"}}},
    "f": {"type": "object", "properties": {"a": {"enum": [1, "é"]}}, "additionalProperties": False, "required": ["a"]},
}
FRAGMENTS = [
    *('{"name": "any", "arguments": ', '{"arguments": {}, "name": "f"}', '"name"', '"arguments"', "'any'"),
    *('"parameters"', '"type": "object"', '"function": {', "{'a': True}", "[1,]", "None", "NaN", "1e999", "-"),
    *("0" * 401, "1." + "0" * 400, "{" * 70, "[" * 70, "}" * 70, "]" * 70, "```", ":", ","),
    *('"\\ud83d"', '"\\ud83d\\ude00"', "\\u", "\\'", '\\"', "\ud83d"),
    *("<function=weather>", "<function=", "<tool_call>\n", "\n</tool_call>", "<|im_end|>", "&lt;"),
]
fragments = st.sampled_from(FRAGMENTS) | st.sampled_from(TAGS) | words
written = st.one_of(
    st.lists(fragments, max_size=25).map("".join),
    st.builds('<tool_call>{{"name": "any", "arguments": {}}}'.format, json_texts),
    st.builds(lambda before, tag, inside: before + tag + inside, mixed, st.sampled_from(TAGS), mixed | any_text),
)
times = st.builds(lambda start, text, size: start + text * (size // len(text)), written, fragments, st.just(100_000))


@examples(250)
@given(written | any_text, st.booleans())
def test_what_is_found_can_be_kept_and_sent(text, cut):
    reading = read_tool_calls(text, SCHEMAS, cut)
    for call in reading.calls:
        json.dumps(call.arguments, ensure_ascii=False, allow_nan=False).encode()
        assert call.name in SCHEMAS
        assert SCHEMAS[call.name].get("required", []) <= list(call.arguments)
    for bad in reading.bad:
        assert isinstance(bad, BadToolCall)
        assert len(bad.text) <= 210
        assert len(bad.problem) <= 310
        assert len(bad.problem.splitlines()) == 1
        bad.problem.encode()


@examples(20)
@given(times | long.map(lambda text: "<tool_call>" + text) | long)
def test_a_long_text_takes_little_time(text):
    with at_most(4):
        read_tool_calls(text, SCHEMAS)


@examples(200)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join) | any_text | mixed)
def test_a_literal_is_a_value_or_a_problem_of_one_line(text):
    try:
        value = parse(text)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
        return
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


@examples(100)
@given(json_texts)
def test_json_is_read_as_json_is_or_refused(text):
    try:
        value = parse(text)
    except ValueError:  # numbers that nobody can read, halves of characters, a hundred levels
        return
    assert value == json.loads(text)


TOOLS = [{"name": name, "parameters": schema} for name, schema in SCHEMAS.items() if name != "weather"]
REQUESTS = [
    request(tools=TOOLS),
    request(tools=TOOLS, tool_choice="none"),
    request(tools=TOOLS, json_schema={}),
    request(tools=TOOLS, tool_choice="f", parallel_tool_calls=False),
    request(json_schema={}),
    request(json_schema={"type": "object", "properties": {"a": {"type": "number"}}}),
]


@examples(150)
@given(st.sampled_from(REQUESTS), written | any_text, st.sampled_from([None, "stop", "length"]))
def test_any_answer_has_a_record(asked, text, finish_reason):
    record = dict(typed_record(asked, text, finish_reason))
    assert isinstance(record.get("tool_calls", []), list)
    assert isinstance(record.get("json_valid", True), bool)


def test_many_calls_that_are_slow_to_check_take_little_time_together():
    slow = {"anyOf": [doubled(30, {"const": "no"}), {"type": "object"}]}
    text = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>' * 50
    with at_most(4):
        reading = read_tool_calls(text, {"f": {**slow, "$defs": slow["anyOf"][0]["$defs"]}})
    assert {bad.problem for bad in reading.bad} == {"$: checking it against the schema takes too long"}


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_a_request_with_a_schema_takes_any_answer_however_deep(kind):
    text = json.dumps(nested(kind, 300))
    deeper = ("[" * 100_000, '{"a":' * 100_000, text)
    for each in deeper:
        assert isinstance(dict(typed_record(REQUESTS[2], each, "stop"))["json_valid"], bool)
