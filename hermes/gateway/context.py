"""How many tokens the model's context takes: each prediction's end says it, and one is made to ask."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from hermes.client.cog import Json
from hermes.gateway.caller import Caller
from hermes.gateway.inputs import InputCheck
from hermes.gateway.pool import Pool, QueueFull
from hermes.gateway.problems import Problem
from hermes.gateway.run import Run
from hermes.gateway.runs import Runs
from hermes.gateway.upstream import is_replicate

QUESTION = {"prompt": "Hi", "max_tokens": 0}  # generates nothing
PATIENCE = 1.0  # s for the response


class Context:
    """The context of the model, once it is known."""

    def __init__(self, pool: Pool, check: Callable[[], InputCheck]):
        """Args:
        pool: the upstreams.
        check: of the inputs that they take; raises Problem while none was ready.
        """
        self._pool, self._check = pool, check
        self._known: tuple[Json | None, int | None] = None, None  # the OpenAPI document of a model, and its context
        self._asked: Json | None = None  # the document of the model that was asked

    def learn(self, run: Run) -> None:
        """Take what the end of a run says."""
        if type(tokens := run.metrics.get("context_tokens")) is int:
            self._known = self._pool.document, tokens

    async def tokens(self, runs: Runs, caller: Caller) -> int | None:
        """Returns the tokens, or None. Asks a model once, if that costs neither money nor another's place."""
        document = self._pool.document
        if document is not self._known[0] and document is not self._asked and self._is_free:
            self._asked = document
            await self._ask(runs, caller)
        return self._known[1] if self._known[0] is document else None

    @property
    def _is_free(self) -> bool:
        backends = self._pool.backends
        costs = any(is_replicate(each.upstream.name) for each in backends)
        return not costs and any(each.free > 0 for each in backends)

    async def _ask(self, runs: Runs, caller: Caller) -> None:
        with suppress(Problem, QueueFull):  # another model's server, or one that is busy
            run = runs.start(self._check().written(QUESTION), caller)
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE):
                        await run.end()
            finally:
                runs.abandon(run)
