"""Compiles grammars before the engine gets them: the engine would compile them among its other work, with no limit."""

import asyncio
import hashlib
import time
from collections.abc import Iterable, Mapping
from itertools import accumulate
from math import inf
from typing import Any, NamedTuple

from hermes.chat.constraint import CALL_TAGS, Constraint, SpecialTokens
from hermes.engine.chunk import GrammarRefused

COMPILE_SECONDS = 0.2  # of processor time; of 3,700 public schemas one took half of it
SEARCH_SECONDS = 2.0  # of processor time, to find out which tools of a request are too costly
KEPT = 0.8  # of the time for a grammar, for the tools that keep theirs
REMEMBERED = 1024  # verdicts


class Verdict(NamedTuple):
    """What came of compiling a grammar."""

    problem: str | None
    seconds: float  # of processor time


class Grammars:
    """Compiles each new grammar with the tokenizer of the model, in a thread, and remembers the verdict."""

    def __init__(self, tokenizer: Any, end_tokens: Iterable[int]):
        """Prepare to compile.

        Args:
            tokenizer: of the model, one of transformers' fast ones.
            end_tokens: ids that end a response.
        """
        from llguidance.hf import from_tokenizer

        self._tokenizer = from_tokenizer(tokenizer, len(tokenizer))
        self._tokens = self._special_tokens(tokenizer.added_tokens_decoder, {*end_tokens})
        self._verdicts: dict[bytes, Verdict] = {}

    def _special_tokens(self, added: Mapping[int, Any], ends: set[int]) -> SpecialTokens:
        """Those that a response may have. An added token that is text to transformers may be special to llguidance."""
        special = {token_id: each for token_id, each in added.items() if self._tokenizer.is_special_token(token_id)}
        tags = {each.content: token_id for token_id, each in special.items() if each.content in CALL_TAGS}
        visible = [each for each, token in special.items() if not token.special and each not in {*tags.values(), *ends}]
        texts = [each.content for each in special.values()]
        return SpecialTokens(tags, visible, sorted(ends - {*self._tokenizer.eos_tokens}), texts)

    async def lark(self, constraint: Constraint) -> str:
        """The grammar as the engine takes it.

        Raises GrammarRefused if it cannot be compiled, takes too long, or allows nothing.
        """
        lark = constraint.lark(self._tokens)
        if problem := (await self._verdict(lark)).problem:
            raise GrammarRefused(problem)
        return lark

    async def usable(self, constraint: Constraint) -> Constraint:
        """The constraint with the arguments of those tools free whose grammars are refused, alone or together.

        Raises GrammarRefused if that does not help.
        """
        problem = (await self._verdict(constraint.lark(self._tokens))).problem
        if problem is None or not constraint.arguments:
            return constraint
        seconds = await self._seconds_alone(constraint)
        names = sorted(seconds, key=lambda name: -seconds[name])
        least = sum(each > COMPILE_SECONDS for each in seconds.values())
        left = accumulate(seconds[name] for name in reversed(names))
        more = len(names) - sum(each <= KEPT * COMPILE_SECONDS for each in left)
        for count in sorted({least, more, len(names)}):
            relieved = await asyncio.to_thread(constraint.freed, names[:count])
            problem = (await self._verdict(relieved.lark(self._tokens))).problem
            if problem is None:
                return relieved
        raise GrammarRefused(problem)

    async def _seconds_alone(self, constraint: Constraint) -> dict[str, float]:
        """What each tool takes alone: infinity if its grammar is refused, or if there is no time to try it."""
        seconds: dict[str, float] = {}
        spent = 0.0
        for name in constraint.arguments:
            verdict = Verdict("", 0)
            if spent < SEARCH_SECONDS:
                lark, took = await asyncio.to_thread(self._alone, constraint, name)
                verdict = await self._verdict(lark)
                spent += took + verdict.seconds
            seconds[name] = verdict.seconds if verdict.problem is None else inf
        return seconds

    def _alone(self, constraint: Constraint, name: str) -> tuple[str, float]:
        began = time.thread_time()
        return constraint.alone(name).lark(self._tokens), time.thread_time() - began

    async def _verdict(self, lark: str) -> Verdict:
        key = hashlib.sha256(lark.encode()).digest()
        if key not in self._verdicts:
            self._verdicts[key] = await asyncio.to_thread(self._compiled, lark)
        verdict = self._verdicts[key]
        while len(self._verdicts) > REMEMBERED:
            del self._verdicts[next(iter(self._verdicts))]
        return verdict

    def _compiled(self, lark: str) -> Verdict:
        """Compile a grammar. What is wrong with it may show only when the first token is chosen."""
        from llguidance import LLMatcher

        began = time.thread_time()
        matcher = LLMatcher(self._tokenizer, lark, log_level=0)
        if not matcher.is_error():
            matcher.compute_bitmask()
        seconds, problem = time.thread_time() - began, None
        if matcher.is_error():  # with all that it knows after its first line
            said = matcher.get_error().splitlines()[0]
            problem = f"makes no grammar, as where a reference leads back to itself: {said}"
        elif seconds > COMPILE_SECONDS:
            problem = f"takes more than {COMPILE_SECONDS} s to make a grammar of; make it smaller"
        return Verdict(problem, seconds)
