"""JSON as a model writes it: where an object ends in running text, and what it says.

Python's quotes and words and a comma too many are read like JSON. Nothing is evaluated and nothing is made up: such
text is rewritten token by token and given to json. All of it is linear in the text, also when that comes in small
pieces, and never recurses on it.
"""

import json
import re
import sys
from typing import Any, Literal, NamedTuple, NoReturn

MAX_DEPTH = 64
MAX_DIGITS = 400  # of an integer: int() takes its number squared, and refuses 4,300

# The tags and wrappers of tool calls. They end an object that is broken, unless they are inside of a string.
OPEN = rb"<(?:tool_call|function_call|tools|function=(?P<function>[\w.:-]{1,128}))>"
CLOSE = rb"</(?:tool_call|function_call|tools|function)>"
CUT = rb"</?[a-z_]{0,13}\Z|<function=[\w.:-]{0,128}\Z"  # what may yet become one
TAG = re.compile(OPEN + b"|" + CLOSE)

# A backslash takes the next character with it outside of strings too. So text that is read in step and text that is
# read out of step with its quotes can never fall into step, and few readings overlap however often one starts again.
STRUCTURE = re.compile(
    rb"""(?P<open>[{\[]+) | (?P<close>[}\]]+) | (?P<tag>%b|%b) | (?P<held>%b|\\\Z)
       | (?P<skip>\\.|(?:(?:"(?:[^"\\<]|<(?!/?[tf]))*+"|'(?:[^'\\<]|<(?!/?[tf]))*+')[\s,:]*+)++)  # strings in one go
       | (?P<quote>["'])"""
    % (OPEN, CLOSE, CUT),
    re.DOTALL | re.VERBOSE,
)
INSIDE = {quote: re.compile(rb"[^%c\\]*+(?:\\.[^%c\\]*+)*+" % (quote, quote), re.DOTALL) for quote in b"\"'"}
SPACE = re.compile(rb"\s*+")


class Ending(NamedTuple):
    """How an object ends, and where.

    closed: by its last bracket. tag: a tag cuts it. torn: so does one inside of a string that was never meant to go on
    behind it. more: the text ends first.
    """

    how: Literal["closed", "tag", "torn", "more"]
    at: int


class ObjectScan:
    """Finds the end of the object that begins at `start`, in a text that may still grow."""

    def __init__(self, text: bytearray, start: int):
        self.start = start
        self.depth = 0  # brackets that are open
        self._text = text
        self._at = start
        self._string: int | None = None  # where the open string began
        self._tag: int | None = None  # the first tag in the string before _at, until that string is known to be whole

    def scan(self) -> Ending:
        """Go on from where the last call came to the end of the text."""
        ending = None
        while ending is None:
            if self._string is not None:
                ending = self._read_string(self._string)
            elif self._tag is not None:
                ending = self._judge_string(self._tag)
            else:
                ending = self._read_structure()
        return ending

    def give_up(self) -> Ending:
        """The ending if the text does not grow any more."""
        if self._string is not None and (tag := TAG.search(self._text, self._string)):
            return Ending("torn", tag.start())
        return Ending("more", len(self._text)) if self._tag is None else Ending("torn", self._tag)

    def _read_structure(self) -> Ending | None:
        token = STRUCTURE.search(self._text, self._at)
        if token is None or token.lastgroup == "held":
            self._at = token.start() if token else len(self._text)
            return Ending("more", self._at)
        size = token.end() - token.start()
        self._at = token.end()
        match token.lastgroup:
            case "tag":
                return Ending("tag", token.start())
            case "open":
                self.depth += size
            case "close" if size >= self.depth:
                return Ending("closed", token.start() + self.depth)
            case "close":
                self.depth -= size
            case "quote":
                self._string = token.start()
        return None

    def _read_string(self, start: int) -> Ending | None:
        quote = self._text[start]
        self._at = _end(INSIDE[quote], self._text, self._at)
        if self._at == len(self._text) or self._text[self._at] != quote:
            return Ending("more", self._at)
        self._at += 1
        self._string = None
        tag = TAG.search(self._text, start, self._at)
        self._tag = tag.start() if tag else None
        return None

    def _judge_string(self, tag: int) -> Ending | None:
        """A string that holds a tag is one, if it is followed by what follows strings; else its quote was missing."""
        self._at = _end(SPACE, self._text, self._at)
        if self._at == len(self._text):
            return Ending("more", self._at)
        if self._text[self._at] not in b",:}]":
            return Ending("torn", tag)
        self._tag = None
        return None


def _end(pattern: re.Pattern[bytes], text: bytearray, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def parse(text: str) -> Any:
    """The value that a text says.

    Raises:
        ValueError: what is wrong with it, in one line.
    """
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
    """The number, or the largest of its sign: the grammar of JSON has no largest, and JSON no infinity."""
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
