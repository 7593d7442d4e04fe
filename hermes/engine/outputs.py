"""Passes on what vLLM puts out for one request."""

import asyncio
from typing import Any, cast

from hermes.chat.constraint import Constraint
from hermes.chat.finish_reason import FinishReason
from hermes.engine.chunk import Chunk, GrammarRefused, Take
from hermes.errors import AGAIN, MAY_FAIL_AGAIN, EngineFailed


class TakeFailed(Exception):
    """What takes the chunks of a response has failed, and not the engine. The cause says how."""


async def take_all(collector: Any, take: Take, constraint: Constraint | None) -> None:
    """Pass what vLLM puts into its RequestOutputCollector to `take` at once, up to the end.

    vLLM's own `generate` wakes a task for each output, which takes longer than all that is done with it.

    Raises:
        TakeFailed: `take` has raised something.
        GrammarRefused, EngineFailed: the engine, and not the model, ended the request.
        Exception: whatever vLLM puts there instead of an output.
    """
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    problem: Exception | None = None

    def put(output: Any) -> None:  # raises nothing, or vLLM's loop would end, and with it all requests
        nonlocal problem
        if ended.done():  # there may be more until vLLM has heard of it
            return
        if isinstance(output, Exception):
            problem, last = output, True
        elif problem := disorderly_end(output.outputs[0].finish_reason, constraint):
            last = True
        else:
            try:
                last = take(_chunk(output)) or output.finished
            except Exception as error:
                problem, last = TakeFailed(), True
                problem.__cause__ = error
        if last:
            ended.set_result(None)

    collector.put = put
    if collector.output is not None:
        put(collector.output)
    try:
        await ended
        if problem:
            raise problem
    finally:
        del problem  # its traceback leads to this frame, and this to the request, which may be megabytes


def disorderly_end(finish_reason: str | None, constraint: Constraint | None) -> Exception | None:
    """What to raise if the engine, and not the model, ended the request."""
    if finish_reason in (None, "stop", "length"):
        return None
    if finish_reason == "error" and constraint:  # no token fits the grammar; each new try would end so
        return GrammarRefused("the grammar allows no token at some place of the response; make its patterns simpler")
    next_step = MAY_FAIL_AGAIN if finish_reason == "error" else AGAIN
    return EngineFailed(f"the engine ended this request with {finish_reason!r}", next_step)


def _chunk(output: Any) -> Chunk:
    """vLLM's RequestOutput as ours."""
    generated = output.outputs[0]
    return Chunk(
        generated.text,
        len(generated.token_ids),
        cast("FinishReason | None", generated.finish_reason),
        preemptions=output.metrics.num_preemptions,
    )
