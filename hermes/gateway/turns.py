"""Turns: what belongs to one owner is done one after the other, so that it does not keep others waiting."""

import asyncio
from collections.abc import Hashable
from weakref import WeakValueDictionary


class Turns:
    """A lock for each owner, while somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    def of(self, owner: Hashable) -> asyncio.Lock:
        """Returns the lock of an owner."""
        return self._locks.setdefault(owner, asyncio.Lock())
