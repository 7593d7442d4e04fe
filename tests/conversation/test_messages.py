"""Conversations in the shape of OpenAI's API, and the whole prompts that they become."""

import time

import pytest
from fakes import byte_tokenizer

from hermes.conversation import ChatML, Message
from hermes.conversation.functions import Function
from hermes.conversation.messages import parse_messages
from hermes.errors import BadMessages

TOKENIZER = byte_tokenizer()
CHATML = ChatML(TOKENIZER)
USER = {"role": "user", "content": "Hi"}
CALL = '<tool_call>\n{"arguments": {"city": "Oslo"}, "name": "weather"}\n</tool_call>'


def prompt(*messages, functions=()):
    return TOKENIZER.shown(CHATML.encode(parse_messages(messages, functions)))


def calling(*calls, **message):
    return {"role": "assistant", "tool_calls": list(calls), **message}


def call(name="weather", arguments='{"city": "Oslo"}', **others):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **others}


def test_a_conversation_of_several_turns():
    turns = ["Hi  ", "Hello!\n", "Who are you?", "Hermes."]
    roles = ["user", "assistant"] * 2
    messages = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=True)]
    assert prompt({"role": "system", "content": "Be kind."}, *messages, {"role": "user", "content": ""}) == (
        "<|begin_of_text|>"
        "<|im_start|>system\nBe kind.<|im_end|>\n"
        "<|im_start|>user\nHi  <|im_end|>\n"
        "<|im_start|>assistant\nHello!\n<|im_end|>\n"
        "<|im_start|>user\nWho are you?<|im_end|>\n"
        "<|im_start|>assistant\nHermes.<|im_end|>\n"
        "<|im_start|>user\n<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "assistant",
    [
        pytest.param(calling(call(id="c1")), id="OpenAI's shape, arguments as a string"),
        pytest.param(calling(call(arguments={"city": "Oslo"}), content=None), id="arguments as an object"),
        pytest.param(calling({"name": "weather", "arguments": {"city": "Oslo"}}, content=""), id="without the wrapper"),
        pytest.param({"role": "assistant", "content": CALL}, id="the text that the model wrote"),
    ],
)
def test_a_call_and_its_result(assistant):
    result = {"role": "tool", "name": "weather", "content": '{"celsius": 4}'}
    assert prompt(USER, assistant, result) == (
        "<|begin_of_text|>"
        "<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
        '<tool_call>\n{"arguments": {"city": "Oslo"}, "name": "weather"}\n</tool_call><|im_end|>\n'
        "<|im_start|>tool\n"
        '<tool_response>\n{"name": "weather", "content": {"celsius": 4}}\n</tool_response>\n<|im_end|>\n'
        "<|im_start|>assistant\n"
    )


def test_several_calls_are_one_turn_and_so_are_their_results():
    calls = calling(call(id="c1"), call("clock", None, id="c2"), content="Let me see.")
    results = [
        {"role": "tool", "tool_call_id": "c2", "content": "noon"},
        {"role": "tool", "tool_call_id": "c1", "content": [4, None]},
    ]
    assert prompt(USER, calls, *results, {"role": "assistant", "content": "It is noon."}, USER) == (
        "<|begin_of_text|>"
        "<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
        "Let me see.\n"
        '<tool_call>\n{"arguments": {"city": "Oslo"}, "name": "weather"}\n</tool_call>\n'
        '<tool_call>\n{"arguments": {}, "name": "clock"}\n</tool_call><|im_end|>\n'
        "<|im_start|>tool\n"
        '<tool_response>\n{"name": "clock", "content": "noon"}\n</tool_response>\n'
        '<tool_response>\n{"name": "weather", "content": [4, null]}\n</tool_response>\n<|im_end|>\n'
        "<|im_start|>assistant\nIt is noon.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def result_turn(assistant, result, functions=()):
    return parse_messages([assistant, {"role": "tool", **result}], functions)[1].content


@pytest.mark.parametrize(
    ("result", "block"),
    [
        pytest.param({"content": " [1] "}, '"weather", "content": [1]', id="text that is JSON"),
        pytest.param({"content": "4 °C"}, '"weather", "content": "4 °C"', id="text"),
        pytest.param({"content": {"a": True}}, '"weather", "content": {"a": true}', id="JSON"),
        pytest.param({"content": None}, '"weather", "content": null', id="nothing"),
        pytest.param({"content": []}, '"weather", "content": []', id="an empty list"),
        pytest.param(
            {"content": [{"type": "text", "text": '{"a"'}, {"type": "text", "text": ": 1}"}]},
            '"weather", "content": {"a": 1}',
            id="parts of text",
        ),
        pytest.param({"content": "", "tool_call_id": "c1"}, '"weather", "content": ""', id="an id"),
        pytest.param({"content": "", "tool_call_id": "c1", "name": "w"}, '"w", "content": ""', id="a name and an id"),
    ],
)
def test_a_result_goes_in_as_json_beside_the_name_of_what_was_called(result, block):
    assert result_turn(calling(call(id="c1")), result) == f'<tool_response>\n{{"name": {block}}}\n</tool_response>\n'


@pytest.mark.parametrize(
    ("text", "result", "name"),
    [
        pytest.param(CALL, {"tool_call_id": "made up"}, "weather", id="a call that was written has no id"),
        pytest.param("<tool_call>\n{oops\n</tool_call>", {}, "unknown", id="a broken call may get an error"),
        pytest.param("<tool_call>\n{oops\n</tool_call>", {"name": "clock"}, "clock", id="with a name"),
        pytest.param(
            '{"name": "clock", "arguments": {}}', {}, "clock", id="a call without its tag, of a tool on offer"
        ),
    ],
)
def test_what_an_assistant_turn_wrote_may_be_answered(text, result, name):
    block = result_turn(
        {"role": "assistant", "content": text}, {"content": 0, **result}, [Function("clock", {"type": "object"})]
    )
    assert block == f'<tool_response>\n{{"name": "{name}", "content": 0}}\n</tool_response>\n'


def test_two_calls_that_were_written_are_answered_in_their_order():
    clock = '<tool_call>\n{"arguments": {}, "name": "clock"}\n</tool_call>'
    results = [{"role": "tool", "content": 1}, {"role": "tool", "content": 2}]
    assert parse_messages([{"role": "assistant", "content": f"{CALL}\n{clock}"}, *results])[1].content == (
        '<tool_response>\n{"name": "weather", "content": 1}\n</tool_response>\n'
        '<tool_response>\n{"name": "clock", "content": 2}\n</tool_response>\n'
    )


def test_text_is_a_result_however_deep_the_json_in_it_is():
    for depth in range(900, 1_000):  # there are depths that Python reads and can't write
        assert result_turn(calling(call()), {"content": "[" * depth + "]" * depth}).count("]") == depth


def test_many_calls_and_results_take_little_time():
    ids = [f"c{n}" for n in range(1_000)]
    results = [{"role": "tool", "content": "x" * 100, "tool_call_id": call_id} for call_id in reversed(ids)]
    before = time.process_time()
    turns = parse_messages([calling(*[call(id=call_id) for call_id in ids]), *results] * 3)
    assert time.process_time() - before < 1
    assert [turn.role for turn in turns] == ["assistant", "tool"] * 3


def test_parts_of_text_are_one_text():
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": " b"}]
    assert parse_messages([{"role": role, "content": parts} for role in ("system", "user", "assistant")]) == (
        Message("system", "a  b"),
        Message("user", "a  b"),
        Message("assistant", "a  b"),
    )
    assert parse_messages([{"role": "user", "content": []}]) == (Message("user", ""),)


NO_ROLE = "it has to be system, user, assistant or tool"
NO_PART = "has to be {'type': 'text', 'text': ...}; the model reads only text"
NO_CALL = "is 'tool' and answers no call; it has to follow an assistant turn with calls"
RESULT = {"role": "tool", "content": "4"}
HALF = "holds a lone surrogate (U+D800) at character 2, which is no text; send valid Unicode"
ARGUMENTS = "messages[0].tool_calls[0].function.arguments"
NO_NUMBER = "it holds NaN, an infinity or a number of thousands of digits"


def deep():
    value = []
    for _ in range(10_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        (["Hi"], "messages[0] has to be an object with role and content, not str"),
        ([USER, None], "messages[1] has to be an object with role and content, not NoneType"),
        ([{}], f"messages[0].role is null; {NO_ROLE}"),
        ([USER, USER, USER, {"role": "User", "content": ""}], f"messages[3].role is 'User'; {NO_ROLE}"),
        ([{"role": ["user"], "content": ""}], f'messages[0].role is ["user"]; {NO_ROLE}'),
        ([{"role": "x" * 999}], f"messages[0].role is '{'x' * 56}...; {NO_ROLE}"),
        ([USER, {"role": "user"}], "messages[1].content has to be text, not nothing"),
        ([{"role": "assistant", "content": None}], "messages[0].content has to be text, not nothing"),
        ([{"role": "system", "content": {}}], "messages[0].content has to be text, not dict"),
        ([{"role": "user", "content": ["Hi"]}], f"messages[0].content[0] {NO_PART}"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}]}],
            f"messages[0].content[1] {NO_PART}",
        ),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], f"messages[0].content[0] {NO_PART}"),
        ([calling(call(), content=[5])], f"messages[0].content[0] {NO_PART}"),
        ([{"role": "assistant", "tool_calls": {"a": 1}}], "messages[0].tool_calls has to be a list, not dict"),
        ([calling("f")], "messages[0].tool_calls[0] has to be an object, not str"),
        ([calling(call(), {})], "messages[0].tool_calls[1].name has to be the name of a function"),
        ([calling({"function": "f"})], "messages[0].tool_calls[0].function.name has to be the name of a function"),
        ([calling(call(5))], "messages[0].tool_calls[0].function.name has to be the name of a function"),
        (
            [calling(call(arguments="{oops"))],
            "messages[0].tool_calls[0].function.arguments is not JSON: "
            "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        (
            [calling(call(arguments="[1]"))],
            "messages[0].tool_calls[0].function.arguments has to be an object, not list",
        ),
        (
            [calling({"name": "f", "arguments": 5})],
            "messages[0].tool_calls[0].arguments has to be an object, not int",
        ),
        ([RESULT], f"messages[0].role {NO_CALL}"),
        ([{"role": "assistant", "content": "Hello"}, RESULT], f"messages[1].role {NO_CALL}"),
        ([calling(call()), USER, RESULT], f"messages[2].role {NO_CALL}"),
        ([calling(call()), RESULT, RESULT], f"messages[2].role {NO_CALL}"),
        (
            [calling(call(id="c1")), {**RESULT, "tool_call_id": "c2"}],
            "messages[1].tool_call_id is 'c2', which no open call before it has",
        ),
        (
            [calling(call(id="c1"), call(id="c2")), *[{**RESULT, "tool_call_id": "c2"}] * 2],
            "messages[2].tool_call_id is 'c2', which no open call before it has",
        ),
        ([calling(call()), {**RESULT, "name": "f"}], "messages[1].name is 'f', which no open call before it has"),
        # values that json could not have read, and text that is none
        ([{"role": deep()}], f"messages[0].role is {'[' * 57}...; {NO_ROLE}"),
        ([{"role": 10**5_000}], f"messages[0].role is a number of very many digits; {NO_ROLE}"),
        ([{"role": "user", "content": "a\ud800b"}], f"messages[0].content {HALF}"),
        ([{"role": "assistant", "content": "a\ud800b"}], f"messages[0].content {HALF}"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a\ud800"}]}],
            f"messages[0].content[0].text {HALF}",
        ),
        ([calling(call(id=deep()))], "messages[0].tool_calls[0].id has to be text, not list"),
        (
            [calling(call(id="c1")), {**RESULT, "tool_call_id": deep()}],
            "messages[1].tool_call_id has to be text, not list",
        ),
        (
            [calling(call(id="c1")), {**RESULT, "tool_call_id": 10**5_000}],
            "messages[1].tool_call_id is a number of very many digits, which no open call before it has",
        ),
        (
            [calling(call()), {**RESULT, "name": deep()}],
            f"messages[1].name is {'[' * 57}..., which no open call before it has",
        ),
        ([calling(call(arguments={"a": deep()}))], f"{ARGUMENTS} is not JSON: nested too deeply"),
        ([calling(call(arguments={"a": float("inf")}))], f"{ARGUMENTS} is not JSON: {NO_NUMBER}"),
        ([calling(call()), {"role": "tool", "content": deep()}], "messages[1].content is not JSON: nested too deeply"),
        ([calling(call()), {"role": "tool", "content": 10**5_000}], f"messages[1].content is not JSON: {NO_NUMBER}"),
        (
            [calling(call()), {"role": "tool", "content": [{"type": "text", "text": 10**5_000}]}],
            f"messages[1].content is not JSON: {NO_NUMBER}",
        ),
        ([calling(*[call()] * 1_001)], "messages[0].tool_calls has 1001 calls; at most 1000"),
        ([calling(call()), {"role": "tool"}], "messages[1].content is missing; it has to be the result of the call"),
    ],
)
def test_a_message_that_cannot_be_read_is_refused_with_its_place(messages, problem):
    with pytest.raises(BadMessages) as refused:
        parse_messages(messages)
    assert str(refused.value) == f"E1005 BadMessages: {problem}"
