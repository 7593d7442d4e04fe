"""Conversations come in the shape of OpenAI's API, and become whole prompts."""

import pytest

from hermes.chat.chatml import ChatML
from hermes.chat.messages import Message, parse_messages
from hermes.errors import BadMessages
from tests.support.conversations import CALL, RESULT, USER, call, calling
from tests.support.fakes import byte_tokenizer

TOKENIZER = byte_tokenizer()
CHATML = ChatML(TOKENIZER)


def prompt(*messages, functions=()):
    return TOKENIZER.shown(CHATML.encode(parse_messages(messages, functions)))


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
    ("message", "turn"),
    [
        pytest.param({"role": "assistant", "content": None}, Message("assistant", ""), id="nothing was said"),
        pytest.param({"role": "assistant"}, Message("assistant", ""), id="no content"),
        pytest.param({"role": "assistant", "content": "", "tool_calls": None}, Message("assistant", ""), id="no calls"),
        pytest.param({"role": "developer", "content": "Be kind."}, Message("system", "Be kind."), id="a developer"),
        pytest.param(
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "weather", "arguments": '{"city": "Oslo"}'},
            },
            Message("assistant", CALL),
            id="a call in OpenAI's older shape",
        ),
    ],
)
def test_a_turn_in_another_shape_of_openais(message, turn):
    assert parse_messages([message, USER])[0] == turn


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
NO_CALL = "is 'tool' and has no call; it must follow an assistant turn with calls"
HAS_IT = "and that call has its result already"
ANSWERED = "and each call before it has its result already"
HALF = "holds a lone surrogate (U+D800) at character 2, which is not text; send valid Unicode"
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
        ([{"role": "developer", "content": None}], "messages[0].content has to be text, not nothing"),
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
        ([calling(call(arguments=[1]))], f"{ARGUMENTS} has to be an object, not list"),
        (
            [{"role": "assistant", "function_call": {}}],
            "messages[0].function_call.name has to be the name of a function",
        ),
        (
            [calling({"name": "f", "arguments": 5})],
            "messages[0].tool_calls[0].arguments has to be an object, not int",
        ),
        ([RESULT], f"messages[0].role {NO_CALL}"),
        ([{"role": "assistant", "content": "Hello"}, RESULT], f"messages[1].role {NO_CALL}"),
        ([calling(call()), USER, RESULT], f"messages[2].role {NO_CALL}"),
        ([calling(call()), RESULT, RESULT], f"messages[2].role is 'tool', {ANSWERED}"),
        ([calling(call(), call()), *[{**RESULT, "name": "weather"}] * 3], f"messages[3].name is 'weather', {HAS_IT}"),
        (
            [calling(call(id="c1")), {**RESULT, "tool_call_id": "c1"}, RESULT],
            f"messages[2].role is 'tool', {ANSWERED}",
        ),
        (
            [calling(call(id="c1")), {**RESULT, "tool_call_id": "c2"}],
            "messages[1].tool_call_id is 'c2', which no call before it has",
        ),
        (
            [calling(call(id="c1"), call(id="c2")), *[{**RESULT, "tool_call_id": "c2"}] * 2],
            f"messages[2].tool_call_id is 'c2', {HAS_IT}",
        ),
        ([calling(call()), {**RESULT, "name": "f"}], "messages[1].name is 'f', which no call before it has"),
        (
            [calling(call()), {**RESULT, "name": "weather", "tool_name": "clock"}],
            "messages[1].tool_name is 'clock', and name is 'weather'",
        ),
        (
            [calling(call()), {**RESULT, "tool_name": "clock"}],
            "messages[1].name is 'clock', which no call before it has",
        ),
        (
            [calling(call(id="c1"), call("clock", id="c2")), {**RESULT, "tool_call_id": "c1", "tool_name": "clock"}],
            "messages[1] names 'clock', and its call names 'weather'",
        ),
        # values that json could not have read, and text that is none
        ([{"role": deep()}], f"messages[0].role is {'[' * 57}...; {NO_ROLE}"),
        ([{"role": 10**5_000}], f"messages[0].role is a number of very many digits; {NO_ROLE}"),
        ([{"role": "user", "content": "a\ud800b"}], f"messages[0].content {HALF}"),
        ([{"role": "assistant", "content": "a\ud800b"}], f"messages[0].content {HALF}"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a\ud800"}]}],
            f"messages[0].content[0].text {HALF}",
        ),
        (
            [calling(call(id=deep()))],
            f"messages[0].tool_calls[0].id is {'[' * 57}...; it has to be text or a whole number",
        ),
        (
            [calling(call(id="c1")), {**RESULT, "tool_call_id": True}],
            "messages[1].tool_call_id is true; it has to be text or a whole number",
        ),
        (
            [calling(call(id="c1")), {**RESULT, "tool_call_id": 10**5_000}],
            "messages[1].tool_call_id is a number of very many digits; it has to be text or a whole number",
        ),
        (
            [calling(call()), {**RESULT, "name": deep()}],
            f"messages[1].name is {'[' * 57}...; it has to be the name of a function",
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
