"""The tool calls in what the model writes, finished or streaming.

The model was trained to write `<tool_call>\\n{"arguments": {...}, "name": "..."}\\n</tool_call>` for each call; it does
not always. What can be read in one way only is read; nothing is made up, and every call is checked against its tool's
schema. How the text is cut into pieces never changes what is found.
https://huggingface.co/NousResearch/Hermes-2-Theta-Llama-3-70B
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hermes.json_schema.validate import Patience, Validator
from hermes.tool_calls.call import BadToolCall, Found, ToolCall
from hermes.tool_calls.judge import CALL_BEGINS, bad, is_json, judged, seen_name
from hermes.tool_calls.literal import CLOSE, CUT, OPEN, Ending, ObjectScan

MAX_FOUND = 1_000  # more than a context of 8,192 tokens holds; the rest is not read

CUT_OFF = "cut off before its end"
Schemas = Mapping[str, Mapping[str, Any]]  # tool name -> JSON schema of its arguments


@dataclass(frozen=True)
class Reading:
    """A whole text: the calls, good and bad, in their order, and the prose around them."""

    found: tuple[Found, ...]
    text: str

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return tuple(each for each in self.found if isinstance(each, ToolCall))

    @property
    def bad(self) -> tuple[BadToolCall, ...]:
        return tuple(each for each in self.found if isinstance(each, BadToolCall))


def read_tool_calls(text: str, schemas: Schemas, cut: bool = False) -> Reading:
    """Read a finished text. `cut`: it does not end where the model wanted, but at max_tokens or a timeout."""
    reader = ToolCallReader(schemas)
    reader.feed(text)
    reader.flush(cut)
    return reader.reading


# What is looked for, in bytes: see ToolCallReader. `held` is what may yet become one of the others.
FIRST_KEY = rb"""\{\s{0,99}+(?:"[^"\\<\n]{0,99}+"|'[^'\\<\n]{0,99}+')\s{0,99}+:"""
FIRST_KEY_CUT = rb"""\{\s{0,99}+(?:(?:"[^"\\<\n]{0,99}+(?:"\s{0,99}+)?|'[^'\\<\n]{0,99}+(?:'\s{0,99}+)?)?)\Z"""
IN_PROSE = re.compile(b"(?P<open>%b)|(?P<object>%b)|(?P<held>%b|%b)" % (OPEN, FIRST_KEY, CUT, FIRST_KEY_CUT))
IN_BLOCK = re.compile(rb"(?P<object>\{)|(?P<open>%b)|(?P<close>%b)|(?P<held>%b)" % (OPEN, CLOSE, CUT))
FILLER = re.compile(rb"[\s\[]*+(?:```\w*+)?[\s\[]*+")  # may stand between a tag and an object
AROUND = [(re.compile(r"\[\s*+\Z"), re.compile(r"\s*+\]")), (re.compile(r"```\w*+\s*+\Z"), re.compile(r"\s*+```"))]
BETWEEN = re.compile(r"[\s,]*+")
STRAY = re.compile(r"(?:\s*+</(?:tool_call|function_call|tools|function)>)*+")
TRAILER = re.compile(rb"[\s\]]*+(?:```)?")  # belongs to the last object where the closing tag is missing


@dataclass
class _Block:
    """An open tag, and what came of it so far."""

    start: int
    content: int  # where the tag ends
    function: str | None  # NAME of <function=NAME>
    trained: bool  # <tool_call>; the other wrappers turn up in prose, too
    objects_end: int
    objects: int = 0
    found: int = 0


class ToolCallReader:
    """Reads one text that comes in pieces: for a tag or an object in prose, for objects and the end of a block."""

    def __init__(self, schemas: Schemas):
        patience = Patience()
        self._tools = {name: Validator(schema, patience) for name, schema in schemas.items()}
        self._text = bytearray()  # grows in place, unlike a string; all that is looked for is ASCII
        self._at = 0
        self._block: _Block | None = None
        self._object: ObjectScan | None = None
        self._found: list[Found] = []
        self._taken: list[tuple[int, int]] = []  # spans that are not prose

    def feed(self, piece: str) -> list[Found]:
        """What became certain with this piece."""
        known = len(self._found)
        self._text += piece.encode("utf-8", "surrogatepass")
        while self._step():
            pass
        return self._found[known:]

    def flush(self, cut: bool = False) -> list[Found]:
        """What the end of the text makes certain. `cut`: see `read_tool_calls`."""
        known = len(self._found)
        while self._step() or self._step_at_end(cut):
            pass
        return self._found[known:]

    @property
    def reading(self) -> Reading:
        """All of it; the prose is right after `flush`."""
        return Reading(tuple(self._found), _prose(self._text[: self._end_of_reading], self._taken))

    @property
    def _full(self) -> bool:
        return len(self._found) > MAX_FOUND

    @property
    def _end_of_reading(self) -> int:
        if not self._full:
            return len(self._text)
        return self._block.start if self._block else self._at

    def _add(self, found: Found) -> None:
        full = len(self._found) == MAX_FOUND
        self._found.append(bad("", f"more than {MAX_FOUND} calls; the rest is not read") if full else found)

    def _step(self) -> bool:
        """Read one thing more; False if that takes more text."""
        if self._full:
            return False
        if self._object:
            ending = self._object.scan()
            if ending.how == "more":
                return False
            self._end_object(self._object, ending, cut=False)
            return True
        return self._step_in_block(self._block) if self._block else self._step_in_prose()

    def _step_at_end(self, cut: bool) -> bool:
        """Do without the text that a step waited for."""
        end = len(self._text)
        if self._full:
            return False
        if self._object:
            self._end_object(self._object, Ending("more", end) if cut else self._object.give_up(), cut)
        elif self._block:
            self._end_block(self._block, end, cut=cut)
        elif self._at < end:
            self._at += 1  # what looked like a beginning is prose
        else:
            return False
        return True

    def _step_in_prose(self) -> bool:
        token = IN_PROSE.search(self._text, self._at)
        self._at = token.start() if token else len(self._text)
        if token is None or token.lastgroup == "held":
            return False
        if token.lastgroup == "object":
            self._object = ObjectScan(self._text, token.start())
            return True
        self._at = token.end()
        function = token["function"].decode() if token["function"] else None
        self._block = _Block(token.start(), token.end(), function, token[0] == b"<tool_call>", objects_end=token.end())
        return True

    def _step_in_block(self, block: _Block) -> bool:
        token = IN_BLOCK.search(self._text, self._at)
        self._at = token.start() if token else len(self._text)
        if token is None or token.lastgroup == "held":
            return False
        if token.lastgroup != "object":
            self._end_block(block, token.start(), token.end() if token.lastgroup == "close" else None)
        elif block.trained or block.objects or FILLER.fullmatch(self._text, block.content, token.start()):
            self._object = ObjectScan(self._text, token.start())
        else:  # a wrapper that was only mentioned
            self._block, self._at = None, block.content
        return True

    def _end_block(self, block: _Block, at: int, closed: int | None = None, cut: bool = False) -> None:
        inside = self._written(block.content, at).strip()
        at_end = closed is None and at == len(self._text)
        if block.trained and not block.objects and (inside or closed or at_end):  # else two opens in a row, a stutter
            problem = "there is no JSON object in the tag" if inside else "the tag is empty"
            self._add(bad(self._written(block.start, closed or at), CUT_OFF if cut else problem))
        if block.trained or block.found:
            trailer = TRAILER.match(self._text, block.objects_end, at) if block.objects else None
            self._taken.append((block.start, closed or (trailer.end() if trailer else at)))
        self._block, self._at = None, closed or at

    def _end_object(self, scan: ObjectScan, ending: Ending, cut: bool) -> None:
        found = self._judge(scan, ending, cut)
        if found:
            self._add(found)
        self._object, self._at = None, ending.at
        if self._block:
            self._block.objects_end = ending.at
            self._block.objects += 1
            self._block.found += bool(found)
        elif found:
            self._taken.append((scan.start, ending.at))

    def _judge(self, scan: ObjectScan, ending: Ending, cut: bool) -> Found | None:
        """What an object turns out to be: a call, a bad one, or none."""
        text = self._written(scan.start, ending.at)
        if self._block is None and not ("name" in text and ("arguments" in text or "parameters" in text)):
            return None  # without a tag it is an answer
        if ending.how == "closed":
            return self._called(text, text)
        if self._block is None:
            meant = cut and CALL_BEGINS.match(text) and seen_name(text, self._tools)
            return bad(text, CUT_OFF, seen_name(text, self._tools)) if meant else None
        if ending.how == "tag" and self._text.startswith(b"</", ending.at) and not text.rstrip().endswith(","):
            completed = text + "}" * scan.depth  # the model ended the call; braces may be all that is missing
            if is_json(completed):
                return self._called(text, completed)
        problem = "a string in it is not closed" if ending.how == "torn" else "the JSON object is not finished"
        return bad(text, CUT_OFF if cut else problem, seen_name(text, self._tools))

    def _called(self, written: str, text: str) -> Found | None:
        block = self._block
        return judged(
            text,
            written,
            self._tools,
            function=block.function if block else None,
            in_tag=bool(block),
            in_trained_tag=bool(block and block.trained),
        )

    def _written(self, start: int, end: int) -> str:
        return self._text[start:end].decode("utf-8", "surrogatepass")


def _prose(text: bytearray, taken: Iterable[tuple[int, int]]) -> str:
    """The text outside of those spans, less what was written only around them: fences, brackets, stray closing tags."""
    pieces: list[str] = []
    at = 0
    for start, end in [*taken, (len(text), len(text))]:
        piece = text[at:start].decode("utf-8", "surrogatepass")
        at = end
        if not pieces:
            pieces.append(piece)
            continue
        piece = piece[_end(STRAY, piece) :]
        if start < len(text) and BETWEEN.fullmatch(piece):
            continue
        for opening, closing in AROUND:
            before, after = opening.search(pieces[-1]), closing.match(piece)
            if before and after:
                pieces[-1], piece = pieces[-1][: before.start()], piece[after.end() :]
        pieces.append(piece)
    return "".join(pieces)


def _end(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.match(text)
    return match.end() if match else 0
