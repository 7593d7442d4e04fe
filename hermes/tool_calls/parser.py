"""The tool calls in a response.

The model was trained to write `<tool_call>\\n{"arguments": {...}, "name": "..."}\\n</tool_call>` for each call; it does
not always. The reader takes what has one meaning only and makes nothing up. Each call is checked against its
tool's schema.
https://huggingface.co/NousResearch/Hermes-2-Theta-Llama-3-70B
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hermes.json_schema.validate import Patience, Validator
from hermes.tool_calls.call import BadToolCall, Found, ToolCall
from hermes.tool_calls.judge import CALL_BEGINS, Tools, bad, is_json, judged, seen_name
from hermes.tool_calls.literal import CLOSE, OPEN, Ending, object_ending

MAX_FOUND = 1_000  # more than a context of 8,192 tokens holds; the rest is not read

CUT_OFF = "cut off before its end"
Schemas = Mapping[str, Mapping[str, Any]]  # tool name -> JSON schema of its arguments

FIRST_KEY = r"""\{\s{0,99}+(?:"[^"\\<\n]{0,99}+"|'[^'\\<\n]{0,99}+')\s{0,99}+:"""
IN_PROSE = re.compile(f"(?P<open>{OPEN})|(?P<object>{FIRST_KEY})", re.ASCII)
IN_BLOCK = re.compile(rf"(?P<object>\{{)|(?P<open>{OPEN})|(?P<close>{CLOSE})", re.ASCII)
FILLER = re.compile(r"[\s\[]*+(?:```\w*+)?[\s\[]*+", re.ASCII)  # may stand between a tag and an object
AROUND = [(re.compile(r"\[\s*+\Z"), re.compile(r"\s*+\]")), (re.compile(r"```\w*+\s*+\Z"), re.compile(r"\s*+```"))]
BETWEEN = re.compile(r"[\s,]*+")
TRAINED = "<tool_call>"
TRAINED_END = "</tool_call>"
ENDS_CALL = re.compile(rf"\s*+{TRAINED_END}")
STRAY = re.compile(r"(?:\s*+</(?:tool_call|function_call|tools|function)>)*+")
TRAILER = re.compile(r"[\s\]]*+(?:```)?", re.ASCII)  # belongs to the last object where the closing tag is missing


@dataclass(frozen=True)
class Reading:
    """The calls of a text, good and bad, in their order, and the prose around them."""

    found: tuple[Found, ...]
    text: str

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The good ones."""
        return tuple(each for each in self.found if isinstance(each, ToolCall))

    @property
    def bad(self) -> tuple[BadToolCall, ...]:
        """The others."""
        return tuple(each for each in self.found if isinstance(each, BadToolCall))


def read_tool_calls(text: str, schemas: Schemas, cut: bool = False) -> Reading:
    """Read a finished response. `cut`: max_tokens or a timeout ended it, not the model."""
    patience = Patience()
    tools = {name: Validator(schema, patience, in_part=True) for name, schema in schemas.items()}
    return _Reader(text, tools, cut).read()


@dataclass
class _Block:
    """An open tag, and what was found after it so far."""

    start: int
    content: int  # where the tag ends
    function: str | None  # NAME of <function=NAME>
    trained: bool  # <tool_call>; the other wrappers turn up in prose, too
    objects_end: int
    objects: int = 0
    found: int = 0


class _Reader:
    """One pass over a text. In prose it looks for a tag or an object; after a tag, for objects and the end tag."""

    def __init__(self, text: str, tools: Tools, cut: bool):
        self._text = text
        self._tools = tools
        self._cut = cut
        self._tag = text.find(TRAINED)
        self._closing = 0  # where the next closing tag is
        self._found: list[Found] = []
        self._taken: list[tuple[int, int]] = []  # spans that are not prose

    def read(self) -> Reading:
        at = 0
        while len(self._found) <= MAX_FOUND and (token := IN_PROSE.search(self._text, at)):
            at = self._read_object(token.start(), None) if token.lastgroup == "object" else self._read_block(token)
        end = at if len(self._found) > MAX_FOUND else len(self._text)
        return Reading(tuple(self._found), _prose(self._text[:end], self._taken))

    def _add(self, found: Found) -> None:
        full = len(self._found) == MAX_FOUND
        self._found.append(bad("", f"more than {MAX_FOUND} calls; the rest is not read") if full else found)

    def _read_block(self, tag: re.Match[str]) -> int:
        """Read what follows an opening tag. Returns where prose goes on."""
        block = _Block(tag.start(), tag.end(), tag["function"], tag[0] == TRAINED, tag.end())
        while token := IN_BLOCK.search(self._text, block.objects_end):
            if token.lastgroup != "object":
                return self._end_block(block, token.start(), token.end() if token.lastgroup == "close" else None)
            if not (block.trained or block.objects or FILLER.fullmatch(self._text, block.content, token.start())):
                return block.content  # the wrapper was only mentioned
            block.objects_end = self._read_object(token.start(), block)
            if len(self._found) > MAX_FOUND:
                return block.start
        return self._end_block(block, len(self._text))

    def _end_block(self, block: _Block, at: int, closed: int | None = None) -> int:
        inside, at_end = self._text[block.content : at].strip(), at == len(self._text)
        if (
            block.trained and not block.objects and (inside or closed or at_end)
        ):  # else it is one of two opening tags in a row
            problem = "there is no JSON object in the tag" if inside else "the tag is empty"
            cut = self._cut and at_end and not closed
            self._add(bad(self._text[block.start : closed or at], CUT_OFF if cut else problem))
        if block.trained or block.found:
            trailer = TRAILER.match(self._text, block.objects_end, at) if block.objects else None
            if trailer and self._cut and at_end and TRAINED_END.startswith(self._text[trailer.end() :]):
                trailer = None  # the closing tag was cut
            self._taken.append((block.start, closed or (trailer.end() if trailer else at)))
        return closed or at

    def _read_object(self, start: int, block: _Block | None) -> int:
        """Read an object, in a block or in prose. Returns where it ends."""
        ending = object_ending(self._text, start, cut=self._cut)
        found = self._judge(start, ending, block)
        if found:
            self._add(found)
        if block:
            block.objects += 1
            block.found += bool(found)
        elif found:
            self._taken.append((start, ending.at))
        return ending.at

    def _judge(self, start: int, ending: Ending, block: _Block | None) -> Found | None:
        """What an object is: a call, a bad call, or None."""
        text = self._text[start : ending.at]
        cut = self._cut and ending.how == "more"
        if block is None and not (
            ("name" in text and ("arguments" in text or "parameters" in text))
            and (ENDS_CALL.match(self._text, ending.at) or not self._tagged(ending.at))
        ):
            return None  # an object without a tag is part of the response
        if ending.how == "closed":
            return self._called(text, text, block)
        if block is None:
            meant = cut and CALL_BEGINS.match(text) and seen_name(text, self._tools)
            return bad(text, CUT_OFF, seen_name(text, self._tools)) if meant else None
        if ending.how == "tag" and self._text.startswith("</", ending.at) and not text.rstrip().endswith(","):
            completed = text + "}" * ending.depth  # the model ended the call; perhaps only braces are missing
            if is_json(completed):
                return self._called(text, completed, block)
        problem = "a string in it is not closed" if ending.how == "torn" else "the JSON object is not finished"
        return bad(text, CUT_OFF if cut else problem, seen_name(text, self._tools))

    def _tagged(self, at: int) -> bool:
        """Whether calls have tags, so that an object without one, which ends there, is an example or a copy.

        No tag after the next closing one counts: who reads the text as it comes knows the calls up to there by then.
        """
        if self._closing < at:
            found = self._text.find(TRAINED_END, at)
            self._closing = len(self._text) if found == -1 else found
        return 0 <= self._tag < self._closing

    def _called(self, written: str, text: str, block: _Block | None) -> Found | None:
        return judged(
            text,
            written,
            self._tools,
            function=block.function if block else None,
            in_tag=bool(block),
            in_trained_tag=bool(block and block.trained),
        )


def _prose(text: str, taken: Iterable[tuple[int, int]]) -> str:
    """The text outside of those spans, without the fences, brackets and stray closing tags around them."""
    pieces: list[str] = []
    at = 0
    for start, end in [*taken, (len(text), len(text))]:
        piece = text[at:start]
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
