"""A pattern means the same to the grammar and to the validator, or its keyword is listed as not enforced.

The patterns are drawn from all syntax that either engine accepts: llguidance has Rust's regex-syntax, the validator
Python's module `regex`.
"""

import json
import random
from collections import Counter

from hermes.json_schema.grammar import enforceable
from hermes.json_schema.limits import SchemaProblem
from hermes.json_schema.validate import Validator
from tests.support.grammars import allows, matcher_of, write
from tests.support.hostile import TIMES, quiet

pytestmark = quiet

PATTERNS = 300


def words(text):
    """The words of a text."""
    return text.split()


# Some are special to one engine, or equal without case (k, s), or white space or a line end to one engine only.
CHARACTERS = [*"aAbkKsS09_-&~|:=,/@<>#^'\"{}]!e ", *"é٣ſ\u212aİıßµ𝔘日", *"\n\r\t\v\x00\x1c\x85\xa0\u2028\ufeff\ufffd"]
LITERALS = [each for each in CHARACTERS if each not in '|"{^'] + [*"aabb", "{", "{a", "a{", "{}", "||"]
ESCAPES = [f"\\{chr(code)}" for code in range(0x20, 0x7F)] + [f"\\{each}" for each in "wWdDsStnvfr-./\n"] * 9
CODES = words(r"""
    \xe9 \x{e9} \u00e9 \u{e9} \u{1D518} \U000000e9 \U{e9} \ud835\udd18 \ud835 \u0041 \x{110000} \N{DIGIT} \cJ \cj \0 \00
    \012 \60 \8 \p{L} \pL \P{Ll} \PN \p{^L} \p{Greek} \p{Script=Greek} \p{Alpha} \p{ASCII}
""")
IN_CLASS = words(r"""
    a-z A-Z 0-9 !-~ a-é \0-\x1f \u0000-\uffff a-\d \d-a \w-. !-\d - -- a- && ~~ || [:alpha:] [:^digit:] [:word:] [=a=]
    [.a.] [ [a []
""")
USUAL_QUANTIFIERS = words("* + ? {2} {1,} {0,2} {01,2} *? +? ?? {2}? {1,}?")
QUANTIFIERS = [
    *USUAL_QUANTIFIERS * 3,
    "{ 1 , 2 }",
    *words("{,2} {,} {e} {e<=1} {i<=1:[a]} {2 *+ ++ ?+ {2}+ {2}{2} ** +*"),
]
OPENINGS = words("""
    ( (?: (?P<x> (?<x> (?P<stop> (?'x' (?> (?| (?i: (?s: (?m: (?x: (?-u: (?i-s: (?U: (?R: (?f: (?= (?! (?<= (?<! (?(1)
    (?(DEFINE)
""")
USUAL_ALONE = words(r"^ $ . | () \b")
ALONE = [
    *USUAL_ALONE * 9,
    *words(r"(?R) (?0) (?1) (?&x) (?P>x) (?P=x) \1 \k<x> \g<1> \L<x> (?#a) \Qa.\E \< \> \b{start} \b{start-half}"),
    *words("(?i) (?s) (?m) (?x) (?u) (?-u) (?a) (?U) (?R) (?r) (?V1) (?b) (?e) (?p) (?w) (?L) (?f) (?is-m)"),
    "# a\n",
]


def drawn_class(draw, depth=0):
    """A character class, perhaps nested or with set operators."""
    opening = draw.choice(["[", "[", "[", "[", "[^", "[^", "[^", "[]", "[^]", "[-", "[&&"])
    kinds = [LITERALS, LITERALS, ESCAPES, CODES, IN_CLASS, IN_CLASS]
    members = [draw.choice(draw.choice(kinds)) for _ in range(draw.randint(1, 3))]
    if depth < 2 and draw.random() < 0.2:
        members.insert(draw.randint(0, len(members)), drawn_class(draw, depth + 1))
    return f"{opening}{''.join(members)}]"


def drawn_pattern(draw, depth=0):
    """A pattern of a few parts, most of them in the syntax of one engine at least."""
    parts = []
    for _ in range(draw.choice([1, 1, 2, 3])):
        kind = draw.choice([LITERALS, LITERALS, LITERALS, ESCAPES, ESCAPES, CODES, ALONE, None, None, None])
        part = draw.choice(kind) if kind else drawn_class(draw)
        if depth < 2 and draw.random() < 0.2:
            opening = draw.choice(OPENINGS[:4] if draw.random() < 0.7 else OPENINGS)
            part = f"{opening}{drawn_pattern(draw, depth + 1)})"
        parts.append(part + (draw.choice(QUANTIFIERS) if draw.random() < 0.25 else ""))
    joined = "|".join(parts) if draw.random() < 0.2 else "".join(parts)
    return joined if depth else draw.choice(["{}", "^{}", "^{}$", "^(?:{})$", "{}$", r"\A{}\Z"]).replace("{}", joined)


def schemas_with(pattern):
    """Each keyword that takes a pattern, and values that its grammar must judge as the validator does."""
    name, whole = {pattern: {"type": "integer"}}, {"type": "integer"}
    return [
        ({"type": "string", "pattern": pattern}, lambda text: [text]),
        ({"type": "object", "patternProperties": name}, lambda text: [{text: 1}, {text: "x"}]),
        ({"type": "object", "patternProperties": name, "additionalProperties": False}, lambda text: [{text: 1}]),
        ({"type": "object", "propertyNames": {"pattern": pattern}}, lambda text: [{text: 1}]),
        ({"propertyNames": {"pattern": pattern}, "additionalProperties": whole}, lambda text: [{text: 1}, {text: "x"}]),
    ]


def differences(schema, values, seed, drawn):
    """Where the grammar and the validator of a schema differ although nothing is named, as one line each."""
    try:
        enforced = enforceable(schema)
    except SchemaProblem:
        drawn["schemas that are refused"] += 1
        return
    if enforced.unenforced:
        drawn["schemas of which something is named"] += 1
        return
    drawn["schemas that are enforced"] += 1
    matcher, validator = matcher_of(enforced), Validator(schema)
    for text in filter(None, (write(matcher.deep_copy(), seed + number) for number in range(2))):
        if problem := validator.problem(json.loads(text)):
            yield f"{schema}: the grammar writes {text}, the validator says: {problem}"
    for value in values:
        taken = allows(matcher.deep_copy(), json.dumps(value, ensure_ascii=False))
        problem = validator.problem(value)
        drawn["values that both take" if taken else "values that both refuse"] += 1
        # llguidance can't write NUL for most sets, see for_llguidance
        if taken != (problem is None) and (taken or "\\u0000" not in json.dumps(value)):
            yield f"{schema}: {value}, the grammar {'takes' if taken else 'refuses'} it, the validator says: {problem}"


def test_the_grammar_and_the_validator_agree_on_every_pattern_that_is_enforced(capsys):
    drawn, found, began = Counter(), [], 0 if TIMES == 1 else random.randrange(10**9)
    for seed in range(began, began + PATTERNS * TIMES):
        draw = random.Random(seed)
        pattern = drawn_pattern(draw)
        texts = ["", *draw.sample(CHARACTERS, 25), *("".join(draw.choices(CHARACTERS, k=2)) for _ in range(5))]
        for schema, values_with in schemas_with(pattern):
            values = [value for text in texts for value in values_with(text)]
            found += differences(schema, values, seed, drawn)
    with capsys.disabled():
        print(f"\nof {PATTERNS * TIMES} patterns: {dict(drawn)}")
    assert not found, "\n".join([f"{len(found)} differences", *sorted(found, key=len)[:20]])
    assert drawn["schemas that are enforced"] > PATTERNS
