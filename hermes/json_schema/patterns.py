"""The patterns of a JSON schema, rewritten so that llguidance and the validator read them alike.

JSON Schema has the regular expressions of ECMAScript (https://tc39.es/ecma262/#sec-patterns). llguidance reads them
with Rust's syntax, the validator with that of Python's `regex`. Both have more syntax (set operators, nested classes,
fuzzy matching), and each has its own meaning of `$`, `\\d` or `{,2}`.
"""

import functools
import re

MAX_PATTERN, MAX_PORTABLE = 4_000, 20_000  # characters
SETS = {
    "d": "0-9",
    "D": r"\x00-\x2f\x3a-\U0010ffff",
    "w": "0-9A-Z_a-z",
    "W": r"\x00-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\U0010ffff",
    "s": r"\x09-\x0d\x20\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff",
    "S": r"\x00-\x08\x0e-\x1f\x21-\x9f\xa1-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e\u2030-\u205e\u2060-\u2fff"
    r"\u3001-\ufefe\uff00-\U0010ffff",
}
NUL = r"\x00"
EVERY = r"\x00-\U0010ffff"
# In the words of `regex`: what is wrong in ECMAScript, too, and not only unknown to `regex`.
FAULTS = re.compile("missing |unbalanced |unterminated |bad character range|min repeat|nothing to|.*end of pattern")
CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "b": 8, "0": 0}
OPERATORS = {
    "$": r"\z",  # `regex` takes $ before a last line end, too
    ".": r"[^\x0a\x0d\u2028\u2029]",
    r"\b": r"(?:(?<=[0-9A-Z_a-z])(?![0-9A-Z_a-z])|(?<![0-9A-Z_a-z])(?=[0-9A-Z_a-z]))",
    r"\B": r"(?:(?<=[0-9A-Z_a-z])(?=[0-9A-Z_a-z])|(?<![0-9A-Z_a-z])(?![0-9A-Z_a-z]))",
}
HEX = "[0-9A-Fa-f]"
ESCAPE = (
    rf"\\(?:[dDwWsStnvfr]|0(?![0-9])|c[A-Za-z]|x{HEX}{{2}}|u[dD][89ABab]{HEX}{{2}}\\u[dD][C-Fc-f]{HEX}{{2}}"
    rf"|u(?![dD][89A-Fa-f]){HEX}{{4}}|u\{{(?!0*[dD][89A-Fa-f]..\}})(?:10|0?{HEX})?{HEX}{{1,4}}\}}|[^A-Za-z0-9])"
)
MEMBER = rf"(?:{ESCAPE}|\\b|[^\\\]])"
MEMBERS = re.compile(rf"({MEMBER})(?:-({MEMBER}))?", re.S)
TOKEN = re.compile(
    rf"""(?P<every>\[\^\])|(?P<none>\[\])|(?P<set>\[(?![^\]]*\[:)(?P<negated>\^?)(?P<members>{MEMBER}+)\])
    |(?P<quantifier>(?:[*+?]|\{{[0-9]+(?:,[0-9]*)?\}})\??)
    |(?P<group>\((?:\?(?:P?<[A-Za-z_][A-Za-z0-9_]*>|:|(?P<look><?[=!])))?(?!\?))
    |(?P<assertion>[\^$|]|\\[bB])
    |(?P<atom>{ESCAPE}|[^\\()\[{{*+?])
    |(?P<close>\))
    |(?P<other>.)""",
    re.S | re.X,
)

WRITTEN_SET = re.compile(r"\[[^]]*\]")


@functools.lru_cache(maxsize=256)
def portable(pattern: str) -> str | None:
    """Rewrite a pattern with what all engines read alike; None if it has other syntax than ECMAScript."""
    written, repeatable = [], False
    for token in TOKEN.finditer(pattern):
        kind = token.lastgroup
        if kind == "other" or (kind == "quantifier" and not repeatable):
            return None
        written.append(_written(token))
        repeatable = kind in ("every", "none", "set", "atom", "close")
    rewritten = "".join(written)
    return rewritten if len(rewritten) <= MAX_PORTABLE else None


def for_llguidance(pattern: str) -> str:
    """Write a pattern for llguidance: as it is portable, but for NUL in sets that lack a quote or a backslash.

    For such a set with all control characters llguidance allows these two as well:
    https://github.com/microsoft/derivre/blob/c68f607/src/regexbuilder.rs#L353
    """
    rewritten = portable(pattern)
    return pattern if rewritten is None else WRITTEN_SET.sub(_without_nul, rewritten)


def _without_nul(written: re.Match[str]) -> str:
    has_nul, *has_both = (re.match(written[0], each) is not None for each in '\0"\\')
    return f"[{written[0]}--{NUL}]" if has_nul and not all(has_both) else written[0]


def _written(token: re.Match[str]) -> str:
    match token.lastgroup:
        case "every" | "none":
            return f"[{'^' if token['none'] else ''}{EVERY}]"
        case "set":
            return f"[{token['negated']}{MEMBERS.sub(_range, token['members'])}]"
        case "quantifier":
            return token[0][0] + token[0][1:].rstrip("?")  # a lazy one matches the same texts
        case "group":
            return f"(?{token['look'] or ':'}"
        case "atom" if token[0] != ".":
            found = _characters(token[0])
            return f"[{found}]" if token[0][1:] in SETS or found == NUL else found
    return OPERATORS.get(token[0], token[0])


def _range(members: re.Match[str]) -> str:
    ends = [each for each in members.groups() if each]
    hyphen = r"\x2d" if any(each[1:] in SETS for each in ends) else "-"  # in [\w-.] it is a character
    return hyphen.join(map(_characters, ends))


def _characters(atom: str) -> str:
    """Write a character, or a set of them, as it stands in brackets."""
    if atom[1:] in SETS:
        return SETS[atom[1:]]
    code = _code(atom)
    return chr(code) if code > 0x7F or chr(code).isalnum() else f"\\x{code:02x}"


def _code(atom: str) -> int:
    if len(atom) == 12:  # a pair of surrogates
        return ord(bytes.fromhex(atom[2:6] + atom[8:]).decode("utf-16-be"))
    if len(atom) > 3:
        return int(atom[2:].strip("{}"), 16)
    if len(atom) == 3:
        return ord(atom[2]) % 32
    return CONTROLS.get(atom[1:], ord(atom[-1]))


def pattern_problem(pattern: str) -> str | None:
    """Describe why a pattern is refused; None if it can be used, or has syntax of ECMAScript that no engine reads."""
    import regex  # type: ignore[import-untyped]

    if len(pattern) > MAX_PATTERN:
        return f"it has {len(pattern)} characters; at most {MAX_PATTERN}"
    try:
        regex.compile(portable(pattern) or pattern)
    except regex.error as error:
        return str(error.msg) if FAULTS.match(error.msg) else None
    except RecursionError as error:
        return str(error)
    return None
