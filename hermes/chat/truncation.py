"""Leaves the oldest turns out of a conversation that is too long for the model's context."""

from collections.abc import Sequence
from dataclasses import dataclass

from hermes.chat.chatml import ChatML
from hermes.chat.messages import Message
from hermes.errors import PromptTooLong


@dataclass(frozen=True)
class Prompt:
    """What the model is to complete."""

    token_ids: list[int]
    dropped_turns: int = 0
    bos: int = 0  # ids at the beginning that are no part of what the client sent


def truncated(
    messages: Sequence[Message], chatml: ChatML, context_tokens: int, max_tokens: int, begun: str = ""
) -> Prompt:
    """The prompt without the oldest turns that have to go for the response to fit.

    Room is made for max_tokens, but for at most half of the context. A call and its results go together. System turns,
    the last user turn and the last turn always stay, and so does what is `begun` of the response. Turns that go are not
    encoded.

    Raises PromptTooLong if the turns that stay are too long by a lower bound, so they are not encoded.
    """
    units = _units(messages)
    may_go = {index for unit in units for index in unit}
    stay = [index for index in range(len(messages)) if index not in may_go]
    fewest = chatml.fewest_tokens_of([messages[index] for index in stay], begun)
    if fewest >= context_tokens:
        raise PromptTooLong(fewest, max_tokens, context_tokens, at_least=True, truncate=True)
    head, opening = chatml.bos_ids, chatml.opening(begun)
    turns = {index: chatml.encode_turn(messages[index]) for index in stay}
    room = context_tokens - min(max_tokens, context_tokens // 2) - len(head) - len(opening)
    room -= sum(map(len, turns.values()))
    for unit in reversed(units):
        if room < sum(chatml.fewest_tokens_of_turn(messages[index]) for index in unit):
            break
        encoded = {index: chatml.encode_turn(messages[index]) for index in unit}
        room -= sum(map(len, encoded.values()))
        if room < 0:
            break
        turns |= encoded
    kept = [token_id for index in sorted(turns) for token_id in turns[index]]
    return Prompt([*head, *kept, *opening], len(messages) - len(turns), bos=len(head))


def _units(messages: Sequence[Message]) -> list[list[int]]:
    """The turns that may go, oldest first, each with the tool turns that answer it."""
    units: list[list[int]] = []
    for index, message in enumerate(messages):
        if message.role == "tool" and units:
            units[-1].append(index)
        else:
            units.append([index])
    last_user = max((index for index, message in enumerate(messages) if message.role == "user"), default=-1)
    return [unit for unit in units[:-1] if messages[unit[0]].role != "system" and unit[0] != last_user]
