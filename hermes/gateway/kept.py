"""Kept predictions: what the store has, and in memory what it could not write."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from hermes.gateway.problems import Problem
from hermes.gateway.run import Outcome, Run
from hermes.gateway.store import Store

log = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_SECONDS = 5.0  # until an end is written again that the store could not write


class KeptRuns:
    """A store that may be full for a while."""

    def __init__(self, store: Store, keep_bytes: int):
        """Args:
        store: is closed with this.
        keep_bytes: of ended predictions in memory, while the store cannot be written.
        """
        self._store, self._keep_bytes = store, keep_bytes
        self._unsaved: dict[str, tuple[Run, Outcome, datetime]] = {}
        self._bytes = 0  # of these
        self._retrying: asyncio.Task[None] | None = None

    def add(self, run: Run) -> None:
        """Write a prediction that was just created; `added` waits for it."""
        run.added = self._store.add(run)

    async def added(self, run: Run) -> None:
        """Wait until a prediction is written. Raises Problem if it could not be."""
        if run.added and (problem := await _failure(run.added)):
            what = f"the prediction cannot be stored: {problem}; make room for the file that --store names"
            raise Problem(503, what, code="store_full") from problem

    async def end(self, run: Run, outcome: Outcome, ended: datetime) -> None:
        """Write how a prediction ended, or keep it in memory until that can be written."""
        if run.added is None or await _failure(run.added):
            return  # whoever created it was told that it is not stored
        if not (problem := await _failure(self._store.end(run, outcome, ended))):
            return
        if not self._unsaved:
            what = "ended predictions stay in memory until there is room in the file that --store names"
            log.error("gateway: the store cannot be written: %s; %s", problem, what)
        self._unsaved[run.id] = run, outcome, ended
        self._bytes += run.size
        while self._bytes > self._keep_bytes:
            self._forget(next(iter(self._unsaved)))
        if self._retrying is None or self._retrying.done():
            self._retrying = asyncio.create_task(self._retry())

    async def find(self, run_id: str) -> Run | None:
        """Returns an ended prediction, or None."""
        if run_id in self._unsaved:
            return self._unsaved[run_id][0]
        return await _read(self._store.get, run_id)

    async def page(self, owner: str, cursor: str | None, size: int, max_bytes: int) -> tuple[list[Run], str | None]:
        """Returns what Store.page returns."""
        runs, following = await _read(self._store.page, owner, cursor, size, max_bytes)
        return [self._unsaved[run.id][0] if run.id in self._unsaved else run for run in runs], following

    async def close(self) -> None:
        """Close the store."""
        if self._retrying:
            self._retrying.cancel()
            await asyncio.wait([self._retrying])
        await self._store.close()

    async def _retry(self) -> None:
        while self._unsaved:
            await asyncio.sleep(RETRY_SECONDS)
            for run_id, end in list(self._unsaved.items()):
                if await _failure(self._store.end(*end)):
                    break
                self._forget(run_id)
        log.info("gateway: the store can be written again")

    def _forget(self, run_id: str) -> None:
        if unsaved := self._unsaved.pop(run_id, None):
            self._bytes -= unsaved[0].size


async def _failure(writing: "asyncio.Future[None]") -> Exception | None:
    """Wait for what the store writes. Returns why it could not be written."""
    try:
        await asyncio.shield(writing)
    except Exception as error:
        if not isinstance(error, sqlite3.Error):
            log.exception("gateway: the store")
        return error
    return None


async def _read(read: "Callable[..., asyncio.Future[T]]", *args: Any) -> T:
    """Returns what the store reads. Raises Problem if it cannot be read."""
    try:
        return await read(*args)
    except sqlite3.Error as error:
        raise Problem(503, f"the store cannot be read: {error}", code="store_failed", retry_after=5) from error
