"""Sampling values and stop strings."""

import pytest

from hermes.chat.sampling import Sampling, stop_strings
from hermes.errors import BadSampling
from tests.support.fakes import request

SEND_VALID = ", which is not text; send valid Unicode"


def test_zero_is_a_seed_and_none_draws_one():
    assert request(seed=0).sampling.seed == 0
    assert len({request(seed=None).sampling.seed for _ in range(20)}) > 1


def test_each_drawn_seed_can_be_sent_again_also_where_integers_have_32_bits():
    assert max(request(seed=None).sampling.seed for _ in range(100)) < 2**31


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_tokens": -1}, "max_tokens is -1; ask for at least 0"),
        ({"min_tokens": 20, "max_tokens": 10}, "min_tokens is 20; it must be from 0 to max_tokens, 10"),
        ({"min_tokens": -1}, "min_tokens is -1"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0"),
        ({"top_p": float("nan")}, "top_p is NaN"),
        (
            {"temperature": float("nan")},
            "temperature is NaN; it must be a number of at most 9007199254740992 either way",
        ),
        ({"presence_penalty": float("-inf")}, "presence_penalty is -Infinity; it must be a number"),
        ({"max_tokens": -(10**5_000)}, "max_tokens is a number of very many digits; it must be a number"),
        ({"min_tokens": 10**5_000, "json_schema": {}}, "min_tokens is a number of very many digits beside json_schema"),
        ({"seed": 2**63}, "seed is 9223372036854775808; it must be a number of at most 9007199254740992 either way"),
    ],
)
def test_sampling_values_that_cannot_be_meant_are_refused(values, message):
    with pytest.raises(BadSampling, match=message) as refused:
        request(**values)
    assert refused.value.code == "E1008"


@pytest.mark.parametrize(
    ("text", "sequences"),
    [
        (None, ()),
        ("", ()),
        (",,", ()),
        ("END", ("END",)),
        ("END,\n\n", ("END", "\n\n")),
        ("<end>, <stop>,", ("<end>", " <stop>")),
    ],
)
def test_stop_sequences_keep_their_spaces_and_are_never_empty(text, sequences):
    assert stop_strings(text, None) == sequences


def test_stop_may_hold_commas_and_goes_together_with_stop_sequences():
    assert request(stop_sequences="END,\n", stop=["a, b", "", "END"]).sampling.stop == ("END", "\n", "a, b")


NUMBERED = [f"<{number}>" for number in range(257)]


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"stop_sequences": ",".join(NUMBERED)}, "stop_sequences has 257 texts; at most 256"),
        ({"stop": NUMBERED}, "stop has 257 texts; at most 256"),
        ({"stop_sequences": "a," + "x" * 1_001}, "stop_sequences has a text of 1001 characters; at most 1000"),
        ({"stop": ["x" * 1_001]}, "stop has a text of 1001 characters; at most 1000"),
        ({"stop_sequences": "a\udfff"}, f"stop_sequences holds a lone surrogate (U+DFFF) at character 2{SEND_VALID}"),
        ({"stop": ["a\udfff"]}, f"stop holds a lone surrogate (U+DFFF) at character 2{SEND_VALID}"),
        ({"stop": [1]}, "stop holds 1; each of its items must be text"),
    ],
)
def test_stop_strings_that_would_slow_or_break_the_engine_are_refused(inputs, problem):
    with pytest.raises(BadSampling) as refused:
        request(**inputs)
    assert str(refused.value) == f"E1008 BadSampling: {problem}"


def test_max_tokens_is_lowered_to_what_the_context_still_takes():
    fitted = Sampling(seed=1, max_tokens=512, min_tokens=300).fitted(prompt_tokens=8000, context_tokens=8192)
    assert (fitted.max_tokens, fitted.min_tokens) == (192, 192)
    assert Sampling(seed=1, max_tokens=5).fitted(10, 8192).max_tokens == 5


def test_a_whole_number_is_an_integer_however_json_wrote_it():
    sampling = Sampling(seed=7.0, min_tokens=-0.0, max_tokens=5e1, top_k=1.0)
    assert sampling == Sampling(seed=7, min_tokens=0, max_tokens=50, top_k=1)
    numbers = (sampling.seed, sampling.min_tokens, sampling.max_tokens, sampling.top_k)
    assert {type(number) for number in numbers} == {int}
