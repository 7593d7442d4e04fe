"""A model's text as OpenAI's clients want it: prose as it comes, and each tool call once, when it is whole.

What certainly is prose goes out at once. From where a call may begin, text is held back. tool_calls.parser, which the
server reads the whole text with, decides what it is. So the calls are those of the metric tool_calls.
"""

import re
from collections.abc import Iterator, Sequence

from hermes.tool_calls.call import ToolCall
from hermes.tool_calls.definitions import Function
from hermes.tool_calls.literal import OPEN, object_ending
from hermes.tool_calls.parser import FIRST_KEY, TRAINED_END, Reading, read_tool_calls

Part = str | ToolCall

MAY_BEGIN = re.compile(f"(?P<tag>{OPEN})|(?P<object>{FIRST_KEY})", re.ASCII)
# The end of a text that may go on as one of these, with the fence or bracket before it, which belongs to a call.
UNDECIDED = re.compile(
    r"""(?:`{1,3}|```\w*+\s*+)?(?:\[\s*+)?
        (?:<[a-z_]{0,13}|<function=[\w.:-]{0,128}|\{\s{0,99}(?:"[^"\\<\n]{0,99}"?|'[^'\\<\n]{0,99}'?)?\s{0,99})?\Z""",
    re.ASCII | re.VERBOSE,
)
CLOSING = re.compile("[}<]")  # what an object, or a tag after its beginning, can end with
LONG = 2000  # characters of an object; longer ones are read again only once they have grown by a twentieth
AROUND = re.compile(r"(?:```\w*+\s*+)?(?:\[\s*+)?\Z", re.ASCII)


class Answer:
    """One answer, read while it is written."""

    def __init__(self, functions: Sequence[Function]):
        """Take the functions that may be called; without one, all text is prose."""
        self._schemas = {function.name: function.parameters for function in functions}
        self._text = ""
        self._at = 0  # where the next call may begin
        self._sent = 0  # characters of the prose
        self._calls = 0  # given out
        self._calling = False  # a call has begun: prose waits for the end
        self._open = (0, 0, 0)  # an object that may be a call: its beginning, and up to where it was read, and seen

    def feed(self, piece: str) -> Iterator[Part]:
        """Take a piece of text; give what is certain now."""
        if not self._schemas:
            yield piece
            return
        self._text += piece
        if not self._calling:
            yield from self._prose(self._certain())
        if self._calling and TRAINED_END in self._text[-len(piece) - len(TRAINED_END) :]:
            end = self._text.rindex(TRAINED_END) + len(TRAINED_END)
            yield from self._new_calls(self._read(self._text[:end], cut=True))

    def end(self, *, cut: bool) -> Iterator[Part]:
        """Give the rest. `cut`: max_tokens or a timeout ended the text, not the model."""
        if self._schemas:
            reading = self._read(self._text, cut=cut)
            yield from self._prose(reading.text)
            yield from self._new_calls(reading)

    def _read(self, text: str, *, cut: bool) -> Reading:
        return read_tool_calls(text, self._schemas, cut=cut)

    def _new_calls(self, reading: Reading) -> Iterator[ToolCall]:
        yield from reading.calls[self._calls :]
        self._calls = max(self._calls, len(reading.calls))

    def _prose(self, so_far: str) -> Iterator[str]:
        """What is new in the prose, which begins with a word: a call leaves blanks around it."""
        so_far = so_far.lstrip()
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
