"""Kept predictions, in SQLite: they outlive the gateway (https://sqlite.org/wal.html).

One thread owns the connection and does one thing after the other, so the end of a prediction is written after the
prediction. What was committed is there after kill -9; after a power cut the last commits may be gone.

What is too old is deleted within PRUNE_SECONDS, and then is in neither file: deleted rows are overwritten, and the
journal is emptied. The disk's own copies, such as an SSD's, are not ours to overwrite.
"""

import asyncio
import json
import logging
import os
import secrets
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from hermes.errors import Interrupted, InvalidConfiguration
from hermes.gateway.bounded_table import EPOCH, MICROSECOND, BoundedTable, Bounds, micros, transaction
from hermes.gateway.caller import Caller
from hermes.gateway.problems import Problem
from hermes.gateway.run import Hook, Outcome, Run

log = logging.getLogger(__name__)
T = TypeVar("T")

OPTION = "--store"
CLOSED = "it is closed"
APPLICATION = 0x6865726D  # SQLite's application_id, "herm"
SCHEMA_VERSION = 1  # its user_version
PRUNE_SECONDS = 5.0  # between two looks for what is too old, whether or not anybody asks
MAX_JOURNAL_BYTES = 16 * 2**20  # that the file beside the database keeps
SCHEMA = """
CREATE TABLE secret (bytes BLOB NOT NULL);
CREATE TABLE predictions (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,     -- the name of a token
    secret TEXT NOT NULL,    -- of the address of its stream
    version TEXT NOT NULL,
    inputs BLOB NOT NULL,    -- JSON, as all that a client or a model wrote: that may have half characters
    status TEXT NOT NULL,
    result TEXT,             -- JSON: output, logs, error, refused, metrics
    created INTEGER NOT NULL, started INTEGER, first INTEGER, ended INTEGER,  -- microseconds since 1970
    hook TEXT,               -- JSON: url, events
    delivered INTEGER NOT NULL,  -- whether the hook has nothing to be told any more
    bytes INTEGER NOT NULL   -- of inputs and result
);
CREATE INDEX by_owner ON predictions (owner, created, id);
CREATE INDEX by_end ON predictions (ended, id) WHERE ended IS NOT NULL;
CREATE INDEX undelivered ON predictions (ended) WHERE NOT delivered;
"""
FIELDS = "id, owner, secret, version, inputs, status, result, created, started, first, ended, hook"


class Store:
    """Predictions of Replicate's API, by id and by owner."""

    def __init__(self, path: Path | None = None):
        """Open the file, or make it. Predictions that had not ended when it was last open have failed.

        Raises InvalidConfiguration if it cannot be used.

        Args:
            path: of the file; None keeps everything in memory.
        """
        self._path, self._name = path, ":memory:" if path is None else str(path)
        self._thread = ThreadPoolExecutor(1, "store")
        self._closed = threading.Event()
        self._in_journal = False  # what was deleted
        self.bounds = Bounds()
        self.tables: list[BoundedTable] = []
        try:
            self.open(self._open)
        except BaseException:
            self._thread.shutdown()
            raise
        self._timer = threading.Thread(target=self._prune_for_ever, name="store timer", daemon=True)
        self._timer.start()

    def open(self, work: Callable[[], None]) -> None:
        """Do what opens the file, or makes tables in it. Raises InvalidConfiguration if it cannot be used."""
        try:
            self.wait_for(work)
        except (sqlite3.Error, OSError) as error:
            problem = error.strerror if isinstance(error, OSError) else str(error)
            if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                problem = "another gateway has it open"
            remedy = "make its folder, or " if isinstance(error, FileNotFoundError) else ""
            raise InvalidConfiguration(
                OPTION, f"{self._name} cannot be used: {problem}; {remedy}name another file"
            ) from error

    def limit(self, keep: float, keep_runs: int, keep_bytes: int) -> None:
        """Keep what has ended for `keep` seconds, and at most so many of each kind, with so many bytes in all."""
        self.bounds.seconds, self.bounds.rows, self.bounds.bytes = keep, keep_runs, keep_bytes
        self.wait_for(self.prune)

    def do(self, work: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        """Returns what `work` returns, in the store's thread."""
        loop = asyncio.get_running_loop()
        if self._closed.is_set():
            (closed := loop.create_future()).set_exception(sqlite3.ProgrammingError(CLOSED))
            return closed
        return loop.run_in_executor(self._thread, work, *args)

    def wait_for(self, work: Callable[..., T], *args: Any, patience: float | None = None) -> T:
        """Returns what `work` returns, in the store's thread. It blocks: it is for other threads.

        Raises TimeoutError after `patience` seconds.
        """
        if self._closed.is_set():
            raise sqlite3.ProgrammingError(CLOSED)
        job = self._thread.submit(work, *args)
        try:
            return job.result(patience)
        finally:
            job.cancel()  # if it has not begun

    def secret(self) -> bytes:
        """Returns 32 random bytes, always the same: a key from which others are derived."""
        return self._secret

    def add(self, run: Run) -> "asyncio.Future[None]":
        """Write a prediction that was just created. The result is there when it is committed."""
        hook = json.dumps({"url": run.webhook.url, "events": run.webhook.events}) if run.webhook else None
        row = (
            *(run.id, run.owner, run.secret, run.version, run.inputs, run.status, None, micros(run.created)),
            *(None, None, None, hook, run.webhook is None or not run.webhook.wants_end, len(run.inputs)),
        )
        return self.do(self._insert, row)

    def end(self, run: Run, outcome: Outcome, ended: datetime) -> "asyncio.Future[None]":
        """Write how a prediction ended, then delete what is too old or too much."""
        return self.do(self._end, run, outcome, ended)

    def get(self, run_id: str) -> "asyncio.Future[Run | None]":
        """Returns a prediction, or None."""
        return self.do(self._get, run_id)

    def page(
        self, owner: str, cursor: str | None, size: int, max_bytes: int
    ) -> "asyncio.Future[tuple[list[Run], str | None]]":
        """Returns the predictions of an owner that were created before that of the cursor, the newest first.

        At most `size`, and no more after `max_bytes`. The second value is the cursor of the next page, or None.
        Raises KeyError if the owner has no prediction of that id.
        """
        return self.do(self._page, owner, cursor, size, max_bytes)

    def undelivered(self) -> "asyncio.Future[list[tuple[str, str, Hook]]]":
        """Returns the ended predictions whose webhook has not been told so: id, owner and webhook."""
        return self.do(self._undelivered)

    def delivered(self, run_id: str) -> "asyncio.Future[None]":
        """Take note that the webhook of a prediction has been told its end, or will not be told any more.

        After `close` nothing is noted: it will be told again after the next start.
        """
        if self._closed.is_set():
            (noted := asyncio.get_running_loop().create_future()).set_result(None)
            return noted
        return self.do(self._mark_delivered, run_id)

    async def close(self) -> None:
        """Close the file, when all that was asked for is done."""
        if not self._closed.is_set():
            self._closed.set()
            self._timer.join()
            await asyncio.get_running_loop().run_in_executor(self._thread, lambda: self.database.close())
            self._thread.shutdown()

    def _prune_for_ever(self) -> None:
        with suppress(RuntimeError):  # the interpreter ends
            while not self._closed.wait(PRUNE_SECONDS):
                self._thread.submit(self._prune_and_empty_journal)

    # From here on: in the thread.

    def _open(self) -> None:
        is_new = self._path is not None and _make_file(self._path)
        self.database = sqlite3.connect(self._name, timeout=0, isolation_level=None)
        try:
            self._prepare()
        except BaseException:
            self.database.close()
            raise
        if self._path is not None and not is_new:
            self._path.chmod(0o600)
        self._predictions = BoundedTable(self.database, "predictions", self.bounds)
        self.tables.append(self._predictions)

    def _prepare(self) -> None:
        run = self.database.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        kind = (self._one("PRAGMA application_id")[0], self._one("PRAGMA user_version")[0])
        empty = not self._one("SELECT count(*) FROM sqlite_master")[0]
        if not empty and kind != (APPLICATION, SCHEMA_VERSION):
            what = f"has the version {kind[1]}" if kind[0] == APPLICATION else "is another program's"
            raise InvalidConfiguration(
                OPTION, f"{self._name} {what}; this gateway reads version {SCHEMA_VERSION}: name another file"
            )
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run(f"PRAGMA journal_size_limit = {MAX_JOURNAL_BYTES}")
        run("PRAGMA secure_delete = ON")  # what is deleted is gone from the file
        with transaction(self.database):  # it also takes the lock
            if empty:
                for statement in SCHEMA.split(";"):
                    run(statement)
                run(f"PRAGMA application_id = {APPLICATION}")
                run(f"PRAGMA user_version = {SCHEMA_VERSION}")
                run("INSERT INTO secret VALUES (?)", (secrets.token_bytes(32),))
            result = json.dumps({"error": str(Interrupted())})
            interrupted = run(
                "UPDATE predictions SET status = 'failed', result = ?, ended = ?, bytes = bytes + ? "
                "WHERE ended IS NULL",
                (result, micros(datetime.now(UTC)), len(result)),
            ).rowcount
        if interrupted:
            log.info("gateway: %s predictions had not ended when it ended; they have failed with E1206", interrupted)
        self._secret: bytes = self._one("SELECT bytes FROM secret")[0]

    def _insert(self, row: tuple[Any, ...]) -> None:
        self.database.execute(f"INSERT INTO predictions VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608

    def _end(self, run: Run, outcome: Outcome, ended: datetime) -> None:
        result = _result(run, outcome)
        size = len(run.inputs) + len(result)
        moments = [moment and micros(moment) for moment in (run.started, run.first, ended)]
        with transaction(self.database):
            done = self.database.execute(
                "UPDATE predictions SET status = ?, result = ?, started = ?, first = ?, ended = ?, bytes = ? "
                "WHERE id = ? AND ended IS NULL",
                (outcome.status, result, *moments, size, run.id),
            )
        self._predictions.grow(run.owner, done.rowcount, size * done.rowcount)
        self.prune()

    def _get(self, run_id: str) -> Run | None:
        self.prune()
        row = self.database.execute(f"SELECT {FIELDS} FROM predictions WHERE id = ?", (run_id,)).fetchone()  # noqa: S608
        return _run(row) if row else None

    def _page(self, owner: str, cursor: str | None, size: int, max_bytes: int) -> tuple[list[Run], str | None]:
        self.prune()
        before: tuple[int, str] = (2**63 - 1, "")
        if cursor is not None:
            found = self.database.execute(
                "SELECT created, id FROM predictions WHERE id = ? AND owner = ?", (cursor, owner)
            ).fetchone()
            if found is None:
                raise KeyError(cursor)
            before = found
        rows = self.database.execute(
            f"SELECT {FIELDS}, bytes FROM predictions WHERE owner = ? AND (created, id) < (?, ?) "  # noqa: S608
            "ORDER BY created DESC, id DESC",
            (owner, *before),
        )
        runs: list[Run] = []
        for *row, taken in rows:  # one after the other: a page may be far smaller than what there is
            max_bytes -= taken
            if runs and (len(runs) == size or max_bytes < 0):
                return runs, runs[-1].id
            runs.append(_run(row))
        return runs, None

    def _undelivered(self) -> list[tuple[str, str, Hook]]:
        rows = self.database.execute(
            "SELECT id, owner, hook FROM predictions WHERE NOT delivered AND ended IS NOT NULL ORDER BY ended"
        )
        return [(run_id, owner, hook) for run_id, owner, text in rows if (hook := _hook(text))]

    def _mark_delivered(self, run_id: str) -> None:
        self.database.execute("UPDATE predictions SET delivered = 1 WHERE id = ?", (run_id,))

    def prune(self) -> None:
        """Delete what is too old or too much."""
        for table in self.tables:
            self._in_journal = table.prune() or self._in_journal

    def deleted(self) -> None:
        """Take note that something was deleted: the journal is emptied at the next look."""
        self._in_journal = True

    def _prune_and_empty_journal(self) -> None:
        try:
            self.prune()
            if self._in_journal:
                self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._in_journal = False
        except sqlite3.Error as error:
            log.warning("gateway: the store could not be pruned: %s", error)

    def _one(self, statement: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self.database.execute(statement).fetchone()
        return row


def _make_file(path: Path) -> bool:
    """Make a file that only its owner reads. Returns whether it was not there."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True


def _result(run: Run, outcome: Outcome) -> str:
    """The column of this name. Metrics are whatever an upstream sent: those that JSON does not have are left out."""
    logs = run.logs if outcome.logs is None else outcome.logs
    result = {"output": run.output, "logs": logs, "error": outcome.error, "refused": outcome.refused}
    try:
        return json.dumps(result | {"metrics": outcome.metrics}, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        log.warning("gateway: run %s: its metrics are not stored: %s", run.id, error)
        return json.dumps(result, separators=(",", ":"))


def _run(row: Any) -> Run:
    run_id, owner, secret, version, inputs, status, result, created, started, first, ended, hook = row
    return Run(
        inputs,
        Caller(token=owner),
        version,
        kept=True,
        webhook=_hook(hook),
        id=run_id,
        secret=secret,
        status=status,
        created=_moment(created),
        started=None if started is None else _moment(started),
        first=None if first is None else _moment(first),
        ended=None if ended is None else _moment(ended),
        **(json.loads(result) if result else {}),
    )


def _hook(text: str | None) -> Hook | None:
    if text is None:
        return None
    hook = json.loads(text)
    return Hook(hook["url"], tuple(hook["events"]))


def _moment(micros: int) -> datetime:
    return EPOCH + micros * MICROSECOND


async def read(reading: Awaitable[T]) -> T:
    """Returns what the store reads. Raises Problem if it cannot be read."""
    try:
        return await reading
    except sqlite3.Error as error:
        raise unreadable(error) from error


def unreadable(why: object) -> Problem:
    """The problem that the store cannot be read."""
    return Problem(503, f"the store cannot be read: {why}", code="store_failed", retry_after=5)
