"""Conversations in the shape of OpenAI's API, and the whole prompts that they become."""

import time

import pytest

from hermes.chat.chatml import ChatML
from hermes.chat.messages import Message, parse_messages
from hermes.errors import BadMessages
from hermes.tool_calls.definitions import Function, result_block
from tests.support.fakes import byte_tokenizer

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
        '<tool_response>\n{"name": "weather", "content": [4, null]}\n</tool_response>\n'
        '<tool_response>\n{"name": "clock", "content": "noon"}\n</tool_response>\n<|im_end|>\n'
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
        pytest.param(
            {"content": "", "tool_call_id": "c1", "name": "weather"}, '"weather", "content": ""', id="a name and an id"
        ),
        pytest.param({"content": 4, "tool_name": "weather"}, '"weather", "content": 4', id="a name in Ollama's words"),
        pytest.param(
            {"content": 4, "tool_name": "weather", "name": "weather"},
            '"weather", "content": 4',
            id="the same name twice",
        ),
        pytest.param({"content": 4, "name": None, "tool_call_id": ""}, '"weather", "content": 4', id="empty fields"),
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


READ_A, READ_B = call("read", '{"f": "a"}', id="A"), call("read", '{"f": "b"}', id="B")
APPLE, BLUE = {"content": "apple"}, {"content": "blue"}
MISSING = {"error": "no result of this call was sent"}


@pytest.mark.parametrize(
    ("calls", "results", "contents"),
    [
        pytest.param(
            [READ_A, READ_B],
            [{"tool_call_id": "B", **BLUE}, {"tool_call_id": "A", **APPLE}],
            ["apple", "blue"],
            id="ids, in another order",
        ),
        pytest.param(
            [call("read", id=1), call("read", id=2), call("read", id=3)],
            [{"tool_call_id": "3", "content": 3}, {"tool_call_id": 1, "content": 1}, {"tool_call_id": 2, "content": 2}],
            [1, 2, 3],
            id="ids that are numbers, also once as text",
        ),
        pytest.param(
            [call("a"), call("b"), call("a")],
            [{"name": "b", "content": 1}, {"name": "a", "content": 2}, {"name": "a", "content": 3}],
            [2, 1, 3],
            id="names, in another order",
        ),
        pytest.param(
            [call("a", id=""), call("b", id="")],
            [{"tool_call_id": "", "tool_name": "b", **BLUE}, {"tool_call_id": "", "tool_name": "a", **APPLE}],
            ["apple", "blue"],
            id="empty ids, and names in Ollama's words",
        ),
        pytest.param(
            [READ_A, READ_B],
            [BLUE, {"tool_call_id": "A", **APPLE}],
            ["apple", "blue"],
            id="one without an id has the call that is left",
        ),
        pytest.param(
            [call("a", id="x"), call("b", id="x")],
            [{"tool_call_id": "x", **APPLE}, {"tool_call_id": "x", **BLUE}],
            ["apple", "blue"],
            id="one id for all calls, as some servers have it",
        ),
        pytest.param([READ_A, READ_B], [{"tool_call_id": "B", **BLUE}], [MISSING, "blue"], id="the first is missing"),
        pytest.param([call("a"), call("b")], [APPLE], ["apple", MISSING], id="the second is missing"),
        pytest.param([READ_A, READ_B], [], [MISSING, MISSING], id="all are missing"),
    ],
)
def test_results_stand_in_the_order_of_the_calls_and_a_missing_one_is_said(calls, results, contents):
    turns = parse_messages([calling(*calls), *[{"role": "tool", **result} for result in results], USER])
    names = [each["function"]["name"] for each in calls]
    assert [turn.role for turn in turns] == ["assistant", "tool", "user"]
    assert turns[1].content == "".join(map(result_block, names, contents))


def test_of_calls_that_were_written_the_missing_result_is_said_beside_another():
    clock = '<tool_call>\n{"arguments": {}, "name": "clock"}\n</tool_call>'
    text = {"role": "assistant", "content": f"<tool_call>\n{{oops\n</tool_call>\n{CALL}\n{clock}"}
    result = {"role": "tool", "name": "clock", "content": 1}
    assert parse_messages([text, result])[1].content == result_block("weather", MISSING) + result_block("clock", 1)
    assert [turn.role for turn in parse_messages([text, USER])] == ["assistant", "user"]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param('{"city": "Par', id="cut off"),
        pytest.param('{"city": "Paris",}', id="a comma too many"),
        pytest.param("{'city': 'Paris'}", id="Python"),
        pytest.param('["Paris"]', id="a list"),
        pytest.param('"Paris"', id="a text"),
        pytest.param('{"city": NaN}', id="NaN"),
        pytest.param('{"a":' * 9_999, id="nested too deeply"),
        pytest.param('{"a": 1' + "0" * 9_999 + "}", id="a number of thousands of digits"),
    ],
)
def test_arguments_that_a_model_got_wrong_stay_as_they_are(arguments):
    turns = parse_messages([calling(call(arguments=arguments)), {**RESULT, "content": {"error": "no JSON"}}, USER])
    assert turns[0].content == f'<tool_call>\n{{"arguments": {arguments}, "name": "weather"}}\n</tool_call>'
    assert turns[1].content == result_block("weather", {"error": "no JSON"})


def test_arguments_that_are_no_json_can_close_no_tag_and_hold_no_half_of_a_character():
    turns = parse_messages([calling(call(arguments='{"a": "</tool_call>\ud800'))])
    assert turns[0].content == (
        '<tool_call>\n{"arguments": {"a": "\\u003c/tool_call>\\ud800, "name": "weather"}\n</tool_call>'
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


def test_a_result_in_openais_older_shape():
    asked = {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": ""}}
    result = {"role": "function", "name": "weather", "content": "4"}
    assert parse_messages([asked, result])[1] == Message("tool", result_block("weather", "4"))


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
NO_CALL = "is 'tool' and has no call; it must follow an assistant turn with calls"
HAS_IT = "and that call has its result already"
ANSWERED = "and each call before it has its result already"
RESULT = {"role": "tool", "content": "4"}
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
