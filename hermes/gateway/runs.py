"""A prediction as the gateway keeps it: read from its upstream to the end, whoever else reads or goes away."""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import httpx

from hermes.chat.finish_reason import UNFINISHED
from hermes.client.cog import Json
from hermes.errors import EngineFailed, find_error
from hermes.gateway.pool import LineFull, Pool, Ticket
from hermes.gateway.upstream import Full, NotThere, Refused, Upstream

log = logging.getLogger(__name__)
Status = Literal["starting", "processing", "succeeded", "failed", "canceled"]

# replicate's client makes a file of any piece that begins so, and fails to print it.
LIKE_A_FILE = ("https:", "data:")


@dataclass
class Run:
    """One prediction."""

    inputs: Mapping[str, Any]
    id: str = field(default_factory=lambda: secrets.token_hex(13))
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32))  # of the address of its stream
    status: Status = "starting"
    output: list[str] = field(default_factory=list)
    logs: str = ""
    error: str | None = None
    refused: bool = False  # the error is about the inputs
    retry_after: int | None = None  # s; it got no slot
    metrics: Json = field(default_factory=dict)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: datetime | None = None  # when its first event came
    first: datetime | None = None  # when its first piece came
    ended: datetime | None = None
    upstream: Upstream | None = None  # while it runs there
    task: "asyncio.Task[None] | None" = field(default=None, repr=False)
    change: asyncio.Event = field(default_factory=asyncio.Event, repr=False)  # set at the next change, then replaced

    @property
    def cut_off(self) -> bool:
        """Whether the model would have gone on."""
        return self.metrics.get("finish_reason") in UNFINISHED

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(json.dumps(self.inputs)) + sum(map(len, self.output)) + len(self.logs)

    def add(self, piece: str) -> None:
        """Take a piece of the answer."""
        self.first = self.first or datetime.now(UTC)
        begin = next((len(start) - 1 for start in LIKE_A_FILE if piece.startswith(start)), 0)
        self.output += [piece[:begin], piece[begin:]] if begin else [piece]

    def notify(self) -> None:
        """Wake those who wait for a change."""
        change, self.change = self.change, asyncio.Event()
        change.set()

    async def pieces(self) -> AsyncGenerator[str]:
        """The pieces, joined as they have come together, until the run has ended."""
        start = 0
        while True:
            change = self.change
            if start < len(self.output):
                text = "".join(self.output[start:])
                start = len(self.output)
                yield text
            elif self.ended:
                return
            else:
                await change.wait()

    async def begun(self) -> None:
        """Wait for the first piece, or for the end."""
        while not (self.output or self.ended):
            await self.change.wait()

    async def end(self) -> None:
        """Wait for the end."""
        while not self.ended:
            await self.change.wait()


class Runs:
    """The runs of the last hour, and of now."""

    def __init__(self, pool: Pool, *, keep: float, keep_runs: int, keep_bytes: int, on_end: Callable[[Run], None]):
        self._pool = pool
        self._runs: dict[str, Run] = {}  # the oldest first
        self._keep, self._keep_runs, self._keep_bytes = keep, keep_runs, keep_bytes
        self._sizes: dict[str, int] = {}  # of ended runs, bytes; the first that ended first
        self._bytes = 0  # their sum
        self._on_end = on_end
        self._cancelling: set[asyncio.Task[None]] = set()

    def start(self, inputs: Mapping[str, Any]) -> Run:
        """Begin a run, in line. Raises LineFull if no more may wait."""
        ticket = self._pool.ticket()
        self._forget()
        run = Run(inputs)
        self._runs[run.id] = run
        run.task = asyncio.create_task(self._drive(run, ticket), name=f"run {run.id}")
        return run

    def find(self, run_id: str) -> Run | None:
        """A run that is kept."""
        self._forget()
        return self._runs.get(run_id)

    def newest_first(self) -> list[Run]:
        """All that are kept."""
        self._forget()
        return [*reversed(self._runs.values())]

    async def cancel(self, run: Run) -> None:
        """End a run. Where it runs already, its upstream is asked to, and says what became of it."""
        if run.ended or run.task is None:
            return
        if run.upstream and run.status == "processing":
            with suppress(httpx.HTTPError, TimeoutError):
                async with asyncio.timeout(2):
                    await run.upstream.cancel(run.id)
                    await run.end()
        run.task.cancel()
        await run.end()

    def abandon(self, run: Run) -> None:
        """End a run that nobody reads, in the background."""
        if not run.ended:
            task = asyncio.create_task(self.cancel(run))
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)

    async def close(self) -> None:
        """End all runs."""
        tasks = [run.task for run in self._runs.values() if run.task and not run.ended]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drive(self, run: Run, ticket: Ticket) -> None:
        try:
            while not await self._attempt(run, ticket):
                pass
        except asyncio.CancelledError:
            run.status = "canceled"
        except LineFull as full:
            run.status, run.error, run.retry_after = "failed", str(full), full.retry_after
        except Refused as refused:
            run.status, run.error, run.refused = "failed", str(refused), True
        except EngineFailed as failed:
            run.status, run.error = "failed", str(failed)
        except Exception as bug:
            run.status, run.error = "failed", f"the gateway failed: {type(bug).__name__}: {bug}"
            log.exception("gateway: run %s", run.id)
        finally:
            run.upstream, run.ended = None, datetime.now(UTC)
            self._sizes[run.id] = run.size
            self._bytes += run.size
            run.notify()
            self._on_end(run)

    async def _attempt(self, run: Run, ticket: Ticket) -> bool:
        """Run it at the next free slot. False if nothing was begun there: it keeps its place in line."""
        try:
            async with self._pool.slot(ticket) as run.upstream:
                async for name, data in run.upstream.run(run.id, run.inputs):
                    self._take(run, name, data)
        except (Full, NotThere):
            return False
        return True

    @staticmethod
    def _take(run: Run, name: str, data: Json) -> None:
        if run.status == "starting":
            run.status, run.started = "processing", datetime.now(UTC)
        if name == "output":
            run.add(str(data["chunk"]))
        elif name == "log":
            run.logs += str(data.get("data", ""))
        elif name == "completed":
            run.status = data["status"]
            run.metrics = data.get("metrics") or {}
            run.logs = data.get("logs") or run.logs
            error = str(data.get("error") or "")
            run.error = find_error(error) or error or None
            run.refused = (run.error or "").startswith("E10")
        else:
            return
        run.notify()

    def _forget(self) -> None:
        """Drop what ended long ago, and what ended first of what is too much."""
        now = datetime.now(UTC)
        while self._sizes:
            run_id = next(iter(self._sizes))
            ended = self._runs[run_id].ended
            old = ended and (now - ended).total_seconds() > self._keep
            if not (old or len(self._sizes) > self._keep_runs or self._bytes > self._keep_bytes):
                return
            self._bytes -= self._sizes.pop(run_id)
            del self._runs[run_id]
