"""Stop strings in free text with tool calls. The engine's own would also cut a call in two."""

from bisect import bisect_left
from collections.abc import Sequence

from hermes.tool_calls.parser import TRAINED, TRAINED_END


class StopFinder:
    """Passes a text on, piece by piece, up to the first stop string that is not within a call or its tags."""

    def __init__(self, stops: Sequence[str]):
        self.found = False
        self._stops = sorted(stops)
        self._waiting = ""  # for the text that decides on it
        self._exempt = 0  # characters of it
        self._in_call = False

    def feed(self, piece: str, *, exempt: bool = False, last: bool = False) -> str:
        """Take a piece of the text and return what is certain.

        Args:
            piece: what the model has written since.
            exempt: no stop string ends in it.
            last: nothing comes after it.
        """
        self._waiting += piece
        self._exempt = len(self._waiting) if exempt else self._exempt
        certain = ""
        while not self.found:
            tag = TRAINED_END if self._in_call else TRAINED
            begun = 0 if last else _begun(self._waiting, [tag])
            at = self._waiting.find(tag)
            free = at if at >= 0 else len(self._waiting) - begun
            stop = None if self._in_call else self._first_stop(free)
            if stop is not None:
                self.found = True
                return certain + self._waiting[:stop]
            if at < 0:
                if not (last or self._in_call):
                    begun = max(begun, _begun(self._waiting, self._stops))
                    stop = self._first_stop(len(self._waiting))  # unless its end begins a tag
                    begun = begun if stop is None else max(begun, len(self._waiting) - stop)
                return certain + self._take(len(self._waiting) - begun)
            certain += self._take(at + len(tag))
            self._in_call = not self._in_call
        return certain

    def _first_stop(self, end: int) -> int | None:
        """Where the stop string begins that ends first, and not after `end`."""
        found = []
        for stop in self._stops:
            at = self._waiting.find(stop, max(0, self._exempt - len(stop) + 1), end)
            if at >= 0:
                found.append((at + len(stop), at))
        return min(found)[1] if found else None

    def _take(self, size: int) -> str:
        taken, self._waiting = self._waiting[:size], self._waiting[size:]
        self._exempt = max(0, self._exempt - size)
        return taken


def _begun(text: str, wanted: Sequence[str]) -> int:
    """The length of the longest end of the text with which one of the sorted texts begins."""
    for size in range(min(len(text), max(map(len, wanted)) - 1), 0, -1):
        end = text[-size:]
        at = bisect_left(wanted, end)
        if at < len(wanted) and wanted[at].startswith(end):
            return size
    return 0
