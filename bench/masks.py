"""make bench-masks: what a grammar costs the engine for each token, in the vocabularies of SmolLM2 and of Llama 3.

32 callers at once, each with a grammar of its own: free text with tools, a required call, and JSON, in turns. Each
step makes a mask for each of them, one after the other, as vLLM does for up to 128. Then each takes a token: one that
the mask allows, drawn at random, or in free text the next one of an English text. No model runs.

Times are of the thread's processor, so that they hardly depend on what else the machine does.
"""

import asyncio
import gzip
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from llguidance import LLMatcher
from transformers import AutoTokenizer

from hermes.chat.constraint import Constraint, json_constraint, tools_constraint
from hermes.devserver.server import PROJECT
from hermes.engine import GrammarRefused
from hermes.engine.engine import end_tokens
from hermes.engine.grammar import Grammars
from hermes.errors import RequestError
from hermes.tool_calls.definitions import parse_functions
from hermes.weights import smollm2
from tests.support import llama3
from tests.support.schemas import SCHEMAS

CALLERS, MOST_TOKENS = 32, 200
PROSE, CALL, JSON = "free text", "a call", "JSON"
ENGLISH = "The tower is in Paris. It was built in 1889, and it is 330 m high. Its 18,000 parts weigh some 7,300 tons.\n"


class Caller:
    """One response after another, each with the next grammar."""

    def __init__(self, grammars: Iterator[tuple[str, LLMatcher]], tokenizer: Any, seed: int):
        self._grammars = grammars
        self._tokenizer = tokenizer
        self._draw = random.Random(seed)
        self._text = tokenizer.encode(ENGLISH, add_special_tokens=False)
        self._begin()

    def _begin(self) -> None:
        self.kind, self._matcher = next(self._grammars)
        self.after, self._taken = "at its beginning", 0

    def mask(self) -> np.ndarray[Any, Any]:
        """The tokens that may come next."""
        return np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)

    def take(self, mask: np.ndarray[Any, Any]) -> None:
        """Take one of them, or begin a new response."""
        allowed = np.flatnonzero(np.unpackbits(mask, bitorder="little"))
        token = self._text[self._taken % len(self._text)] if self.kind == PROSE else int(self._draw.choice(allowed))
        self._taken += 1
        if self._taken == MOST_TOKENS or not self._matcher.consume_token(token) or self._matcher.is_stopped():
            self._begin()
            return
        text = self._tokenizer.decode([token])
        self.after = "in a character" if "\ufffd" in text else "after a <" if text.endswith("<") else "elsewhere"


def constraints(schemas: list[Any]) -> Iterator[tuple[str, Constraint]]:
    """A grammar of each schema that makes one, again and again."""
    for kind, schema in zip(itertools.cycle([PROSE, CALL, JSON]), itertools.cycle(schemas), strict=False):
        functions = [{"name": "f", "parameters": {"type": "object", "properties": {"a": schema}, "required": ["a"]}}]
        try:
            if kind == JSON:
                yield kind, json_constraint(schema)
            else:
                yield kind, tools_constraint(parse_functions(functions), "auto" if kind == PROSE else "required")
        except RequestError:
            continue


def matchers(schemas: list[Any], grammars: Grammars, seconds: list[float]) -> Iterator[tuple[str, LLMatcher]]:
    """Matchers of these grammars. The time to make each, and its first mask, goes to `seconds`."""
    for kind, constraint in constraints(schemas):
        try:
            lark = asyncio.run(grammars.lark(constraint))
        except GrammarRefused:
            continue
        began = time.thread_time()
        matcher = LLMatcher(grammars._tokenizer, lark, log_level=0)
        matcher.compute_bitmask()
        seconds.append(time.thread_time() - began)
        yield kind, matcher


def row(name: str, seconds: list[float]) -> str:
    """p50, p99 and the worst, in ms."""
    milliseconds = np.array(seconds) * 1_000
    cells = (np.quantile(milliseconds, 0.5), np.quantile(milliseconds, 0.99), milliseconds.max())
    return f"| {name} | {len(seconds):,} | {' | '.join(f'{each:.2g}' for each in cells)} |"


def measure(name: str, folder: Path, schemas: list[Any], steps: int) -> None:
    """Print the rows of one vocabulary."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    making: list[float] = []
    source = matchers(schemas, Grammars(tokenizer, end_tokens(folder, tokenizer, len(tokenizer))), making)
    callers = [Caller(source, tokenizer, seed) for seed in range(CALLERS)]
    masks: dict[tuple[str, str], list[float]] = {}
    sums = []
    for _ in range(steps):
        made = []
        for caller in callers:
            began = time.thread_time()
            mask = caller.mask()
            made.append((caller, mask, time.thread_time() - began))
        sums.append(sum(seconds for _, _, seconds in made))
        for caller, mask, seconds in made:
            masks.setdefault((caller.kind, caller.after), []).append(seconds)
            caller.take(mask)
    every = [seconds for several in masks.values() for seconds in several]
    print(row(f"{name}: a mask", every))
    print(row(f"{name}: 32 masks, a step", sums))
    print(row(f"{name}: a grammar and its first mask", making))
    shares = Counter({key: sum(several) / sum(every) for key, several in masks.items()})
    for (kind, after), share in shares.most_common(6):
        several = masks[kind, after]
        print(f"  {share:4.0%} of the time: {kind}, {after}: {len(several):,} of {np.mean(several) * 1_000:.2g} ms")


def main(
    schemas: Annotated[Path | None, typer.Argument(help="JSON lines with `schema`; else those of the tests")] = None,
    steps: Annotated[int, typer.Option(help="of 32 tokens")] = 600,
) -> None:
    """Measure both vocabularies."""
    drawn = list(SCHEMAS)
    if schemas:
        with gzip.open(schemas, "rt") if schemas.suffix == ".gz" else schemas.open() as lines:
            drawn = [json.loads(line)["schema"] for line in lines]
        random.Random(0).shuffle(drawn)
    print("| | number | p50 ms | p99 ms | worst ms |\n|---|--:|--:|--:|--:|")
    measure("SmolLM2", smollm2.prepare(PROJECT / "weights" / smollm2.FOLDER), drawn, steps)
    measure("Llama 3", llama3.without_weights("added"), drawn, steps)


if __name__ == "__main__":
    typer.run(main)
