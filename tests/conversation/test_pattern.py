"""Patterns rewritten for the raw text of a JSON string; Python's re reads the rewritten form as the grammar does."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes.conversation.pattern import FORMATS, PatternProblem, any_string, raw_pattern

ANY = r"(?:[\u0020-\u0021\u0023-\u005b\u005d-\ud7ff\ue000-" + "\U0010ffff" + r"]|\\[\u0022\u005cbtnfr])"


def allows(pattern, text):
    """Whether the rewritten pattern lets a string through, as it stands between the quotes of JSON."""
    return bool(re.fullmatch(pattern, json.dumps(text, ensure_ascii=False)[1:-1]))


@pytest.mark.parametrize(
    ("pattern", "written"),
    [
        pytest.param("^a+$", "^(?:(?:[a-a]){1,})$", id="anchored"),
        pytest.param("b", f"^(?:{ANY}*[b-b]{ANY}*)$", id="unanchored ends get any text"),
        pytest.param("^a|b$", f"^(?:(?:[a-a]{ANY}*|{ANY}*[b-b]))$", id="each branch has its own ends"),
        pytest.param(r'^["-$]$', r"^(?:(?:[\u0023-\u0024]|\\[\u0022]))$", id="a quote is escaped"),
        pytest.param(r"^\t$", r"^(?:\\[t])$", id="a tab is only its escape"),
        pytest.param("^[😀-😂]$", "^(?:[😀-😂])$", id="beyond the four digits of an escape"),
        pytest.param("", f"^(?:{ANY}*)$", id="nothing"),
        pytest.param("^", f"^(?:{ANY}*)$", id="the start of anything"),
        pytest.param("$", f"^(?:{ANY}*)$", id="the end of anything"),
        pytest.param("^$", "^(?:)$", id="the empty string"),
        pytest.param("^(|a)", f"^(?:(?:(?:{ANY}*|[a-a]{ANY}*)))$", id="an empty branch with an open end"),
    ],
)
def test_a_pattern_is_rewritten(pattern, written):
    assert raw_pattern(pattern) == written


@pytest.mark.parametrize(
    ("pattern", "matches", "misses"),
    [
        (r"^[A-Z]{2}-\d{3}$", ["AB-123"], ["AB-12", "ab-123", "AB-123\n", "xAB-123"]),
        ("needle", ["needle", 'a "needle"\n', "😀needle\\"], ["need le", ""]),
        ("^(yes|no)$", ["yes", "no"], ["yesno", "", "maybe"]),
        ("^(?P<a>x)(?:y)?z*?$", ["x", "xy", "xyzz"], ["y", "xx"]),
        ('^[^"a]{1,3}$', ["b", "\\\n😀"], ['"', "a", "", "bbbb"]),
        (r"^\S+$", ["a", "é", "\\"], ["", "a b", "a\n", "\u00a0", "\ufeff"]),
        (r"^\W$", ["-", "\n"], ["a", "_", "é"]),
        (r"^[\w.]*$", ["", "a.b_9"], ["a b", "é"]),
        (r"^[^\d]$", ["a", "é"], ["5", "٣"]),
        (r"^[^\W\d]$", ["a", "_"], ["5", "é", "-"]),
        (r"^\D\s$", ["a ", "a\t"], ["5 ", "aa"]),
        (r"^\\$", ["\\"], ["\\\\", ""]),
        ("^.$", ["a", "\\", '"', "\t", "😀"], ["\n", "\r", "\u2028", "", "ab"]),
        ("^a{2,}b{0,2}$", ["aa", "aaabb"], ["a", "aabbb"]),
        ("a$", ["a", "ba"], ["ab", "a\n"]),
        ("^a", ["a", "ab\n"], ["ba"]),
        ("(^a|b)c", ["ac", "xbc", "acx"], ["xac", "c"]),
        (r"^[\x00-\x1f]$", ["\n", "\b"], ["\x01", " "]),
        ("^日本$", ["日本"], ["日"]),
    ],
)
def test_strings_are_let_through_or_not(pattern, matches, misses):
    written = raw_pattern(pattern)
    assert [text for text in matches + misses if allows(written, text)] == matches


FLAGS = "has flags, which a grammar does not know"
LOOKS = "has a look-around, a back-reference or a possessive part, which no grammar can keep to"
INSIDE = "has an anchor or a word boundary inside; only ^ at its start and $ at its end"


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(", "is not a regular expression: missing ), unterminated subpattern at position 0"),
        ("a{2,1}", "is not a regular expression: min repeat greater than max repeat at position 2"),
        (r"\p{L}", r"is not a regular expression: bad escape \p at position 0"),
        ("a{99999999999}", "is not a regular expression: the repetition number is too large"),
        ("(" * 1999, "is nested too deeply"),
        ("(?:" * 285 + "a" + "|b)*" * 285, "is nested too deeply"),
        ("(?i)a", FLAGS),
        ("(?i:a)", FLAGS),
        ("a(?=b)", LOOKS),
        ("(?!b)", LOOKS),
        ("(?<=a)b", LOOKS),
        (r"(a)\1", LOOKS),
        ("(?P<a>b)(?P=a)", LOOKS),
        ("(a)?(?(1)b|c)", LOOKS),
        ("a*+", LOOKS),
        ("(?>a)", LOOKS),
        ("a^b", INSIDE),
        ("a$b", INSIDE),
        (r"\ba", INSIDE),
        (r"a\B", INSIDE),
        ("(a$|b)c", INSIDE),
        ("(^a)+", INSIDE),
        ("\x00", "needs a control character that JSON text cannot hold"),
        (r"[\x01-\x07]", "needs a control character that JSON text cannot hold"),
        ("\ud83d", "needs a control character that JSON text cannot hold"),
    ],
)
def test_a_pattern_that_no_grammar_keeps_to_is_refused(pattern, problem):
    with pytest.raises(PatternProblem) as refused:
        raw_pattern(pattern)
    assert str(refused.value).startswith(problem)


classes = st.sampled_from(
    [
        *(".", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", "[^a]", r"[^\s\d]", r"[\w\W]", '["-]', "[^\\\\b-y]", "[à-ÿ]"),
        *("a", "b", "-", '"', r"\\", r"\n", "é", "日", "😀", "(a|b)", "(?:|a.)", "(b|^a)", "(a|b$)", "[ -~]"),
    ]
)
repeats = st.sampled_from(["", "", "", "?", "*", "+", "{2}", "{1,2}", "*?"])
parts = st.lists(st.tuples(classes, repeats).map("".join), max_size=3).map("".join)
patterns = st.tuples(st.sampled_from(["", "^"]), parts, st.sampled_from(["", "$", "|b$", "|^a"])).map("".join)
letters = st.sampled_from([*'abz5_ -"\\/\n\r\t\x00\x1f\x7fé٣ÿ日😀', "\u00a0", "\u2028", "\ufeff", "\u0130"])


@settings(max_examples=60, deadline=None)
@given(patterns, st.lists(letters, max_size=4).map("".join))
def test_only_strings_that_the_pattern_finds_are_let_through(pattern, text):
    try:
        written = raw_pattern(pattern)
    except PatternProblem:
        return
    assert not allows(written, text) or re.search(pattern, text)


@pytest.mark.parametrize(
    ("format_name", "texts", "others"),
    [
        ("date", ["2024-02-28", "1999-12-31"], ["2023-02-29", "2024-13-01", "2024-04-31", "24-1-1", "0000-01-01"]),
        ("time", ["23:59:59Z", "00:00:00.5+02:00"], ["24:00:00Z", "12:00:00", "12:60:00Z"]),
        ("date-time", ["2024-02-28T12:00:00Z"], ["2024-02-28 12:00:00Z", "2024-02-28"]),
        ("uuid", ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567e89b12d3a456426614174000"]),
        ("ipv4", ["127.0.0.1", "255.249.199.9"], ["256.0.0.1", "1.2.3", "01.2.3.4"]),
        ("email", ["a.b+c@d-e.org"], ["a@b", "@b.org", ".a@b.org", "a b@c.org"]),
    ],
)
def test_a_format_is_a_pattern(format_name, texts, others):
    written = raw_pattern(f"^(?:{FORMATS[format_name]})$")
    assert [text for text in texts + others if allows(written, text)] == texts


def test_any_string_counts_characters_and_not_their_escapes():
    pattern = any_string(2, 3)
    assert [text for text in ["a", '"\n', "😀\\é", "abcd"] if allows(pattern, text)] == ['"\n', "😀\\é"]
    assert any_string(1, None) == f"^{ANY}{{1,}}$"
