"""Turns in any order that can be read in one way."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes.gateway.problems import Problem
from hermes.gateway.turn_order import in_order

USER = {"role": "user", "content": "Hurry."}


def says(content="", *ids):
    calls = [{"id": each, "type": "function", "function": {"name": "clock", "arguments": "{}"}} for each in ids]
    return {"role": "assistant", "content": content, **({"tool_calls": calls} if ids else {})}


def result(call_id, content="noon"):
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def ordered(*turns):
    return in_order(turns, [f"input[{index}]" for index in range(len(turns))])[0]


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([USER, says("", "a"), result("a"), says("Noon.")], None),
        ([says("", "a"), says("Let me look."), result("a")], [says("Let me look.", "a"), result("a")]),
        ([says("One", "a"), says("Two"), result("a")], [says("One\n\nTwo", "a"), result("a")]),
        ([says("", "a"), USER, result("a")], [says("", "a"), result("a"), USER]),
        ([says("", "a"), says("", "b"), result("b"), result("a")], [says("", "a", "b"), result("a"), result("b")]),
        ([says("", "a"), result("a"), says("", "b"), result("b")], None),
        ([says("", "a", "b"), result("a"), says("", "c"), result("c"), result("b")],
         [says("", "a", "b"), result("a"), result("b"), says("", "c"), result("c")]),
        ([result("a"), says("", "a"), USER], [says("", "a"), result("a"), USER]),
        ([says("", "a"), USER, says("", "b"), result("a"), result("b")],
         [says("", "a"), result("a"), USER, says("", "b"), result("b")]),
        ([says("", "a"), USER], None),
        ([says("One"), says("Two", "a"), result("a")], None),
        ([says("", "a"), result("a", "1"), USER, says("", "a"), result("a", "2")], None),
        ([says("", "a", "a"), result("a", "1"), result("a", "2")], None),
        ([says("", ""), result("")], None),
        ([says("", ""), USER, result("")], [says("", ""), result(""), USER]),
        ([says("<tool_call>"), result("made up")], None),
        ([says("", 7), result("7")], None),
    ],
)  # fmt: skip
def test_results_follow_their_calls(turns, expected):
    assert ordered(*turns) == (turns if expected is None else expected)


def test_places_go_with_their_turns():
    turns = [USER, says("", "a"), says("Well."), USER, result("a")]
    assert in_order(turns, "01234")[1] == ["0", "1", "4", "3"]


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([USER, result("a")], r"input\[1\] is the output of the call 'a', which is not in the conversation"),
        ([says("", "a"), result("a"), result("a")], r"input\[2\] .* which has its output already"),
        ([says("", "a"), result("b"), USER], r"input\[1\] is the output of the call 'b', which is not"),
        ([result("")], r"input\[0\] is the output of the call ''"),
    ],
)
def test_a_result_of_no_call_is_named(turns, said):
    with pytest.raises(Problem, match=said) as refused:
        ordered(*turns)
    assert refused.value.status == 400


@settings(deadline=None)  # other tests run beside it
@given(st.data())
def test_whatever_order_clients_send_the_model_reads_one(data):
    """The calls of a response and its texts, then the results, in any order, and what the user said meanwhile."""
    ids = [f"call_{n}" for n in range(data.draw(st.integers(1, 4)))]
    said = [says("", each) for each in ids]
    for _ in range(data.draw(st.integers(0, 2))):
        said.insert(data.draw(st.integers(1, len(said))), says("Well."))
    results = data.draw(st.permutations([result(each, each) for each in ids]))
    users = [{"role": "user", "content": str(n)} for n in range(data.draw(st.integers(0, 2)))]
    rest = list(results)
    for user in reversed(users):
        rest.insert(data.draw(st.integers(0, len(rest))), user)
    users = [turn for turn in rest if turn["role"] == "user"]
    text = "\n\n".join(turn["content"] for turn in said if turn["content"])
    expected = [says(text, *ids), *(result(each, each) for each in ids), *users]
    assert ordered(USER, *said, *rest) == [USER, *expected]
    assert ordered(*ordered(*said, *rest)) == expected, "what is in order stays so"


def test_the_time_grows_with_the_turns():
    ids = [str(n) for n in range(30_000)]
    turns = [*(says("", each) for each in ids[:20_000]), says("", *ids[20_000:])]
    assert len(ordered(*turns, *(result(each) for each in reversed(ids)))) == 30_001
    with pytest.raises(Problem, match="which is not in the conversation"):
        ordered(*turns, *(result(f"no {each}") for each in ids))
