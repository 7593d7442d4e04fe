"""Tables of the store whose rows are deleted when they are too old, or too many. All of it is done in its thread."""

import logging
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

log = logging.getLogger(__name__)

Row: TypeAlias = tuple[str, str, int]  # id, owner and bytes
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


@dataclass
class Bounds:
    """What is kept of each table."""

    seconds: float = float("inf")
    rows: float = float("inf")
    bytes: float = float("inf")


class BoundedTable:
    """The ended ones in a table that has the columns id, owner, ended and bytes."""

    def __init__(self, database: sqlite3.Connection, name: str, bounds: Bounds):
        """Count what is there. `bounds`: may change later."""
        self._database, self._name, self._bounds = database, name, bounds
        self._rows, self._bytes = Counter[str](), Counter[str]()  # of each owner
        database.execute(f"CREATE INDEX IF NOT EXISTS {name}_of_owner ON {name} (owner, ended, id, bytes)")
        counted = f"SELECT owner, count(*), sum(bytes) FROM {name} WHERE ended IS NOT NULL GROUP BY owner"  # noqa: S608
        for row in database.execute(counted):
            self.grow(*row)

    def grow(self, owner: str, rows: int, size: int) -> None:
        """Take note of rows that have ended, with `size` bytes in all, or that were deleted, if these are negative."""
        self._rows[owner] += rows
        self._bytes[owner] += size

    def prune(self) -> bool:
        """Delete what ended too long ago, and what is too much. Returns whether anything was.

        That is what ended first of the owner that has most, so that nobody's are deleted because of another's.
        """
        since = micros(datetime.now(UTC)) - self._bounds.seconds * 10**6
        gone = list(self._oldest("ended < ?", since))
        rows, sizes = self._rows.copy(), self._bytes.copy()
        _take(gone, rows, sizes)
        left: dict[str, Iterator[Row]] = {}
        while (many := rows.total() > self._bounds.rows) or sizes.total() > self._bounds.bytes:
            [(owner, _)] = (rows if many else sizes).most_common(1)
            if owner not in left:
                left[owner] = self._oldest("owner = ? AND ended >= ?", owner, since)
            gone.append(row := next(left[owner]))
            _take([row], rows, sizes)
        if not (gone and self._delete([(row_id,) for row_id, _, _ in gone])):
            return False
        self._rows, self._bytes = rows, sizes
        return True

    def _oldest(self, where: str, *values: float | str) -> Iterator[Row]:
        """Give what ended, what ended first first."""
        query = f"SELECT id, owner, bytes FROM {self._name} WHERE {where} ORDER BY ended, id"  # noqa: S608
        return self._database.execute(query, values)

    def _delete(self, ids: Sequence[tuple[str]]) -> bool:
        try:
            with transaction(self._database):
                self._database.executemany(f"DELETE FROM {self._name} WHERE id = ?", ids)  # noqa: S608
        except sqlite3.Error as error:
            log.warning("gateway: old %s could not be deleted from the store: %s", self._name, error)
            return False
        return True


def _take(gone: Iterable[Row], rows: Counter[str], sizes: Counter[str]) -> None:
    for _, owner, size in gone:
        rows[owner] -= 1
        sizes[owner] -= size


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """A transaction, which is rolled back if what is done in it fails."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # SQLite ends it by itself after some errors
            database.execute("ROLLBACK")
        raise


def micros(moment: datetime) -> int:
    """Returns a moment in microseconds since 1970."""
    return (moment - EPOCH) // MICROSECOND
