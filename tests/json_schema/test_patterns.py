"""The meaning of a pattern is that of ECMAScript. The rows are also in the JSON Schema Test Suite, most of them."""

import pytest

from hermes.json_schema.grammar import enforceable
from hermes.json_schema.patterns import MAX_PORTABLE, pattern_problem, portable
from hermes.json_schema.validate import Validator


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        pytest.param("^abc$", ["abc"], ["abc\n", "xabc"], id="$ is the end, and not before a last line end"),
        pytest.param("^.$", ["a", "\x85", "𝔘"], ["\n", "\r", "\u2028", "\u2029"], id="a dot is no line end"),
        pytest.param(r"^\d$", ["0"], ["߀", "a"], id="digits are ASCII"),
        pytest.param(r"^\D$", ["߀", "a"], ["0"], id="no digit"),
        pytest.param(r"^\w$", ["a", "_"], ["é", "\u212a", "-"], id="words are ASCII"),
        pytest.param(r"^\W$", ["é", "-"], ["a"], id="no word"),
        pytest.param(
            r"^\s$", [" ", "\t", "\xa0", "\ufeff", "\u2029", "\u2003"], ["\x01", "\u2013", "\x85"], id="space"
        ),
        pytest.param(r"^\S$", ["\x01", "\u2013", "\x85"], [" ", "\t", "\ufeff"], id="no space"),
        pytest.param(r"\bé", ["aé"], [" é"], id="the ends of words are ASCII"),
        pytest.param(r"^\cC\x41\u00e9\u{1D518}\ud835\udd18\0$", ["\x03Aé𝔘𝔘\0"], [], id="escapes"),
        pytest.param(r"^\/\-\_\<\é$", ["/-_<é"], [], id="escapes that are not needed"),
        pytest.param(r"^[\w-.]$", ["a", "-", "."], ["+"], id="a hyphen beside a class"),
        pytest.param(r"^[-a-c-]$", ["-", "b"], ["d"], id="hyphens at the ends"),
        pytest.param(r"^[a-z&&[^b]]$", ["b]", "&]", "[]"], ["a"], id="no set operators and nested classes"),
        pytest.param(r"^[+--~~||]$", ["-", "|", "~"], ["a"], id="no other set operators"),
        pytest.param(r"^[\b\]^\-]$", ["\b", "]", "^", "-"], ["b", "\\"], id="escapes in a class"),
        pytest.param(r"^(?<year>\d{2,}?)(?:a|)]}$", ["12]}", "123a]}"], ["1]}"], id="groups and quantifiers"),
        pytest.param(r"^(?!.*x)(?<!y)a(?=b)(?<=a)b$", ["ab"], ["abx"], id="look-around"),
        pytest.param("^[^]$", ["\n", "a", "𝔘"], ["", "ab"], id="any character"),
        pytest.param("^(?:[]|a[^]+b)$", ["a\nb", "a]b"], ["", "]", "ab"], id="no character"),
        pytest.param("[]a]", [], ["]", "a", "a]", ""], id="no character, and more"),
        pytest.param("", ["", "a"], [], id="nothing"),
    ],
)
def test_the_meaning_of_a_pattern(pattern, matching, others):
    assert portable(pattern) is not None
    validator = Validator({"pattern": pattern})
    assert [text for text in matching if validator.problem(text)] == []
    assert [text for text in others if not validator.problem(text)] == []


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "(?i)a",
            "(?s:.)",
            "(?#a)",
            "(?>a)",
            "(?R)",
            "(?P=x)",
            r"(a)\1",
            r"\k<x>",
            r"\p{L}",
            r"\A",
            r"\Z",
            r"\h",
            r"\012",
        ),
        *(
            "a++",
            "a{2}{3}",
            "a{,2}",
            "a{ 1 }",
            "a{e}",
            "{",
            "*",
            "^*",
            "(|*)",
            "[[:alpha:]]",
            "[a",
            "(?",
        ),
        *(r"\ud835", r"\udd18", r"\u{110000}", r"\u{d835}", r"\xg", r"\u12", r"\c1", "\\"),
        r"\S" * 200 * (MAX_PORTABLE // 10_000),
    ],
)
def test_syntax_that_not_all_have_is_not_rewritten(pattern):
    assert portable(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(a", "missing )"),
        ("a)", "unbalanced parenthesis"),
        ("[b-a]", "bad character range"),
        ("a{3,2}", "min repeat greater than max repeat"),
        ("a" * 4_001, "it has 4001 characters; at most 4000"),
    ],
)
def test_a_pattern_that_no_engine_can_use_has_a_problem(pattern, problem):
    assert pattern_problem(pattern) == problem


# ECMAScript reads all of them, some only without the flag u.
UNREAD = [r"\u{zz}", r"\xg", r"\c1", r"(?<$a>b)", r"(?<a>b)\k<a>", r"\p{RGI_Emoji}", r"\u12", r"[\c]", r"\p{Any}\k"]


@pytest.mark.parametrize("pattern", UNREAD)
@pytest.mark.parametrize(
    ("keyword", "schema"),
    [
        ("$.pattern", lambda pattern: {"type": "string", "pattern": pattern}),
        ("$.patternProperties", lambda pattern: {"patternProperties": {pattern: False}, "additionalProperties": False}),
        ("$.propertyNames", lambda pattern: {"type": "object", "propertyNames": {"pattern": pattern}}),
    ],
)
def test_a_pattern_that_no_engine_reads_is_not_enforced_and_not_checked(pattern, keyword, schema):
    assert pattern_problem(pattern) is None
    assert keyword in enforceable(schema(pattern)).unenforced
    assert [
        Validator(schema(pattern)).problem(value) for value in ("a", {"a": 1}) if keyword != "$.pattern" or value == "a"
    ]
