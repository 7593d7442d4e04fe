"""make bench-schemas: compare with vLLM's own backends which JSON schemas make a grammar, and what it accepts.

It reads schemas with instances, such as those of MaskBench (https://github.com/guidance-ai/jsonschemabench): JSON lines
or a folder of JSON files. Each has `id`, `schema` and `tests`, a list of `valid` and `data`. No model generates text.

An instance counts as accepted if the grammar accepts its keys in any order. This package closes objects that have
`properties`. So a valid instance with other keys is also tried without them.
"""

import gzip
import json
import multiprocessing
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer
from rich.console import Console

from hermes.chat.constraint import SpecialTokens, json_constraint
from hermes.devserver.server import PROJECT
from hermes.errors import BadJsonSchema
from hermes.json_schema.limits import dialect
from hermes.weights import smollm2

OURS, AUTO, XGRAMMAR = "this package", "vLLM, auto", "vLLM, xgrammar"
SECONDS = 10  # for the grammar of one schema
TRIES = 50  # orders of the keys of one object
notes = Console(stderr=True, highlight=False)

Accepts = Callable[[str, bool], bool]  # of a text, and whether it is a whole text or the beginning of one


@dataclass
class Judged:
    """One schema and its instances with one kind of grammar."""

    refused: str | None = None  # why
    unenforced: int = 0
    seconds: float = 0.0  # of processor time to make the grammar
    valid: int = 0
    valid_accepted: int = 0
    valid_accepted_in_part: int = 0  # also without the keys that the schema does not mention
    invalid: int = 0
    invalid_accepted: int = 0


@dataclass
class Row:
    """The results of a collection of schemas."""

    judged: list[Judged] = field(default_factory=list)

    def sum(self, name: str, *, guaranteed: bool = False) -> int:
        return sum(getattr(each, name) for each in self.judged if not (guaranteed and each.unenforced))

    def cells(self, guarantees: bool) -> Iterator[str]:
        made = [each for each in self.judged if not each.refused]
        times = sorted(1000 * each.seconds for each in made) or [0.0]
        valid = self.sum("valid") or 1
        yield str(len(self.judged))
        yield f"{len(made) / len(self.judged):.1%}"
        full = [each for each in made if not each.unenforced]
        yield f"{len(full) / len(self.judged):.1%}" if guarantees else ""
        yield f"{self.sum('valid_accepted') / valid:.1%}"
        yield f"{self.sum('valid_accepted_in_part') / valid:.1%}"
        yield f"{self.sum('invalid_accepted')} of {self.sum('invalid')}"
        yield str(self.sum("invalid_accepted", guaranteed=True)) if guarantees else ""
        yield " / ".join(f"{times[min(len(times) - 1, int(part * len(times)))]:.0f}" for part in (0.5, 0.99, 1))


HEAD = ["schemas", "accepted", "guaranteed", "valid accepted", "without unnamed keys", "invalid accepted"]
HEAD += ["of guaranteed", "ms p50 / p99 / max"]


def main(
    path: Annotated[Path, typer.Argument(help="a folder, or JSON lines, also compressed with gzip")],
    every: Annotated[int, typer.Option(help="only each n-th schema")] = 1,
) -> None:
    rows = list(read(path))[::every]
    smollm2.prepare(PROJECT / "weights" / smollm2.FOLDER)
    for system in (OURS, AUTO, XGRAMMAR):
        by_collection: dict[str, Row] = defaultdict(Row)
        why: Counter[str] = Counter()
        for row, judged in zip(rows, judge_all(system, rows), strict=True):
            for name in ("all", collection(row["id"])):
                by_collection[name].judged.append(judged)
            if judged.refused:
                why[re.sub(r"\d+|'[^']*'|/[^/ ]*/", "..", judged.refused)[-70:]] += 1
        print(f"\n| {system} | {' | '.join(HEAD)} |\n|{'---|' * (1 + len(HEAD))}")
        for name in ["all", *sorted(by_collection.keys() - {"all"})]:
            print(f"| {name} | {' | '.join(by_collection[name].cells(system == OURS))} |")
        print("refused for: " + "; ".join(f"{count} {reason}" for reason, count in why.most_common(8)))


def read(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_dir():
        for file in sorted(path.rglob("*.json")):
            yield {"id": file.stem, **json.loads(file.read_text(encoding="utf-8"))}
        return
    content = path.read_bytes()
    yield from map(json.loads, (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines())


def collection(name: str) -> str:
    return name.split("---")[0] if "---" in name else name.split("_")[0]


def judge_all(system: str, rows: list[dict[str, Any]]) -> Iterator[Judged]:
    """Judge each schema in a process that can be killed: some grammars never finish."""
    pool = None
    for number, row in enumerate(rows):
        if number % 200 == 0:
            notes.print(f"{system}: {number} of {len(rows)}")
        if pool is None:
            pool = multiprocessing.get_context("spawn").Pool(1)
            pool.apply(warm, (system,))
        try:
            judged = pool.apply_async(make, (system, row)).get(SECONDS)
        except multiprocessing.TimeoutError:
            pool.terminate()
            pool = None
            yield Judged(f"took more than {SECONDS} s", seconds=SECONDS)
        else:
            yield judged if judged.refused else pool.apply(judge, (judged, row))
    if pool:
        pool.terminate()


MADE: dict[str, Accepts] = {}  # in the process that judges: the last grammar


def make(system: str, row: dict[str, Any]) -> Judged:
    judged = Judged()
    began = time.process_time()
    try:
        MADE["accepts"], judged.unenforced = WAYS[system](row["schema"])
    except Exception as error:  # anything that makes a request to vLLM fail
        if system == OURS and not isinstance(error, BadJsonSchema | ValueError):
            raise
        judged.refused = " ".join(str(error).split()) or type(error).__name__
    judged.seconds = time.process_time() - began
    return judged


def judge(judged: Judged, row: dict[str, Any]) -> Judged:
    accepts = MADE["accepts"]
    for test in row["tests"]:
        text = written(accepts, test["data"], "")
        if not test["valid"]:
            judged.invalid += 1
            judged.invalid_accepted += bool(text and accepts(text, True))
            continue
        judged.valid += 1
        accepted = bool(text and accepts(text, True))
        judged.valid_accepted += accepted
        if not accepted:
            part = written(accepts, test["data"], "", leaving_out=True)
            accepted = bool(part and accepts(part, True)) and is_valid(row["schema"], json.loads(part or ""))
        judged.valid_accepted_in_part += accepted
    return judged


def warm(system: str) -> None:
    """Import and load first, so that this does not count as time of a schema."""
    WAYS[system]({"type": "boolean"})


def is_valid(schema: Any, value: Any) -> bool:
    return bool(dialect(schema)(schema).is_valid(value))


def written(accepts: Accepts, value: Any, before: str, *, leaving_out: bool = False) -> str | None:
    """Write the value after a text, with its keys in an order that the grammar accepts; None if there is none."""
    if isinstance(value, dict):
        return _members(accepts, list(value.items()), before + "{", "", [TRIES], leaving_out)
    if isinstance(value, list):
        text: str | None = before + "["
        for number, each in enumerate(value):
            text = text and written(accepts, each, text + (", " if number else ""), leaving_out=leaving_out)
        return text and text + "]"
    text = before + json.dumps(value, ensure_ascii=False)
    return text if accepts(text, False) else None


def _members(
    accepts: Accepts, rest: list[tuple[str, Any]], text: str, comma: str, tries: list[int], leaving_out: bool
) -> str | None:
    if not rest:
        return text + "}" if accepts(text + "}", False) else None
    found: list[tuple[int, int, str, list[tuple[str, Any]]]] = []
    for name, value in rest:
        beginning = f"{text}{comma}{json.dumps(name, ensure_ascii=False)}: "
        after = written(accepts, value, beginning, leaving_out=leaving_out) if accepts(beginning, False) else None
        if after:
            others = [each for each in rest if each[0] != name]
            following = (accepts(f"{after}, {json.dumps(other, ensure_ascii=False)}: ", False) for other, _ in others)
            found.append((-sum(following), len(found), after, others))
            if -found[-1][0] == len(others):
                break
    for _, _, after, others in sorted(found, key=lambda each: each[:2]):
        tries[0] -= 1
        if tries[0] >= 0 and (whole := _members(accepts, others, after, ", ", tries, leaving_out)):
            return whole
    return text + "}" if leaving_out and accepts(text + "}", False) else None


@cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(PROJECT / "weights" / smollm2.FOLDER)


@cache
def ll_tokenizer() -> Any:
    from llguidance.hf import from_tokenizer

    return from_tokenizer(tokenizer(), len(tokenizer()))


def accepts_of_llguidance(grammar: str) -> Accepts:
    from llguidance import LLMatcher

    begun = LLMatcher(ll_tokenizer(), grammar, log_level=0)
    if not begun.is_error():
        begun.compute_bitmask()
    if begun.is_error():
        raise ValueError(begun.get_error())

    def accepts(text: str, whole: bool) -> bool:
        matcher, tokens = begun.deep_copy(), ll_tokenizer().tokenize_str(text)
        return matcher.try_consume_tokens(tokens) == len(tokens) and (not whole or matcher.is_accepting())

    return accepts


def make_ours(schema: Any) -> tuple[Accepts, int]:
    constraint = json_constraint(schema)
    return accepts_of_llguidance(constraint.lark(SpecialTokens())), len(constraint.json_unenforced)


@cache
def xgrammar_compiler() -> Any:
    from xgrammar import GrammarCompiler, TokenizerInfo

    info = TokenizerInfo.from_huggingface(tokenizer(), vocab_size=len(tokenizer()))
    return GrammarCompiler(info, max_threads=1, cache_enabled=False)


def make_xgrammar(schema: Any) -> tuple[Accepts, int]:
    """Make the grammar as vLLM's xgrammar backend does. vLLM refuses some schemas before that."""
    backend_for(schema, "xgrammar")
    return accepts_of_xgrammar(schema), 0


def make_auto(schema: Any) -> tuple[Accepts, int]:
    """Make the grammar as vLLM's default does: with xgrammar, else with guidance, else with outlines."""
    backend = backend_for(schema, "auto")
    if backend == "xgrammar":
        return accepts_of_xgrammar(schema), 0
    if backend == "guidance":
        from llguidance import LLMatcher

        return accepts_of_llguidance(LLMatcher.grammar_from_json_schema(schema)), 0
    raise ValueError(f"goes to {backend}, which is not measured here")


def backend_for(schema: Any, backend: str) -> str:
    """Ask vLLM which backend it uses for a schema."""
    from vllm.sampling_params import SamplingParams, StructuredOutputsParams

    params = SamplingParams(structured_outputs=StructuredOutputsParams(json=json.dumps(schema)))
    config: Any = SimpleNamespace(backend=backend)
    params._validate_structured_outputs(SimpleNamespace(is_diffusion=False), config, tokenizer())
    return str(params.structured_outputs._backend)


def accepts_of_xgrammar(schema: Any) -> Accepts:
    from xgrammar import GrammarMatcher

    compiled = xgrammar_compiler().compile_json_schema(json.dumps(schema), any_whitespace=True)

    def accepts(text: str, whole: bool) -> bool:
        matcher = GrammarMatcher(compiled)
        return matcher.accept_string(text) and (not whole or matcher.is_completed())

    return accepts


WAYS = {OURS: make_ours, AUTO: make_auto, XGRAMMAR: make_xgrammar}

if __name__ == "__main__":
    typer.run(main)
