"""JSON as a model writes it: where an object ends in a text, and its value.

Python's quotes, Python's words and surplus commas are read like JSON. Nothing is evaluated or made up: such text is
rewritten token by token and given to json. The work is linear in the text and never recurses on it.
"""

import json
import re
import sys
from typing import Any, Literal, NamedTuple, NoReturn

MAX_DEPTH = 64
MAX_DIGITS = 400  # of an integer: int() takes its number squared, and refuses 4,300

# The tags and wrappers of tool calls. Outside of a string, one of them ends an object.
OPEN = r"<(?:tool_call|function_call|tools|function=(?P<function>[^<>\n]{1,128}))>"
CLOSE = r"</(?:tool_call|function_call|tools|function)>"
TAG = re.compile(f"{OPEN}|{CLOSE}", re.ASCII)

# Outside of strings, too, a backslash takes the next character with it. So a reading that is in step with the quotes
# and one that is not never meet, and few readings overlap, however often one starts again.
STRUCTURE = re.compile(
    rf"""(?P<open>[{{\[]+) | (?P<close>[}}\]]+) | (?P<tag>{OPEN}|{CLOSE})
       | (?P<skip>\\.|(?:(?:"(?:[^"\\<]|<(?!/?[tf]))*+"|'(?:[^'\\<]|<(?!/?[tf]))*+')[\s,:]*+)++)  # strings in one go
       | (?P<quote>["'])""",
    re.ASCII | re.DOTALL | re.VERBOSE,
)
INSIDE = {quote: re.compile(rf"[^{quote}\\]*+(?:\\.[^{quote}\\]*+)*+", re.DOTALL) for quote in "\"'"}
SPACE = re.compile(r"\s*+", re.ASCII)


class Ending(NamedTuple):
    """How an object ends, and where.

    closed: its last bracket ends it. tag: a tag cuts it. torn: a tag cuts it inside of a string that has no end. more:
    the text ends first.
    """

    how: Literal["closed", "tag", "torn", "more"]
    at: int
    depth: int = 0  # brackets that are open there


def object_ending(text: str, start: int, *, cut: bool) -> Ending:
    """The end of the object that begins at `start`. `cut`: the model did not end the text."""
    depth, at = 0, start
    while token := STRUCTURE.search(text, at):
        size, at = token.end() - token.start(), token.end()
        match token.lastgroup:
            case "tag":
                return Ending("tag", token.start(), depth)
            case "open":
                depth += size
            case "close" if size >= depth:
                return Ending("closed", token.start() + depth)
            case "close":
                depth -= size
            case "quote":
                at, tag = _string(text, token.start(), cut=cut)
                if tag is not None:
                    return Ending("torn", tag, depth)
    return Ending("more", len(text), depth)


def _string(text: str, start: int, *, cut: bool) -> tuple[int, int | None]:
    """Where the string at `start` ends, and the place of a tag in it if its closing quote is missing.

    A string that holds a tag is whole if a comma, a colon or a closing bracket follows it.
    """
    inside = INSIDE[text[start]].match(text, start + 1)
    at = inside.end() if inside else start + 1
    closed = text.startswith(text[start], at)
    at += closed
    tag = TAG.search(text, start, at)
    if tag is None:
        return at, None
    space = SPACE.match(text, at) if closed else None
    at = space.end() if space else len(text)
    whole = cut if at == len(text) else text[at] in ",:}]"
    return at, None if whole else tag.start()


def parse(text: str) -> Any:
    """The value of a text. Raises ValueError if the text is not JSON. The message is one line."""
    try:
        value = _decode(text)
    except ValueError:
        rewritten = TOKEN.sub(_as_json, text)
        if rewritten == text:
            raise
        value = _decode(rewritten)
    _check_depth(value)
    if SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("half of a surrogate pair in a string") from error
    return value


def _decode(text: str) -> Any:
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        place = f"at {text[error.pos : error.pos + 20]!r}" if error.pos < len(text) else "at its end"
        raise ValueError(f"{error.msg[0].lower()}{error.msg[1:].rstrip(': ')} {place}") from error
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error


TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"
SURROGATE = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")
TOKEN = re.compile(
    r"""" [^"\\]*+ (?:\\.[^"\\]*+)*+ " | ' [^'\\]*+ (?:\\.[^'\\]*+)*+ ' | \\. | \w++ | [{\[]\s*+, | ,(?=\s*+[}\]])""",
    re.DOTALL | re.VERBOSE,
)
IN_STRING = re.compile(r'\\.|"', re.DOTALL)
WORDS = {"True": "true", "False": "false", "None": "null", ",": ""}
ESCAPES = {"\\'": "'", '"': '\\"'}


def _as_json(token: re.Match[str]) -> str:
    written = token[0]
    if written[0] not in "\"'":
        return WORDS.get(written, written)
    inside = IN_STRING.sub(lambda each: ESCAPES.get(each[0], each[0]), written[1:-1])
    return f'"{inside}"'


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    """The number, or the largest finite one: JSON can write larger numbers, and has no infinity."""
    return max(-sys.float_info.max, min(sys.float_info.max, float(digits)))


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


DECODER = json.JSONDecoder(strict=False, parse_int=_integer, parse_float=_float, parse_constant=_constant)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        nested = [each for each in level if isinstance(each, dict | list)]
        if not nested:
            return
        level = [child for each in nested for child in (each.values() if isinstance(each, dict) else each)]
    raise ValueError(TOO_DEEP)
