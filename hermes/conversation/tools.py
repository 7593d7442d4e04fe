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

from hermes.conversation.literal import CLOSE, CUT, OPEN, Ending, ObjectScan, parse
from hermes.conversation.validation import Validator, shortened, shown

MAX_TEXT = 200  # characters of a bad call that are kept
MAX_NAME = 128
MAX_PROBLEM = 300

MAX_FOUND = 1_000  # more than a context of 8,192 tokens holds; the rest is not read

CUT_OFF = "cut off by max_tokens"
Schemas = Mapping[str, Mapping[str, Any]]  # tool name -> JSON schema of its arguments


@dataclass(frozen=True)
class ToolCall:
    """A call of one of the tools, with arguments that satisfy its schema."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class BadToolCall:
    """What was meant as a call and can't be run."""

    text: str  # as the model wrote it, cut
    problem: str  # one line, which may go back to the model
    name: str | None = None  # the tool that it names, if that can be seen


Found = ToolCall | BadToolCall


@dataclass(frozen=True)
class Reading:
    """A whole text: the calls in their order, and the prose around them."""

    calls: tuple[ToolCall, ...]
    bad: tuple[BadToolCall, ...]
    text: str


def read_tool_calls(text: str, schemas: Schemas, cut: bool = False) -> Reading:
    """Read a finished text. `cut`: it ends where max_tokens did, not where the model wanted."""
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
        self._validators = {name: Validator(schema) for name, schema in schemas.items()}
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
        """What the end of the text makes certain. `cut`: the end is where max_tokens was."""
        known = len(self._found)
        while self._step() or self._step_at_end(cut):
            pass
        return self._found[known:]

    @property
    def reading(self) -> Reading:
        """All of it; the prose is right after `flush`."""
        return Reading(
            calls=tuple(found for found in self._found if isinstance(found, ToolCall)),
            bad=tuple(found for found in self._found if isinstance(found, BadToolCall)),
            text=_prose(self._text[: self._end_of_reading], self._taken),
        )

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
        self._found.append(_bad("", f"more than {MAX_FOUND} calls; the rest is not read") if full else found)

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
            self._add(_bad(self._written(block.start, closed or at), CUT_OFF if cut else problem))
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
            return self._judge_whole(text, text)
        if self._block is None:
            meant = cut and CALL_BEGINS.match(text) and self._seen_name(text)
            return _bad(text, CUT_OFF, self._seen_name(text)) if meant else None
        if ending.how == "tag" and self._text.startswith(b"</", ending.at) and not text.rstrip().endswith(","):
            completed = text + "}" * scan.depth  # the model ended the call; braces may be all that is missing
            if _is_json(completed):
                return self._judge_whole(text, completed)
        problem = "a string in it is not closed" if ending.how == "torn" else "the JSON object is not finished"
        return _bad(text, CUT_OFF if cut else problem, self._seen_name(text))

    def _judge_whole(self, written: str, text: str) -> Found | None:
        block, tools = self._block, self._validators
        try:
            value = _parse(text, "this")
            if block and block.function and (value.get("name") != block.function or "arguments" not in value):
                value = {"name": block.function, "arguments": value}
            call = _unwrapped(value, tools)
            if _is_signature(call) and not (block and block.trained):
                return None
            name, arguments = _name_and_arguments(call, tools)
        except ValueError as error:
            return _bad(written, str(error), self._seen_name(written)) if block else None
        if block is None and (name not in tools or arguments is None):
            return None
        problem = _problem(name, arguments, tools)
        return _bad(written, problem, name) if problem else ToolCall(name, {} if arguments is None else arguments)

    def _seen_name(self, text: str) -> str | None:
        return next((name[1] for name in NAME.finditer(text) if name[1] in self._validators), None)

    def _written(self, start: int, end: int) -> str:
        return self._text[start:end].decode("utf-8", "surrogatepass")


Tools = Mapping[str, Validator]

NAME = re.compile(r"""["']name["']\s*+:\s*+["']([\w.-]{1,128})["']""")
CALL_BEGINS = re.compile(r"""\{\s*+["'](?:name|arguments|parameters|type|function)["']""")
AROUND = [(re.compile(r"\[\s*+\Z"), re.compile(r"\s*+\]")), (re.compile(r"```\w*+\s*+\Z"), re.compile(r"\s*+```"))]
BETWEEN = re.compile(r"[\s,]*+")
STRAY = re.compile(r"(?:\s*+</(?:tool_call|function_call|tools|function)>)*+")


def _bad(text: str, problem: str, name: str | None = None) -> BadToolCall:
    kept = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."
    return BadToolCall(kept, shortened(problem, MAX_PROBLEM), name and name[:MAX_NAME])


def _parse(text: str, what: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{what} is not JSON: {error}") from error


def _is_json(text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _unwrapped(value: dict[str, Any], tools: Tools) -> dict[str, Any]:
    """The object that names the tool: OpenAI's calls have it in `function`; the model may put it in `arguments`."""
    function, arguments = value.get("function"), value.get("arguments")
    if isinstance(function, dict) and not value.keys() & {"name", "arguments", "parameters"}:
        return function
    if "name" not in value and isinstance(arguments, dict) and "arguments" in arguments:
        return arguments if _is_tool(arguments.get("name"), tools) else value
    return value


def _is_tool(name: Any, tools: Tools) -> bool:
    return isinstance(name, str) and name in tools


def _is_signature(call: dict[str, Any]) -> bool:
    """The tool as it was described to the model, said back: the schema is not meant as arguments."""
    schema = call.get("parameters")
    return isinstance(schema, dict) and schema.get("type") == "object" and "arguments" not in call


def _name_and_arguments(call: dict[str, Any], tools: Tools) -> tuple[str, Any]:
    """What is called and with what; None where nothing was given."""
    if _is_signature(call):
        raise ValueError("this describes a tool and does not call it")
    if unknown := call.keys() - {"name", "arguments", "parameters", "type", "id"}:
        raise ValueError(f"{shown(min(unknown))} is no part of a call")  # and may be an argument that went astray
    given = [call[key] for key in ("arguments", "parameters") if call.get(key) is not None]
    if len(given) > 1:
        raise ValueError("it has both 'arguments' and 'parameters'")
    name, arguments = call.get("name"), given[0] if given else None
    if isinstance(arguments, str):
        arguments = _parse(arguments, "the string 'arguments'") if arguments.strip() else None
    if name is None and isinstance(arguments, dict) and _is_tool(arguments.get("name"), tools):
        name = arguments["name"]
        arguments = {key: value for key, value in arguments.items() if key != "name"}
    if not isinstance(name, str):
        raise ValueError("it names no tool" if name is None else f"'name' has to be a string, not {shown(name)}")  # noqa: TRY004
    return name, arguments


def _problem(name: str, arguments: Any, tools: Tools) -> str | None:
    if name not in tools:
        return f"no tool is called {shown(name)}; there are: {', '.join(tools) or 'none'}"
    if arguments is None:
        problem = tools[name].problem({})
        return problem and f"it has no arguments, and {problem}"
    if not isinstance(arguments, dict):
        return f"the arguments have to be an object, not {shown(arguments)}"
    return tools[name].problem(arguments)


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
