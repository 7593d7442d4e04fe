import timeit

import pytest

from hermes.gateway.problems import Problem
from hermes.gateway.replicate_headers import (
    MAX_PREFER,
    PREFERENCE,
    cancel_after,
    last_event,
    preferences,
    wait_seconds,
)


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ([], 0),
        (["respond-async"], 0),
        (["wait"], 60),
        (["wait="], 60),
        (['wait=""'], 60),
        (["wait=5"], 5),
        (["wait=60"], 60),
        (["wait=500"], 60),
        (["wait=" + "9" * 5000], 0),
        (["wait=0005"], 5),
        (["respond-async, wait=3"], 3),
        (["Wait=5"], 5),
        (["WAIT"], 60),
        (["respond-async", "wait=4"], 4),
        (["wait=4", "wait=9"], 4),
        (["wait=4, wait=9"], 4),
        (["wait=x, wait=9"], 0),
        (["wait = 5"], 5),
        (['wait="5"'], 5),
        (['wait="\\5"'], 5),
        (["wait=5; foo=bar"], 5),
        (["wait;foo"], 60),
        (["foo; wait=5"], 0),
        (['foo="a, wait=7", wait=3'], 3),
        (['foo="a\\", wait=7", wait=3'], 3),
        (["no-wait"], 0),
        (["wait-no"], 0),
        (["wait=0"], 0),
        (["wait=-1"], 0),
        (["wait=1.5"], 0),
        (["wait=soon"], 0),
        (["wait=\u0661"], 0),
        (["wait 5"], 0),
        (['wait="5'], 0),
        ([", ,wait=2,"], 2),
        (['"\\' * 30_000], 0),
    ],
)
def test_how_long_a_client_wants_to_wait(prefer, seconds):
    assert wait_seconds(prefer) == seconds


def test_preferences_are_read_as_rfc_7240_has_them():
    sent = ['respond-async, wait=100; x="1,2"', 'HANDLING=Lenient; a=b, return="a b"', "wait=5"]
    assert preferences(sent) == {"respond-async": "", "wait": "100", "handling": "Lenient", "return": "a b"}


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        ([], None),
        (["5s"], 5),
        (["90"], 90),
        (["1m30s"], 90),
        (["1m30"], 90),
        (["2h"], 7200),
        (["1d2h3m4s"], 93784),
        (["1D 2H".replace(" ", "")], 93600),
        ([" 5s "], 5),
    ],
)
def test_after_how_long_a_client_wants_the_end(sent, seconds):
    assert cancel_after(sent) == seconds


@pytest.mark.parametrize(
    "sent", ["", "0", "0s", "soon", "-5s", "1.5s", "5 s", "5ms", "s", "30s1m", "1e3", "9" * 5000, "\u0665s", "5s, 6s"]
)
def test_another_deadline_is_refused(sent):
    with pytest.raises(Problem, match="Cancel-After: is ") as refused:
        cancel_after([sent])
    assert (refused.value.status, refused.value.param) == (400, "Cancel-After")
    assert len(refused.value.message) < 200


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("3:40", (3, 40)),
        ("", (0, 0)),
        ("3", (0, 0)),
        ("x:y", (0, 0)),
        ("-1:0", (0, 0)),
        ("9" * 5000, (0, 0)),
        ("1:" + "9" * 5000, (0, 0)),
        ("\u0663:0", (0, 0)),
        ("999999999:999999999", (999999999, 999999999)),
    ],
)
def test_where_a_reader_left_off(text, start):
    assert last_event(text) == start


@pytest.mark.parametrize("text", ["a={}\0", "a{0}={0}\0", "a{}\0", "a=b{}\0"])
def test_a_preference_that_is_none_takes_time_in_proportion_to_its_length(text):
    short, long = (
        min(timeit.repeat(lambda: PREFERENCE.fullmatch(text.format(" " * n)), number=1, repeat=5))  # noqa: B023
        for n in (2_000, 20_000)
    )
    assert long < 40 * short


def test_what_follows_many_preferences_is_not_read():
    assert wait_seconds(["x" * (MAX_PREFER - 8) + ",wait=5", "wait=6"]) == 5
    assert wait_seconds(["x" * MAX_PREFER, "wait=6"]) == 0
