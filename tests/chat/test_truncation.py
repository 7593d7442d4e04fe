"""Which turns of a conversation are left out where it is too long."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes.chat.chatml import ChatML
from hermes.chat.messages import Message
from hermes.chat.truncation import Prompt, truncated
from hermes.errors import PromptTooLong
from tests.support.fakes import byte_tokenizer
from tests.support.work import at_most

TOKENIZER = byte_tokenizer()
CHATML = ChatML(TOKENIZER)
SYSTEM = Message("system", "Be kind.")
ASK, LAST = Message("user", "What time is it?"), Message("user", "And where?")
ANSWER = Message("assistant", "It is noon.")
CALL, RESULT = Message("assistant", "<tool_call>"), Message("tool", "<tool_response>")


def tokens(*messages):
    return len(CHATML.encode(messages))


@pytest.mark.parametrize(
    ("messages", "kept"),
    [
        pytest.param([ASK, ANSWER, LAST], [ANSWER, LAST], id="the oldest turn goes"),
        pytest.param([ASK, ANSWER, LAST], [LAST], id="and more where that is not enough"),
        pytest.param([SYSTEM, ASK, ANSWER, LAST], [SYSTEM, LAST], id="the system turn stays"),
        pytest.param([ASK, SYSTEM, ANSWER, LAST], [SYSTEM, LAST], id="wherever it stands"),
        pytest.param([ASK, CALL, RESULT, ANSWER, LAST], [CALL, RESULT, ANSWER, LAST], id="a call and its result stay"),
        pytest.param([ASK, CALL, RESULT, ANSWER, LAST], [ANSWER, LAST], id="or go together"),
        pytest.param([ASK, ANSWER, LAST, CALL, RESULT], [LAST, CALL, RESULT], id="the last user turn stays"),
        pytest.param([LAST, CALL, RESULT, CALL, RESULT], [LAST, CALL, RESULT], id="not what came of it"),
    ],
)
def test_the_oldest_turns_go_until_the_answer_fits(messages, kept):
    fitting = truncated(messages, CHATML, tokens(*kept) + 20, max_tokens=20)
    assert fitting == Prompt(CHATML.encode(kept), len(messages) - len(kept), bos=1)
    one_less = truncated(messages, CHATML, tokens(*kept) + 19, max_tokens=20)
    assert len(one_less.token_ids) <= len(fitting.token_ids)


@pytest.mark.parametrize(
    ("messages", "kept"),
    [
        ([], []),
        ([LAST], [LAST]),
        ([SYSTEM, ASK, ANSWER, LAST], [SYSTEM, LAST]),
        ([SYSTEM, ASK, ANSWER, LAST, CALL, RESULT], [SYSTEM, LAST, CALL, RESULT]),
    ],
)
def test_what_has_to_stay_stays_even_where_it_is_too_much(messages, kept):
    too_few = tokens(*kept) - 1
    assert truncated(messages, CHATML, too_few, 5) == Prompt(CHATML.encode(kept), len(messages) - len(kept), bos=1)


def test_what_is_begun_of_the_response_stays_whole():
    begun = "It is " * 10
    kept = CHATML.encode([ANSWER, LAST], begun)
    fitting = truncated([ASK, ANSWER, LAST], CHATML, len(kept) + 20, 20, begun)
    assert fitting == Prompt(kept, 1, bos=1)
    assert truncated([ASK, LAST], CHATML, 30, 20, begun) == Prompt(CHATML.encode([LAST], begun), 1, bos=1)
    with pytest.raises(PromptTooLong, match="is at least 55 tokens"):
        truncated([ASK, LAST], CHATML, 20, 20, begun * 15)


def test_room_is_made_for_max_tokens_but_for_no_more_than_half_of_the_context():
    messages = [ASK, ANSWER, LAST]
    context = 2 * tokens(*messages)
    assert truncated(messages, CHATML, context, max_tokens=9999).dropped_turns == 0
    assert truncated(messages, CHATML, context - 2, max_tokens=9999).dropped_turns == 1
    assert truncated(messages, CHATML, context - 2, max_tokens=10).dropped_turns == 0


def answered(turns):
    """The turns without the results of no call."""
    return [turn for before, turn in pairwise([None, *turns]) if turn != RESULT or before == CALL]


conversations = st.lists(st.sampled_from([SYSTEM, ASK, ANSWER, CALL, RESULT]), max_size=8).map(answered)


@settings(max_examples=50, deadline=None)
@given(conversations, st.integers(60, 300), st.integers(1, 99))
def test_no_system_turn_goes_nor_half_of_a_call_nor_anything_without_need(messages, context, max_tokens):
    prompt = truncated(messages, CHATML, context, max_tokens)
    roles = re.findall(r"<\|im_start\|>(\w+)", TOKENIZER.shown(prompt.token_ids))[:-1]
    assert len(roles) == len(messages) - prompt.dropped_turns
    assert roles.count("system") == messages.count(SYSTEM)
    assert all(before == "assistant" for before, role in pairwise([None, *roles]) if role == "tool")
    if tokens(*messages) + min(max_tokens, context // 2) <= context:
        assert prompt == Prompt(CHATML.encode(messages), bos=1)


def test_turns_that_go_are_not_encoded():
    long = Message("user", "x" * 50_000_000)
    with at_most(0.5, all_threads=True):
        assert truncated([long, ANSWER, LAST], CHATML, 200, 20) == Prompt(CHATML.encode([ANSWER, LAST]), 1, bos=1)
        with pytest.raises(PromptTooLong, match="is at least 2941179 tokens"):
            truncated([ASK, ANSWER, long], CHATML, 200, 20)
