"""Compiles grammars before the engine gets them: the engine would compile them among its other work, with no limit."""

import asyncio
import hashlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

from hermes.chat.constraint import CALL_TAGS, Constraint, SpecialTokens
from hermes.engine.chunk import GrammarRefused

COMPILE_SECONDS = 0.2  # of processor time; of 3,700 public schemas one took half of it
REMEMBERED = 1024  # verdicts


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
        self._problems: dict[bytes, str | None] = {}

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
        key = hashlib.sha256(lark.encode()).digest()
        if key not in self._problems:
            self._problems[key] = await asyncio.to_thread(self._problem, lark)
        problem = self._problems[key]
        while len(self._problems) > REMEMBERED:
            del self._problems[next(iter(self._problems))]
        if problem:
            raise GrammarRefused(problem)
        return lark

    def _problem(self, lark: str) -> str | None:
        """What is wrong with a grammar. That may show only when the first token is chosen."""
        from llguidance import LLMatcher

        began = time.thread_time()
        matcher = LLMatcher(self._tokenizer, lark, log_level=0)
        if not matcher.is_error():
            matcher.compute_bitmask()
        if matcher.is_error():  # with all that it knows after its first line
            return f"makes no grammar, as where a reference leads back to itself: {matcher.get_error().splitlines()[0]}"
        if time.thread_time() - began > COMPILE_SECONDS:
            return f"takes more than {COMPILE_SECONDS} s to make a grammar of; make it smaller"
        return None
