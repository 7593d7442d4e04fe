"""Ends a response at a stop string outside its tool calls."""

from collections.abc import Callable, Sequence

from hermes.chat.stops import StopFinder
from hermes.engine import Chunk, Take


def until_stop(take: Callable[[Chunk], object], stops: Sequence[str], min_tokens: int) -> Take:
    """What an engine may call instead of `take`, and which ends the response at the first stop string.

    Args:
        take: gets the chunks up to there.
        stops: texts; one in the first `min_tokens` tokens does not count.
        min_tokens: see Sampling.
    """
    finder, tokens = StopFinder(stops), 0

    def take_until_stop(chunk: Chunk) -> bool:
        nonlocal tokens
        tokens += chunk.token_count
        text = finder.feed(chunk.text, exempt=tokens <= min_tokens, last=chunk.finish_reason is not None)
        take(chunk._replace(text=text, finish_reason="stop" if finder.found else chunk.finish_reason))
        return finder.found

    return take_until_stop
