"""An answer in parts: whatever the cuts, the parts together are what the whole text is read as."""

import json
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.gateway.answer import Answer, Arguments, CallStart
from hermes.tool_calls.call import ToolCall
from hermes.tool_calls.definitions import Function
from tests.support.hostile import examples, quiet
from tests.support.tool_texts import CALL, OSLO, OTHER, SCHEMAS, read, tagged
from tests.tool_calls.test_parser import SHAPES

pytestmark = quiet
FUNCTIONS = [Function(name, schema) for name, schema in SCHEMAS.items()]
TEXTS = [row.values[0] for row in SHAPES]
BITS = [
    CALL,
    OTHER,
    tagged(CALL),
    "<tool_call>",
    "</tool_call>",
    "<tools>",
    "{",
    "}",
    '{"a": 1}',
    "```json\n",
    "```",
    "[",
]
BITS += [tagged(json.dumps({"arguments": {"text": "</tool_call>"}, "name": "write"}))]
BITS += ["]", "Hello", " ", "\n", '"', "'", '{"name": "weather"', '{"arguments": ', "<function=weather>", "a < b", "</"]


def parts_of(answer, pieces, cut=False):
    """The prose, and the name and the arguments of each call, of an answer that came in these pieces."""
    prose, calls = "", []
    for part in [*(part for piece in pieces for part in answer.feed(piece)), *answer.end(cut=cut)]:
        assert part not in ("", Arguments("")), "an empty part"
        if isinstance(part, CallStart):
            calls.append([part.name, ""])
        elif isinstance(part, Arguments):
            calls[-1][1] += part.text
        else:
            prose += part
    return prose, calls


def fed(pieces, cut=False):
    """The prose and the calls of an answer that may call each of the tools."""
    prose, calls = parts_of(Answer(FUNCTIONS), pieces, cut)
    return prose, [ToolCall(name, json.loads(arguments)) for name, arguments in calls]


def whole(text, cut=False):
    found, prose = read(text, cut)
    calls = [each for each in found if isinstance(each, ToolCall)]
    return prose.lstrip(), calls


def pieces_of(text, size):
    return [text[at : at + size] for at in range(0, len(text), size)]


@pytest.mark.parametrize("name", ["fs/read file", "ns::f", "öffne", 'say "a"', "検索"])
@pytest.mark.parametrize("others", [0, 1])
def test_a_name_comes_back_as_it_was_sent(name, others):
    functions = [Function(name, {"type": "object"}), *[Function("other", {"type": "object"})] * others]
    call = json.dumps({"arguments": {"a": 1}, "name": name}, ensure_ascii=False)
    assert parts_of(Answer(functions), pieces_of(tagged(call), 3)) == ("", [[name, '{"a": 1}']])
    function = f'So: <function={name}>{{"a": 1}}</function>'
    assert parts_of(Answer(functions), pieces_of(function, 3)) == ("So: ", [[name, '{"a": 1}']])


@pytest.mark.parametrize(
    "schema", [{"enum": [*range(2_500)]}, {"minLength": 2, "maxLength": 1}, {"title": "x" * 70_000}]
)
def test_arguments_that_no_grammar_holds_come_only_when_they_are_known_to_be_valid(schema):
    function = Function("f", {"type": "object", "properties": {"a": schema}, "required": ["b"]})
    call = tagged('{"arguments": {"a": -1}, "name": "f"}')
    assert parts_of(Answer([function]), pieces_of(call, 3)) == ("", [])


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_the_parts_are_the_whole_for_every_cut(text):
    for cut in (False, True):
        expected = whole(text, cut)
        assert fed(text, cut) == expected, "character by character"
        for at in range(cut, len(text) + 1, 2):
            assert fed(filter(None, [text[:at], text[at:]]), cut) == expected, f"cut at {at}"


@examples(300)
@given(st.lists(st.sampled_from(BITS), max_size=12).map("".join), st.integers(1, 9), st.booleans())
def test_any_mixture_is_read_as_the_whole(text, size, cut):
    assert fed(pieces_of(text, size), cut) == whole(text, cut)


def test_prose_goes_out_at_once_and_a_call_when_it_is_whole():
    answer = Answer(FUNCTIONS)
    assert list(answer.feed("Let me look. ")) == ["Let me look. "]
    assert list(answer.feed("If a < b, then")) == ["If a < b, then"]
    assert list(answer.feed(" <tool")) == [" "]
    assert list(answer.feed(f"_call>\n{CALL}\n")) == []
    assert list(answer.feed("</tool_call>")) == [CallStart("weather"), Arguments('{"city": "Oslo"}')]
    rome = [CallStart("weather"), Arguments('{"city": "Rome"}')]
    assert list(answer.feed(f"\n<tool_call>{OTHER}</tool_call>")) == rome
    assert list(answer.end(cut=False)) == []


def test_a_call_that_holds_the_end_of_a_call_is_not_lost():
    call = json.dumps({"arguments": {"text": "</tool_call>"}, "name": "write"})
    assert fed(tagged(call, CALL)) == ("", [ToolCall("write", {"text": "</tool_call>"}), OSLO])


def test_an_object_that_is_no_call_is_prose_once_it_is_closed():
    answer = Answer(FUNCTIONS)
    assert list(answer.feed('See {"city": ')) == ["See "]
    assert list(answer.feed('"Oslo"} and')) == ['{"city": "Oslo"} and']
    assert list(answer.feed(" more")) == [" more"]


def test_a_call_that_was_cut_off_is_no_call():
    assert fed([f"{tagged(CALL)}\n<tool_call>\n", CALL[:-9]], cut=True) == ("", [OSLO])


ONE = Function("weather", SCHEMAS["weather"])
ODD = json.dumps({"city": 'a"}</tool_call>{\\'})
WRITTEN = [
    (tagged(CALL), [["weather", '{"city": "Oslo"}']]),
    (tagged(CALL, CALL), [["weather", '{"city": "Oslo"}']] * 2),
    (f"So: {tagged(CALL)} done", [["weather", '{"city": "Oslo"}']]),
    (tagged(f'{{"arguments":\n{ODD}, "name": "weather"}}', CALL), [["weather", ODD], ["weather", '{"city": "Oslo"}']]),
    (tagged(OTHER), [["weather", '{"city": "Rome"}']]),
]


@pytest.mark.parametrize(("text", "calls"), WRITTEN, ids=range(len(WRITTEN)))
def test_the_arguments_of_the_only_function_are_given_as_they_are_written_for_every_cut(text, calls):
    whole = parts_of(Answer([ONE]), [text])
    assert whole[1] == calls
    for at in range(len(text) + 1):
        assert parts_of(Answer([ONE]), filter(None, [text[:at], text[at:]])) == whole, f"cut at {at}"
        assert parts_of(Answer([ONE]), text[:at], cut=True) == parts_of(Answer([ONE]), [text[:at]], cut=True)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('a"\\\\{}[]<>/\n é\U0001f600:,'), max_size=9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "name", "</tool_call>"]), inner),
    max_leaves=4,
)
arguments = st.dictionaries(st.sampled_from(["a", "arguments", "}"]), values, max_size=2)


@st.composite
def written_answers(draw):
    """A text as the grammar has it, and the arguments of its calls as they are written in it."""
    prose = draw(st.sampled_from(["", "Let me look.", "a < b\n"]))
    calls = [json.dumps(each, ensure_ascii=draw(st.booleans())) for each in draw(st.lists(arguments, max_size=3))]
    return prose + tagged(*(f'{{"arguments": {call}, "name": "any"}}' for call in calls)), calls


@examples(100)
@given(written_answers(), st.floats(0, 1), st.integers(1, 9), st.booleans())
def test_calls_of_one_function_are_streamed_as_they_are_read_whole(answer, share, size, enforced):
    """Whatever the pieces, and wherever max_tokens cuts."""
    text, written = answer
    function = Function("any", {} if enforced else {"not": {"required": ["nothing"]}})
    cut = text[: round(len(text) * share)]
    for said, is_cut in ((text, False), (cut, True)):
        prose, calls = parts_of(Answer([function]), pieces_of(said, size), is_cut)
        assert (prose, calls) == parts_of(Answer([function]), [said], is_cut)
        if enforced:  # else they are read, checked and written again
            assert all(whole.startswith(part) for (_, part), whole in zip(calls, written, strict=False))
        before = written[: max(len(calls) - 1, 0)]
        assert [json.loads(part) for _, part in calls[:-1]] == [json.loads(each) for each in before]
    whole = parts_of(Answer([function]), [text])[1]
    assert [json.loads(part) for _, part in whole] == [json.loads(each) for each in written]


def test_a_call_that_max_tokens_cut_is_given_as_far_as_it_came():
    text = tagged('{"arguments": {"city": "Oslo {", "days": 3}, "name": "weather"}')
    begin = text.index('{"city')
    end = text.index(', "name"')
    for function in (ONE, Function("weather", {**ONE.parameters, "not": {"required": ["x"]}})):
        for at in range(begin + 1, len(text) - 3):
            prose, calls = parts_of(Answer([function]), [text[:at]], cut=True)
            assert (prose, calls) == ("", [["weather", text[begin : min(at, end)]]])


def test_a_call_is_held_back_where_the_grammar_does_not_enforce_all_of_its_schema():
    answer = Answer([Function("weather", {**ONE.parameters, "not": {"required": ["days"]}})])
    assert list(answer.feed(tagged(CALL)[:-1])) == []
    assert list(answer.feed(">")) == [CallStart("weather"), Arguments('{"city": "Oslo"}')]
    bad = Answer([Function("weather", {**ONE.parameters, "not": {"required": ["city"]}})])
    assert parts_of(bad, [tagged(CALL)]) == ("", [])


@pytest.mark.parametrize(
    "text", ['{"city": "<tool_call>"}', '{"arguments": {"city": "Oslo"}, "name": "weather"}', "[1]", "{"]
)
def test_a_document_in_place_of_calls_is_given_at_once(text):
    answer = Answer(FUNCTIONS, or_document=True)
    assert list(answer.feed("\n")) == []
    assert "".join(part for character in text for part in answer.feed(character)) == text
    assert list(answer.end(cut=False)) == []


def test_calls_in_place_of_a_document_are_calls():
    assert parts_of(Answer(FUNCTIONS, or_document=True), tagged(CALL)) == ("", [["weather", '{"city": "Oslo"}']])


def test_an_answer_that_goes_on_with_a_text_keeps_the_blank_before_it():
    assert parts_of(Answer(FUNCTIONS, continues=True), [" Pa", "ris."]) == (" Paris.", [])


def test_a_tag_that_was_cut_is_no_text():
    for text in ("<", "<tool_", "<tool_call>"):
        assert parts_of(Answer([ONE]), text, cut=True) == ("", [])
    assert parts_of(Answer([ONE]), ["<"]) == ("<", [])


def test_without_functions_all_is_prose():
    answer = Answer([])
    assert list(answer.feed(tagged(CALL))) == [tagged(CALL)]
    assert list(answer.end(cut=False)) == []


@pytest.mark.parametrize("words", [["word ", "{ ", "< ", "[", "`"], ['{"a": '], ['{"a": ', "{}, "]], ids=str)
def test_the_work_is_linear(words):
    def seconds(number):
        text = "".join(random.Random(0).choices(words, k=number))
        answer, before = Answer(FUNCTIONS), time.process_time()
        for piece in pieces_of(text, 4):
            list(answer.feed(piece))
        return time.process_time() - before

    assert seconds(16_000) < 12 * seconds(4_000)  # four times as much; sixteen times would be quadratic
