"""The interface of an engine."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from hermes.chat.constraint import Constraint
from hermes.chat.finish_reason import FinishReason
from hermes.chat.sampling import Sampling
from hermes.engine.counts import EngineCounts


class Chunk(NamedTuple):
    """What one step of the engine added to a response."""

    text: str  # whole characters only; may be empty while a character or a stop string is undecided
    token_count: int
    finish_reason: FinishReason | None = None  # on the last chunk
    preemptions: int = 0  # how often the request had to give its KV cache to others so far


Take = Callable[[Chunk], bool | None]  # returns True if that is enough


class GrammarRefused(Exception):
    """The engine cannot use a grammar. The message says why; the request knows which input asked for it."""


class TextEngine(Protocol):
    """What serving needs of an engine."""

    @property
    def context_tokens(self) -> int:
        """The most tokens of prompt and response together."""

    @property
    def alive(self) -> bool:
        """Whether the engine still answers."""

    @property
    def unfinished(self) -> int:
        """Requests that the engine has not finished yet."""

    @property
    def died(self) -> asyncio.Event:
        """An event that is set when the engine has died."""

    @property
    def counts(self) -> EngineCounts:
        """What the engine has computed since its start."""

    async def usable(self, constraint: Constraint) -> Constraint:
        """The constraint with the arguments of those tools free whose grammar is refused.

        Raises GrammarRefused if that does not help.
        """

    async def generate(
        self,
        token_ids: Sequence[int],
        sampling: Sampling,
        take: Take,
        constraint: Constraint | None = None,
        stream_interval: int = 1,
    ) -> None:
        """Respond to one prompt. A cancel aborts the request.

        Args:
            token_ids: the prompt.
            sampling: how tokens are drawn, and when the response ends.
            take: is called in the event loop with what each step adds. If it returns True, the response ends there. It
                has to be quick: vLLM's loop, and all other responses, wait for it.
            constraint: what the response must have the form of.
            stream_interval: tokens a chunk. The first token and the last come at once.

        Raises:
            BadSampling: the engine refuses the values.
            GrammarRefused: the constraint makes no grammar, or does not make one in time.
            EngineFailed: the engine died or gave up.
        """
