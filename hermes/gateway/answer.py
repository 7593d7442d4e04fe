"""A model's text as clients want it: prose as it comes, and tool calls as a name and its arguments.

What certainly is prose goes out at once. From where a call may begin, text is held back. tool_calls.parser, which the
server reads the whole text with, decides what it is. So the calls are those of the metric tool_calls.

The model writes the arguments of a call before its name, and clients want the name first. So a call goes out when it is
whole. Where only one function can be called, its name is known and the arguments go out as they are written.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hermes.json_schema.keywords import is_surely_enforced
from hermes.tool_calls.call import BadToolCall, ToolCall
from hermes.tool_calls.definitions import Function
from hermes.tool_calls.literal import OPEN, object_ending
from hermes.tool_calls.parser import CUT_OFF, FIRST_KEY, TRAINED, TRAINED_END, Reading, read_tool_calls


@dataclass(frozen=True)
class CallStart:
    """A call begins. All that comes up to the next call, or to the end, are its arguments."""

    name: str


@dataclass(frozen=True)
class Arguments:
    """A part of the arguments of a call. Joined, they are JSON, or its beginning where max_tokens cut the call."""

    text: str
    is_last: bool = field(default=False, compare=False)  # they are whole


Part = str | CallStart | Arguments

# As the model is made to write a call, up to its arguments.
HEAD = re.compile(r'\s{0,9}<tool_call>\s{0,9}\{\s{0,9}"arguments"\s{0,9}:\s{0,9}(?=\{)', re.ASCII)
MARK = re.compile(r'[{}"\\]')

MAY_BEGIN = re.compile(f"(?P<tag>{OPEN})|(?P<object>{FIRST_KEY})", re.ASCII)
# The end of a text that may go on as one of these, with the fence or bracket before it, which belongs to a call.
UNDECIDED = re.compile(
    r"""(?:`{1,3}|```\w*+\s*+)?(?:\[\s*+)?
        (?:<[a-z_]{0,13}|<function=[^<>\n]{0,128}|\{\s{0,99}(?:"[^"\\<\n]{0,99}"?|'[^'\\<\n]{0,99}'?)?\s{0,99})?\Z""",
    re.ASCII | re.VERBOSE,
)
CLOSING = re.compile("[}<]")  # what an object, or a tag after its beginning, can end with
LONG = 2000  # characters of an object; longer ones are read again only once they have grown by a twentieth
AROUND = re.compile(r"(?:```\w*+\s*+)?(?:\[\s*+)?\Z", re.ASCII)


class Answer:
    """One answer, read while it is written."""

    def __init__(self, functions: Sequence[Function], *, or_document: bool = False, continues: bool = False):
        """Args:
        functions: that may be called; without one, all text is prose.
        or_document: the answer is calls or a JSON document, and its first character says which.
        continues: the answer goes on with a text, so a blank at its beginning belongs to it.
        """
        self._continues = continues
        self._schemas = {function.name: function.parameters for function in functions}
        self._or_document = or_document
        self._text = ""
        self._at = 0  # where the next call may begin
        self._sent = 0  # characters of the prose
        self._given = 0  # calls, good and bad, that the reader found
        self._calling = False  # a call has begun: prose waits for the end
        self._open = (0, 0, 0)  # an object that may be a call: its beginning, and up to where it was read, and seen
        self._live = _LiveCalls(functions[0]) if len(functions) == 1 else None

    def feed(self, piece: str) -> Iterator[Part]:
        """Take a piece of text; give what is certain now."""
        if not self._schemas:
            yield piece
            return
        self._text += piece
        if self._or_document:
            begun = self._text.lstrip()
            self._or_document = not begun
            if begun and not begun.startswith("<"):
                self._schemas = {}
                yield begun
        if not self._or_document and self._schemas:
            yield from self._parts(len(piece))

    def end(self, *, cut: bool) -> Iterator[Part]:
        """Give the rest. `cut`: max_tokens or a timeout ended the text, not the model."""
        if self._schemas and not (cut and TRAINED.startswith(self._text.strip())):  # else only a tag was begun
            reading = self._read(self._text, cut=cut)
            yield from self._prose(reading.text)
            yield from self._new_calls(reading)
            if self._live and reading.found and _is_cut(reading.found[-1]):
                yield from self._live.cut_call(self._text)

    def _parts(self, new: int) -> Iterator[Part]:
        if not self._calling:
            yield from self._prose(self._certain())
        if not self._calling:
            return
        if self._live:
            for part in self._live.feed(self._text):
                self._given += isinstance(part, CallStart)
                yield part
        if TRAINED_END in self._text[-new - len(TRAINED_END) :]:
            end = self._text.rindex(TRAINED_END) + len(TRAINED_END)
            yield from self._new_calls(self._read(self._text[:end], cut=True))

    def _read(self, text: str, *, cut: bool) -> Reading:
        return read_tool_calls(text, self._schemas, cut=cut)

    def _new_calls(self, reading: Reading) -> Iterator[Part]:
        found = [each for each in reading.found if not _is_cut(each)]  # what is cut may yet become whole
        for call in found[self._given :]:
            if isinstance(call, ToolCall):
                yield CallStart(call.name)
                yield Arguments(json.dumps(call.arguments, ensure_ascii=False), is_last=True)
        self._given = max(self._given, len(found))

    def _prose(self, so_far: str) -> Iterator[str]:
        """What is new in the prose, which begins with a word: a call leaves blanks around it."""
        so_far = so_far if self._continues else so_far.lstrip()
        if len(so_far) > self._sent:
            yield so_far[self._sent :]
            self._sent = len(so_far)

    def _certain(self) -> str:
        """The text up to where a call may begin."""
        text = self._text
        while begins := MAY_BEGIN.search(text, self._at):
            if begins.lastgroup == "object":
                if self._is_open(begins.start()):
                    return self._before(begins.start())
                ending = object_ending(text, begins.start(), cut=True)
                if ending.how == "more":
                    self._open = begins.start(), len(text), len(text)
                    return self._before(begins.start())
                if not self._read(text[begins.start() : ending.at], cut=False).found:
                    self._at = ending.at
                    continue
            self._calling = True
            if self._live:
                self._live.begin(begins.start())
            return self._before(begins.start())
        undecided = UNDECIDED.search(text, self._at)
        self._at = undecided.start() if undecided else len(text)
        return text[: self._at]

    def _is_open(self, start: int) -> bool:
        """Whether an object need not be read again: nothing closed it since, or it is long and has hardly grown."""
        began, read, seen = self._open
        if began != start or not read:
            return False
        if not CLOSING.search(self._text, seen):
            self._open = start, read, len(self._text)
            return True
        return read - start > LONG and len(self._text) - read < (read - start) // 20

    def _before(self, at: int) -> str:
        around = AROUND.search(self._text, self._at, at)
        return self._text[: around.start() if around else at]


def _is_cut(found: ToolCall | BadToolCall) -> bool:
    return isinstance(found, BadToolCall) and found.problem == CUT_OFF


class _LiveCalls:
    """The calls at the beginning of a text's calls, as they are written, where only one function can be called.

    They stream as long as the model writes as it was trained to, with white space alone between two calls.
    """

    def __init__(self, function: Function):
        self._name = function.name
        self._streams = is_surely_enforced(function.parameters)  # else a whole call may turn out to be a bad one
        self._at = 0  # where the next call begins
        self._arguments: _Object | None = None  # of the call that is being written

    def begin(self, at: int) -> None:
        """The first call begins there."""
        self._at = at

    def feed(self, text: str) -> Iterator[Part]:
        """Give what is new in a text."""
        while self._streams:
            if self._arguments is None:
                if not (head := HEAD.match(text, self._at)):
                    return
                self._arguments = _Object(head.end())
                yield CallStart(self._name)
            if more := self._arguments.more(text):
                yield Arguments(more, is_last=self._arguments.closed)
            if not self._arguments.closed or (end := text.find(TRAINED_END, self._arguments.at)) == -1:
                return
            self._at, self._arguments = end + len(TRAINED_END), None

    def cut_call(self, text: str) -> Iterator[Part]:
        """Give the last call of a text that max_tokens cut, as far as it came, if it was not given."""
        if self._arguments is None and (head := HEAD.match(text, text.rfind(TRAINED))):
            yield CallStart(self._name)
            last = _Object(head.end())
            arguments = last.more(text)
            yield Arguments(arguments, is_last=last.closed)


class _Object:
    """A JSON object in a text that grows."""

    def __init__(self, at: int):
        self.at = at  # up to where it was given
        self.closed = False
        self._depth, self._quoted, self._escaped = 0, False, -1

    def more(self, text: str) -> str:
        """What is new of it."""
        start = self.at
        if self.closed:
            return ""
        for mark in MARK.finditer(text, start):
            at, sign = mark.start(), mark[0]
            if at == self._escaped:
                continue
            if sign == "\\":
                self._escaped = at + 1
            elif sign == '"':
                self._quoted = not self._quoted
            elif not self._quoted:
                self._depth += 1 if sign == "{" else -1
                if not self._depth:
                    self.closed, self.at = True, at + 1
                    return text[start : self.at]
        self.at = len(text)
        return text[start:]
