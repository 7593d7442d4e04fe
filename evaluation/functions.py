"""Function calling on the questions of the Berkeley Function-Calling Leaderboard, BFCL v4, through the server.

Questions, right answers and the checker come in the wheel bfcl-eval. Its checker judges the calls in a process of its
own, see bfcl_check.py. Beside that stand figures that do not hang on the wit of the model: what was refused, calls that
are not valid for their schema, and calls that the text has and the metrics do not, or the other way round.

https://github.com/ShishirPatil/gorilla/tree/main/berkeley-function-call-leaderboard
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.asking import Question, Reply, sampled
from evaluation.json_mode import problem_of

CATEGORIES = (
    *("simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance"),
    *("live_simple", "live_multiple", "live_parallel"),
)
NO_CALL = "irrelevance"  # the right answer is no call
MAX_TOKENS = 256
TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}  # BFCL's words for JSON schema's
BEGINS = re.compile(r"(?P<tag><tool_call>\s*)?\{")


@dataclass(frozen=True)
class Case:
    """One question of a category."""

    id: str
    category: str
    question: list[dict[str, Any]]  # the turns
    functions: list[dict[str, Any]]  # as BFCL has them
    right: list[dict[str, Any]] | None  # None: no call

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The functions as the server takes them."""
        return [
            {
                "name": each["name"],
                "description": each.get("description", ""),
                "parameters": as_json_schema(each["parameters"]),
            }
            for each in self.functions
        ]

    def asked(self, seed: int, *, required: bool = False) -> Question:
        """The question with its tools, at temperature 0; `required` asks for at least one call."""
        sampling = {"temperature": 0, "max_tokens": MAX_TOKENS, "seed": seed, "truncate": "oldest_turns"}
        choice = {"tool_choice": "required" if required else "auto"}
        conversation = {"messages": self.question, "tools": self.tools, "system_prompt": ""}
        return Question(self.id, {**conversation, **choice, **sampling})


@dataclass
class Figures:
    """What came of the questions of one category."""

    questions: int = 0
    right: int = 0  # by BFCL's checker
    refused: list[str] = field(default_factory=list)  # errors
    calls: int = 0
    unenforced: int = 0  # questions with a tool of which a part is not enforced
    invalid: list[str] = field(default_factory=list)  # calls that are not valid where all is enforced
    differing: list[str] = field(default_factory=list)  # questions whose calls are not those of the text
    cut_off: int = 0  # responses that max_tokens ended


def cases(data: Path, category: str, most: int | None, seed: int) -> list[Case]:
    """The questions of a category. `data` is the folder of that name in the wheel; `most` draws some by the seed.

    Raises FileNotFoundError if the wheel has no such category.
    """
    name = f"BFCL_v4_{category}.json"
    answers = [] if category == NO_CALL else _lines(data / "possible_answer" / name)
    right = {each["id"]: each["ground_truth"] for each in answers}
    entries = sampled(_lines(data / name), most, seed)
    return [
        Case(each["id"], category, each["question"][0], each["function"], right.get(each["id"])) for each in entries
    ]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def as_json_schema(schema: Any) -> Any:
    """A schema of BFCL as a JSON schema: only the names of some types differ."""
    if isinstance(schema, list):
        return [as_json_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: TYPES.get(value, value) if key == "type" and isinstance(value, str) else as_json_schema(value)
        for key, value in schema.items()
    }


def calls_in(text: str) -> list[dict[str, Any]]:
    """The calls in a text, read with nothing of this package: each whole JSON object that a tag marks as one.

    The closing tag marks it, where the model forgot to open; or the opening one, where max_tokens came before the end.
    """
    found, past, decoder = [], 0, json.JSONDecoder()
    for begins in BEGINS.finditer(text):
        try:
            call, end = decoder.raw_decode(text, begins.end() - 1) if begins.end() > past else (None, 0)
        except ValueError:
            continue
        rest, past = text[end:].lstrip(), max(past, end)
        marked = rest.startswith("</tool_call>") or (begins["tag"] and not rest)
        if call and marked and {"name", "arguments"} <= call.keys():
            found.append({"name": call["name"], "arguments": call["arguments"]})
    return found


def figures(asked: Sequence[Case], replies: Mapping[str, Reply], right: Mapping[str, bool]) -> Figures:
    """Count what came of the questions. `right` has the checker's verdict on each."""
    result = Figures(questions=len(asked), right=sum(right[case.id] for case in asked))
    for case in asked:
        reply = replies[case.id]
        if reply.status != "succeeded":
            result.refused.append(f"{case.id}: {reply.error}")
            continue
        calls = reply.metrics.get("tool_calls") or []
        whole = not reply.metrics.get("tools_unenforced")
        result.calls += len(calls)
        result.unenforced += not whole
        result.cut_off += reply.metrics.get("finish_reason") == "length"
        result.invalid += [f"{case.id}: {problem}" for call in calls if whole and (problem := _invalid(case, call))]
        if calls_in(reply.text) != [{"name": call["name"], "arguments": call["arguments"]} for call in calls]:
            result.differing.append(case.id)
    return result


def _invalid(case: Case, call: Mapping[str, Any]) -> str | None:
    schemas = {tool["name"]: tool["parameters"] for tool in case.tools}
    if call["name"] not in schemas:
        return f"there is no tool {call['name']}"
    problem = problem_of(schemas[call["name"]], call["arguments"])
    return problem and f"{call['name']}: {problem}"


def judged(asked: Sequence[Case], replies: Mapping[str, Reply], wheel: Path) -> dict[str, bool]:
    """What BFCL's own checker says of each question.

    Args:
        asked: the questions.
        replies: to them.
        wheel: the folder where bfcl-eval is installed.
    """
    calls = {
        case.id: [{call["name"]: call["arguments"]} for call in replies[case.id].metrics.get("tool_calls") or []]
        for case in asked
    }
    lines = [
        {
            "id": case.id,
            "category": case.category,
            "functions": case.functions,
            "calls": calls[case.id],
            "right": case.right,
        }
        for case in asked
        if case.category != NO_CALL
    ]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("bfcl_check.py")), str(wheel)],
        input="".join(json.dumps(line) + "\n" for line in lines),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    verdicts = {each["id"]: bool(each["valid"]) for each in map(json.loads, done.stdout.splitlines())}
    return verdicts | {case.id: not calls[case.id] for case in asked if case.category == NO_CALL}
