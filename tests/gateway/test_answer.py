"""An answer in parts: whatever the cuts, the parts together are what the whole text is read as."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.gateway.answer import Answer
from hermes.tool_calls.call import ToolCall
from hermes.tool_calls.definitions import Function
from tests.support.hostile import examples, quiet
from tests.support.tool_texts import CALL, OSLO, OTHER, ROME, SCHEMAS, read, tagged
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
BITS += ["]", "Hello", " ", "\n", '"', "'", '{"name": "weather"', '{"arguments": ', "<function=weather>", "a < b", "</"]


def fed(pieces, cut=False):
    """The prose and the calls of an answer that came in these pieces."""
    answer = Answer(FUNCTIONS)
    parts = [part for piece in pieces for part in answer.feed(piece)] + list(answer.end(cut=cut))
    assert all(parts), "an empty part"
    return "".join(part for part in parts if isinstance(part, str)), [p for p in parts if isinstance(p, ToolCall)]


def whole(text, cut=False):
    found, prose = read(text, cut)
    calls = [each for each in found if isinstance(each, ToolCall)]
    return prose.lstrip(), calls


def pieces_of(text, size):
    return [text[at : at + size] for at in range(0, len(text), size)]


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
    assert list(answer.feed("</tool_call>")) == [OSLO]
    assert list(answer.feed(f"\n<tool_call>{OTHER}</tool_call>")) == [ROME]
    assert list(answer.end(cut=False)) == []


def test_an_object_that_is_no_call_is_prose_once_it_is_closed():
    answer = Answer(FUNCTIONS)
    assert list(answer.feed('See {"city": ')) == ["See "]
    assert list(answer.feed('"Oslo"} and')) == ['{"city": "Oslo"} and']
    assert list(answer.feed(" more")) == [" more"]


def test_a_call_that_was_cut_off_is_no_call():
    assert fed([f"{tagged(CALL)}\n<tool_call>\n", CALL[:-9]], cut=True) == ("", [OSLO])


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
