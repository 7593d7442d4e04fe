"""The predictions in flight: each is read from its upstream to the end, whoever else reads or goes away."""

import asyncio
import hmac
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from hermes.client.cog import Json
from hermes.errors import EngineFailed, ServerStopping
from hermes.gateway.caller import Caller
from hermes.gateway.memory import Memory
from hermes.gateway.outcome import outcome_of, size_of, text_of
from hermes.gateway.pool import FailedEarly, Pool, QueueFull, Ticket
from hermes.gateway.problems import Problem, of_bug
from hermes.gateway.run import NOBODY, Hook, Outcome, Run
from hermes.gateway.store import Store, read
from hermes.gateway.upstream import Full, Refused, Unavailable, Upstream

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0  # until an end is written again that the store could not write
CANCEL_SECONDS = 2.0  # for an upstream to end what it was asked to cancel


class Runs:
    """The predictions in flight. Those that are kept are in the store from their creation on."""

    def __init__(
        self,
        pool: Pool,
        store: Store,
        memory: Memory,
        *,
        keep: float,
        keep_runs: int,
        keep_bytes: int,
        max_per_token: int | None = None,
        on_end: Callable[[Run], None],
    ):
        """Args:
        pool: the queue.
        store: of kept predictions; `close` closes it.
        memory: counts what predictions in flight take.
        keep: seconds that an ended prediction can be read.
        keep_runs: how many ended ones are kept.
        keep_bytes: of their inputs and outputs.
        max_per_token: how many one token may have queued or running at once; None: no limit.
        on_end: is called with each one that ends.
        """
        self._pool, self._memory, self._on_end = pool, memory, on_end
        self._max_per_token = max_per_token
        store.limit(keep, keep_runs, keep_bytes)
        self._store = store
        self._runs: dict[str, Run] = {}  # in flight, and those whose end the store could not write yet
        self._per_token: Counter[str] = Counter()
        self._cancels: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.Task[None]] = set()  # that are being written
        self._closing = asyncio.Event()
        self._grace: float | None = None  # s; set when the gateway stops
        self._grace_is_over = False

    @property
    def running(self) -> int:
        """How many are in flight, queued ones too."""
        return self._per_token.total()

    def start(
        self,
        inputs: bytes,
        caller: Caller = NOBODY,
        *,
        version: str = "",
        kept: bool = False,
        hook: Hook | None = None,
        cancel_after: float | None = None,
        also_held: int = 0,
        follows: Run | None = None,
    ) -> Run:
        """Begin a prediction, in the queue.

        Raises QueueFull if no more may wait, and Problem if the token has too many in flight, if the memory is full, or
        the gateway is stopping.

        Args:
            inputs: a compact JSON object, checked and without null values.
            caller: who sent the request.
            version: of the model, for the list.
            kept: whether it is stored and listed. `stored` waits until it is written.
            hook: the client's webhook.
            cancel_after: seconds from now until it is canceled, if it has not ended by then.
            also_held: bytes that are kept of its request.
            follows: an ended one of its request, which holds its place: so it is never one too many.
        """
        if self._grace is not None:
            raise Problem(503, str(ServerStopping(self._grace)), code=ServerStopping.code)
        if not follows and self._max_per_token is not None and self._per_token[caller.token] >= self._max_per_token:
            what = f"{self._per_token[caller.token]} predictions of this token are queued or running, as many as may"
            raise Problem(429, f"{what}; wait for one to end", code="too_many_predictions", retry_after=1)
        ticket = self._pool.ticket(follows=bool(follows))
        (self._memory.add if follows else self._memory.take)(len(inputs) + also_held, caller.token)
        run = Run(inputs, caller, version, kept, hook, held=len(inputs) + also_held)
        self._runs[run.id] = run
        self._per_token[caller.token] += 1
        if follows:
            self.release(follows)
        if kept:
            run.added = self._store.add(run)
        run.task = asyncio.create_task(self._drive(run, ticket), name=f"run {run.id}")
        run.task.add_done_callback(partial(self._ended, run))
        if cancel_after is not None:
            timer = asyncio.get_running_loop().call_later(cancel_after, self.abandon, run)
            run.task.add_done_callback(lambda _: timer.cancel())
        return run

    async def stored(self, run: Run) -> None:
        """Wait until a kept prediction is written. Raises Problem, and ends the prediction, if it cannot be."""
        if run.added and (problem := await _failure(run.added)):
            self.abandon(run)
            what = f"the prediction cannot be stored: {problem}; make room for the file that --store names"
            raise Problem(503, what, code="store_full") from problem

    async def find(self, run_id: str, owner: str) -> Run | None:
        """Returns a kept prediction of an owner, or None if it has none of that id."""
        run = await self._find(run_id)
        return run if run and run.owner == owner else None

    async def find_by_secret(self, run_id: str, secret: str) -> Run | None:
        """Returns a kept prediction to somebody who knows the address of its stream."""
        run = await self._find(run_id)
        given = secret.encode(errors="surrogatepass")
        return run if run and hmac.compare_digest(run.secret.encode(), given) else None

    async def page(self, owner: str, cursor: str | None, size: int, max_bytes: int) -> tuple[list[Run], str | None]:
        """Returns an owner's predictions, the newest first, and the cursor of the next page or None.

        At most `size` of them, and no more after `max_bytes` of inputs and outputs. Raises KeyError if the cursor is
        not known.
        """
        stored, following = await read(self._store.page(owner, cursor, size, max_bytes))
        runs: list[Run] = []
        for each in stored:
            run = self._here(each.id) or each  # with what it has so far
            max_bytes -= run.size
            if runs and max_bytes < 0:
                return runs, runs[-1].id
            runs.append(run)
        return runs, following

    async def cancel(self, run: Run) -> None:
        """End a prediction. Where it runs already, its upstream is asked to, and says how it ended.

        If the upstream refuses or does not end it, closing the connection does: coglet cancels what nobody reads.
        """
        if (task := run.task) is None:
            return  # it has ended
        run.cancel_asked = True
        if run.upstream and run.begun_there:
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(CANCEL_SECONDS):
                    await run.upstream.cancel(run.upstream_id)
                    await asyncio.wait([task])
        task.cancel()
        await run.end()

    def abandon(self, run: Run) -> None:
        """End a prediction that nobody reads any more, in the background, or let go of it if it has ended."""
        self.release(run)
        if not run.ended:
            _in_background(self.cancel(run), self._cancels)
        elif not (run.kept or run.abandoned):
            self._memory.give_back(run.held, run.owner)
        run.abandoned = True

    def release(self, run: Run) -> None:
        """Let an ended prediction count no more, or one that is in flight from its end on."""
        if run.holds_place and run.ended:
            self._leave(run.owner)
        run.holds_place = False

    def drop_inputs(self, run: Run) -> None:
        """Let go of the inputs of an ended prediction that is not kept."""
        size, run.inputs = len(run.inputs), b""
        run.held -= size
        if not run.abandoned:
            self._memory.give_back(size, run.owner)

    async def stop(self, grace: float) -> None:
        """Take no more, wait `grace` seconds for those in flight, and end the others. What is stored can be read on."""
        self._grace = grace
        runs = list(self._runs.values())
        if tasks := [run.task for run in runs if run.task]:
            await asyncio.wait(tasks, timeout=grace)
        self._grace_is_over = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*(run.end() for run in runs))
        for canceling in self._cancels:
            canceling.cancel()
        await asyncio.gather(*self._cancels, return_exceptions=True)

    async def close(self) -> None:
        """Close the store. What it could not write is tried once more."""
        self._closing.set()
        await asyncio.gather(*self._ends, return_exceptions=True)
        await self._store.close()

    async def _drive(self, run: Run, ticket: Ticket) -> Outcome:
        """Run it at the next free slot. Where nothing was begun, it comes back to the queue with its ticket."""
        failed_at: Upstream | None = None
        while True:
            try:
                return await self._attempt(run, ticket, failed_at)
            except (Full, Unavailable):
                continue
            except _Retry as retry:
                if failed_at or run.cancel_asked or not self._pool.has_other(retry.upstream):
                    return retry.outcome
                failed_at = retry.upstream
            except QueueFull as full:
                return Outcome("failed", str(full), retry_after=full.retry_after)
            except Refused as refused:
                return Outcome("failed", str(refused), refused=True)
            except EngineFailed as failed:
                return Outcome("failed", str(failed))
            except Exception as bug:
                return Outcome("failed", of_bug(f"run {run.id}", bug).message)

    async def _attempt(self, run: Run, ticket: Ticket, avoid: Upstream | None) -> Outcome:
        upstream = None
        try:
            async with self._pool.slot(ticket, avoid) as upstream:
                run.upstream, run.begun_there = upstream, False
                try:
                    outcome = await self._read(run, upstream)
                except EngineFailed as failed:
                    if run.output:
                        raise
                    raise _Retry(upstream, Outcome("failed", str(failed))) from failed
                if outcome.status == "failed" and not (run.output or outcome.refused):
                    raise _Retry(upstream, outcome)
                return outcome
        except EngineFailed as failed:  # perhaps of the pool: the upstream cannot be reached any more
            if run.output or upstream is None:
                raise
            raise _Retry(upstream, Outcome("failed", str(failed))) from failed
        finally:
            run.upstream = None

    async def _read(self, run: Run, upstream: Upstream) -> Outcome:
        """The events of a prediction, to the end."""
        async with aclosing(upstream.run(run.upstream_id, run.inputs)) as events:
            async for name, data in events:
                run.begun_there = True
                self._pool.heard(upstream)
                if run.status == "starting":
                    run.status, run.started = "processing", datetime.now(UTC)
                if name == "completed":
                    outcome = outcome_of(run, data)
                    self._hold(run, size_of(outcome.metrics))
                    if outcome.status == "succeeded" or outcome.refused:
                        self._pool.succeeded(upstream)
                    return outcome
                self._take(run, upstream, name, data)
        raise EngineFailed("the server's stream ended before the prediction did")

    def _take(self, run: Run, upstream: Upstream, name: str, data: Json) -> None:
        if name == "output":
            if not run.output:
                self._pool.succeeded(upstream)
            size = run.add(text_of(data.get("chunk", "")))
        elif name == "log":
            run.logs += (more := text_of(data.get("data", "")))
            size = len(more)
        else:
            return
        self._hold(run, size)
        run.notify()

    def _hold(self, run: Run, size: int) -> None:
        run.held += size
        self._memory.add(size, run.owner)

    def _ended(self, run: Run, task: "asyncio.Task[Outcome]") -> None:
        if not task.cancelled():
            outcome = task.result()
        elif self._grace_is_over and not run.cancel_asked:
            outcome = Outcome("failed", str(ServerStopping(self._grace or 0)))
        else:
            outcome = Outcome("canceled")
        ended = datetime.now(UTC)
        if run.kept:  # nobody is told of an end that is not written
            _in_background(self._save(run, outcome, ended), self._ends)
        else:
            self._finish(run, outcome, ended)
            self._forget(run)

    async def _save(self, run: Run, outcome: Outcome, ended: datetime) -> None:
        """Write an end, then tell it. One that cannot be written is told too, and stays here until it can be."""
        is_there = run.added and not await _failure(run.added)  # else whoever created it was told that it is not stored
        while is_there:
            last = self._closing.is_set()
            if not (problem := await _failure(self._store.end(run, outcome, ended))):
                break
            if last or not isinstance(problem, sqlite3.Error):
                log.error("gateway: run %s: its end is not stored: %s", run.id, problem)
                break
            if not run.ended:
                what = "it stays in memory until there is room in the file that --store names"
                log.error("gateway: run %s: its end cannot be stored yet: %s; %s", run.id, problem, what)
                self._finish(run, outcome, ended)
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS):
                    await self._closing.wait()
        if not run.ended:
            self._finish(run, outcome, ended)
        self._forget(run)

    def _forget(self, run: Run) -> None:
        """Take an ended prediction out. What is not kept is held by its reader until that abandons it."""
        del self._runs[run.id]
        if run.kept or run.abandoned:
            self._memory.give_back(run.held, run.owner)

    def _finish(self, run: Run, outcome: Outcome, ended: datetime) -> None:
        if not run.holds_place:
            self._leave(run.owner)
        run.task = None
        run.finish(outcome, ended)
        self._on_end(run)

    def _leave(self, owner: str) -> None:
        self._per_token[owner] -= 1
        if not self._per_token[owner]:
            del self._per_token[owner]

    async def _find(self, run_id: str) -> Run | None:
        return self._here(run_id) or await read(self._store.get(run_id))

    def _here(self, run_id: str) -> Run | None:
        """A kept prediction in flight, or whose end is not written."""
        run = self._runs.get(run_id)
        return run if run and run.kept else None


class _Retry(FailedEarly):
    """It failed so at this upstream, before its first piece."""

    def __init__(self, upstream: Upstream, outcome: Outcome):
        super().__init__(outcome.error)
        self.upstream, self.outcome = upstream, outcome


def _in_background(work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _failure(writing: "asyncio.Future[None]") -> Exception | None:
    """Wait for what the store writes. Returns why it could not be written."""
    try:
        await asyncio.shield(writing)
    except Exception as error:
        if not isinstance(error, sqlite3.Error):
            of_bug("the store", error)
        return error
    return None
