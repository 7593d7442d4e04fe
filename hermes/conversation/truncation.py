"""A conversation that is too long for the model's context, with its oldest turns left out."""

from collections.abc import Sequence
from dataclasses import dataclass

from hermes.conversation.chatml import ChatML
from hermes.conversation.messages import Message


@dataclass(frozen=True)
class Prompt:
    """What the model is to complete."""

    token_ids: list[int]
    dropped_turns: int = 0


def truncated(messages: Sequence[Message], chatml: ChatML, context_tokens: int, max_tokens: int) -> Prompt:
    """The prompt without as many of the oldest turns as it takes for the answer to fit after it.

    Room is made for max_tokens, but for no more than half of the context. A call and its results go together. Kept
    are system turns, the last user turn and the last turn, even where that is too much.
    """
    turns = [chatml.encode_turn(message) for message in messages]
    head, opening = chatml.bos_ids, chatml.opening()
    surplus = len(head) + sum(map(len, turns)) + len(opening) + min(max_tokens, context_tokens // 2) - context_tokens
    dropped: set[int] = set()
    for unit in _units(messages):
        if surplus <= 0:
            break
        dropped.update(unit)
        surplus -= sum(len(turns[index]) for index in unit)
    kept = [token_id for index, turn in enumerate(turns) if index not in dropped for token_id in turn]
    return Prompt([*head, *kept, *opening], len(dropped))


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
