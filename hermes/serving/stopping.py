"""Ends a response at a stop string outside its tool calls."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from hermes.chat.stops import StopFinder
from hermes.engine import Chunk


async def until_stop(
    steps: AsyncGenerator[Chunk, None], stops: Sequence[str], min_tokens: int
) -> AsyncGenerator[Chunk, None]:
    """The chunks of an engine up to the first stop string. There it closes the engine's generator.

    Args:
        steps: of the engine.
        stops: texts; one in the first `min_tokens` tokens does not count.
        min_tokens: see Sampling.
    """
    finder, tokens = StopFinder(stops), 0
    async with aclosing(steps):
        async for chunk in steps:
            tokens += chunk.token_count
            text = finder.feed(chunk.text, exempt=tokens <= min_tokens, last=chunk.finish_reason is not None)
            if finder.found:
                yield chunk._replace(text=text, finish_reason="stop")
                return
            yield chunk._replace(text=text)
