"""Stop strings in free text with calls: each text is fed in all ways to cut it, and the same comes out."""

import pytest

from hermes.chat.stops import StopFinder

CALL = '<tool_call>\n{"arguments": {"city": "Oslo, END"}, "name": "weather"}\n</tool_call>'


def fed(stops, text, cuts, *, last=True):
    """What comes out of a text that is cut at these places, and whether a stop string was found."""
    finder, pieces = StopFinder(stops), [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    written = ""
    for number, piece in enumerate(pieces):
        written += finder.feed(piece, last=last and number == len(pieces) - 1)
        if finder.found:
            break
    return written, finder.found


@pytest.mark.parametrize(
    ("stops", "text", "expected"),
    [
        (["END"], "a word END more", "a word "),
        (["END"], "a word EN", None),
        (["END"], "EN END", "EN "),
        (["b", "abc"], "xabc", "xa"),
        (["\n"], "So:\nmore", "So:"),
        (["\n"], CALL, None),
        (["}", '"', ",", "Oslo", "END", "arguments"], CALL, None),
        (["<tool_call>", "</tool_call>", "<tool", "call>\n", "<"], CALL, None),
        (["\n"], f"{CALL}\n{CALL}", CALL),
        (["\n<tool"], f"So\n{CALL}", None),
        (["<tool"], "a <tool b", "a "),
        (["<tool_calls>"], "a <tool_calls> b", "a "),
        ([",", "}"], f"So{CALL}then, so", f"So{CALL}then"),
        (["</tool_call>"], f"a </tool_call> {CALL}", "a "),
        (["call> then"], f"{CALL} then", None),
        ([" then"], f"{CALL} then", CALL),
        (["aab"], "aaab", "a"),
        (["x<"], "ax</b", "a"),
        (["\n<"], "a\n<b>", "a"),
        (["x<t", "d"], "ax<td", "a"),
        (["x<"], f"ax{CALL}", None),
    ],
)
def test_a_stop_string_counts_outside_calls_however_the_text_comes(stops, text, expected):
    whole = (text, False) if expected is None else (expected, True)
    cuts = [[], *([n] for n in range(len(text))), *([n, n + 3] for n in range(len(text) - 3)), [*range(1, len(text))]]
    assert {fed(stops, text, each) for each in cuts} == {whole}


def test_an_end_that_is_not_decided_is_held_back():
    finder = StopFinder(["END"])
    assert [finder.feed(piece) for piece in ("a E", "N", "x <too", "l_call>{", "E", "ND")] == [
        *("a ", "", "ENx ", "<tool_call>{", "E", "ND")
    ]
    assert finder.feed("</tool_call> E") == "</tool_call> "
    assert (finder.feed("", last=True), finder.found) == ("E", False)


def test_no_stop_string_ends_in_an_exempt_piece():
    finder = StopFinder(["END"])
    assert [finder.feed("END E", exempt=True), finder.feed("N", exempt=True)] == ["END ", ""]
    assert (finder.feed("D."), finder.found) == ("", True)


def test_many_long_stop_strings_take_little_time_for_each_piece():
    finder = StopFinder([f"{'a' * 990}{n:010}" for n in range(512)])
    assert "".join(finder.feed("a", last=n == 1999) for n in range(2_000)) == "a" * 2_000
