"""A conversation holds calls and results. Each result stands in the order of its call."""

import pytest

from hermes.chat.chatml import ChatML
from hermes.chat.messages import Message, parse_messages
from hermes.tool_calls.definitions import Function, result_block
from tests.support.conversations import CALL, RESULT, USER, call, calling
from tests.support.fakes import byte_tokenizer
from tests.support.work import at_most

TOKENIZER = byte_tokenizer()
CHATML = ChatML(TOKENIZER)


def prompt(*messages, functions=()):
    return TOKENIZER.shown(CHATML.encode(parse_messages(messages, functions)))


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
    with at_most(1, all_threads=True):
        turns = parse_messages([calling(*[call(id=call_id) for call_id in ids]), *results] * 3)
    assert [turn.role for turn in turns] == ["assistant", "tool"] * 3
