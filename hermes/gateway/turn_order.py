"""Turns in the order that the model reads: the results of calls follow the turn that has the calls.

Clients send them in other orders too, and so does the gateway itself: text after a call is written before its result.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hermes.client.cog import Json
from hermes.errors import BadMessages
from hermes.gateway.problems import Problem
from hermes.text import shown

RESULTS = ("tool", "function")  # roles of a result


class _Placed(NamedTuple):
    turn: Json
    place: str


@dataclass(eq=False)
class _Call:
    result: _Placed | None = None


@dataclass(eq=False)
class _Turn:
    """A turn that is no result, with the results of its calls."""

    turn: Json
    place: str
    calls: list[_Call] = field(default_factory=list)
    has_nameless: bool = False  # a call without an id
    unnamed: list[_Placed] = field(default_factory=list)  # results that name no call; the model's server assigns them
    more: list[Json] = field(default_factory=list)  # that the assistant said before a result came
    is_answered: bool = False  # a result came after it

    @property
    def role(self) -> object:
        return self.turn.get("role")

    def takes(self, turn: Json) -> bool:
        """Whether a turn is more of what the assistant said before it got a result."""
        return bool(self.calls) and not self.is_answered and turn.get("role") == "assistant"

    def all(self) -> Iterator[_Placed]:
        """Give the turn and its results."""
        yield _Placed(self._whole(), self.place)
        yield from (call.result for call in self.calls if call.result)
        yield from self.unnamed

    def _whole(self) -> Json:
        if not self.more:
            return self.turn
        said = [self.turn, *self.more]
        text = "\n\n".join(turn["content"] for turn in said if turn.get("content"))
        return {**self.turn, "content": text, "tool_calls": [call for turn in said for call in _calls(turn)]}


class _Conversation:
    """Turns as they are read, and who waits for whom."""

    def __init__(self) -> None:
        self.turns: list[_Turn] = []
        self._calling: _Turn | None = None  # the last turn with calls
        self._waiting: defaultdict[str, list[tuple[_Turn, deque[_Call]]]] = defaultdict(list)  # by id, by turn
        self._early: defaultdict[str, deque[_Placed]] = defaultdict(deque)  # results whose call has not come
        self._known: set[str] = set()

    def say(self, turn: Json, place: str) -> None:
        """Take a turn that is no result."""
        if self.turns and self.turns[-1].takes(turn):
            self.turns[-1].more.append(turn)
        else:
            self.turns.append(_Turn(turn, place))
        last = self.turns[-1]
        for each in _calls(turn):
            call_id = _key(each.get("id")) if isinstance(each, dict) else None
            last.calls.append(call := _Call())
            last.has_nameless |= not call_id
            self._calling = last
            if call_id:
                self._wait(last, call, call_id)

    def answer(self, turn: Json, place: str) -> None:
        """Take a result: of the call of its id in the last turn that waits for one, or else in a later turn."""
        result, last = _Placed(turn, place), self.turns[-1] if self.turns else None
        call_id = _key(turn.get("tool_call_id"))
        if last:
            last.is_answered = True
        if call_id and (groups := self._waiting[call_id]):
            groups[-1][1].popleft().result = result
            if not groups[-1][1]:
                groups.pop()
        elif last and last.role == "assistant" and not last.calls:
            last.unnamed.append(result)  # its call may be in the text
        elif self._calling and (self._calling.has_nameless or not call_id):
            self._calling.unnamed.append(result)
        else:
            self._early[call_id or ""].append(result)

    def end(self) -> None:
        """Raises Problem at a result whose call has not come."""
        for call_id, results in self._early.items():
            for result in results:
                why = "has its output already" if call_id in self._known else "is not in the conversation"
                said = BadMessages(result.place, f"is the output of the call {shown(call_id)}, which {why}")
                raise Problem(400, str(said), param=result.place, code=said.code)

    def _wait(self, turn: _Turn, call: _Call, call_id: str) -> None:
        self._known.add(call_id)
        if self._early[call_id]:
            call.result = self._early[call_id].popleft()
            return
        groups = self._waiting[call_id]
        if not groups or groups[-1][0] is not turn:
            groups.append((turn, deque()))
        groups[-1][1].append(call)


def in_order(turns: Sequence[Json], places: Sequence[str]) -> tuple[list[Json], list[str]]:
    """Returns the turns in the order that the model reads, and the place of each in the request.

    A result belongs to the call that it names, wherever that is. What the assistant says between a call and the first
    result is of the call's turn; what others say there comes after the results.

    Raises Problem at a result that belongs to no call, or is a second one.

    Args:
        turns: whose contents are text.
        places: of each in the request, such as `messages[3]`, for errors.
    """
    conversation = _Conversation()
    for turn, place in zip(turns, places, strict=True):
        if turn.get("role") in RESULTS:
            conversation.answer(turn, place)
        else:
            conversation.say(turn, place)
    conversation.end()
    ordered = [each for turn in conversation.turns for each in turn.all()]
    return [turn for turn, _ in ordered], [place for _, place in ordered]


def _calls(turn: Json) -> list[Any]:
    """The calls of a turn; what cannot be read is the server's to refuse."""
    calls = turn.get("tool_calls")
    return calls if turn.get("role") == "assistant" and isinstance(calls, list) else []


def _key(value: object) -> str | None:
    """An id. Some clients write them as numbers, and an empty text where there is none."""
    return None if value in (None, "") else str(value)
