"""Kept responses of OpenAI's API, in the store's file and thread, within the same bounds as predictions.

An older gateway opens the file too: it leaves these tables alone.
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from hermes.client.cog import Json
from hermes.gateway.bounded_table import BoundedTable, micros, transaction
from hermes.gateway.problems import Problem
from hermes.gateway.store import Store, read, unreadable
from hermes.text import shown

T = TypeVar("T")

PATIENCE = 5.0  # s for the store, in a thread that others need
MAX_ID = 128  # characters of an item's id by which it can be found
SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,     -- the name of a token
    ended INTEGER NOT NULL,  -- microseconds since 1970
    bytes INTEGER NOT NULL,  -- of what follows, and of its items
    items_after INTEGER NOT NULL, items_to INTEGER NOT NULL,  -- numbers of the items that came with it
    response BLOB NOT NULL,  -- JSON, as clients get it
    conversation BLOB NOT NULL  -- JSON: the items that it answers, those of earlier responses too
);
CREATE INDEX IF NOT EXISTS responses_by_end ON responses (ended, id);
CREATE TABLE IF NOT EXISTS response_items (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    owner TEXT NOT NULL,
    item BLOB NOT NULL       -- JSON
);
CREATE INDEX IF NOT EXISTS items_by_id ON response_items (id, owner);
"""
TRIGGER = """
CREATE TRIGGER IF NOT EXISTS delete_items AFTER DELETE ON responses
BEGIN DELETE FROM response_items WHERE number > old.items_after AND number <= old.items_to; END
"""
# SQLite reads the JSON, for it lets the gateway's other threads run meanwhile.
NEW_ITEMS = f"""
INSERT INTO response_items (id, owner, item)
SELECT json_extract(value, '$.id') AS item_id, :owner, CAST(value AS BLOB) FROM (
    SELECT value FROM json_each(CAST(:conversation AS TEXT)) WHERE key >= :before
    UNION ALL SELECT value FROM json_each(CAST(:response AS TEXT), '$.output')
) WHERE length(item_id) <= {MAX_ID}
"""  # noqa: S608
LAST = "SELECT ifnull(max(number), 0) FROM response_items"
SIZE = "SELECT ifnull(sum(length(item)), 0) FROM response_items WHERE number > ?"


@dataclass(frozen=True)
class EndedResponse:
    """A response to be kept."""

    id: str
    owner: str
    response: bytes  # JSON
    conversation: bytes  # JSON: the items that it answers
    before: int  # how many of these are of earlier responses


class ResponseStore:
    """Responses by id. Those of another owner are as if they were not there."""

    def __init__(self, store: Store, max_found: int):
        """Make the tables in the store's file, if it has none. Raises InvalidConfiguration if that fails.

        Args:
            store: has the file, the thread and the bounds.
            max_found: bytes that one request may refer to.
        """
        self._store, self._max_found = store, max_found
        store.open(self._open)

    def keep(self, ended: EndedResponse) -> "asyncio.Future[None]":
        """Write a response. The result is there when it is committed."""
        return self._store.do(self._insert, ended)

    async def response(self, owner: str, response_id: str) -> bytes | None:
        """Returns a response as JSON, or None."""
        return await read(self._store.do(self._column, "response", owner, response_id))

    async def conversation(self, owner: str, response_id: str) -> bytes | None:
        """Returns the items that a response answers as JSON, or None."""
        return await read(self._store.do(self._column, "conversation", owner, response_id))

    async def delete(self, owner: str, response_id: str) -> bool:
        """Delete a response and its items. Returns whether it was there."""
        return await read(self._store.do(self._delete, owner, response_id))

    def reader(self, owner: str) -> "Reader":
        """Returns what reads the responses of an owner in a thread."""
        return Reader(self._store, self, owner, self._max_found)

    # From here on: in the store's thread.

    def _open(self) -> None:
        self._database = self._store.database
        with transaction(self._database):
            for statement in (*SCHEMA.split(";"), TRIGGER):
                self._database.execute(statement)
        self._table = BoundedTable(self._database, "responses", self._store.bounds)
        self._store.tables.append(self._table)

    def _insert(self, ended: EndedResponse) -> None:
        with transaction(self._database):
            before = self._number(LAST)
            self._database.execute(NEW_ITEMS, vars(ended))
            size = len(ended.response) + len(ended.conversation) + self._number(SIZE, before)
            row = (ended.id, ended.owner, micros(datetime.now(UTC)), size, before, self._number(LAST))
            values = (*row, ended.response, ended.conversation)
            self._database.execute("INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        self._table.grow(ended.owner, 1, size)
        self._store.prune()

    def _number(self, query: str, *values: int) -> int:
        found: int = self._database.execute(query, values).fetchone()[0]
        return found

    def _column(self, name: str, owner: str, response_id: str) -> bytes | None:
        found = self._row(f"SELECT {name} FROM responses WHERE id = ? AND owner = ?", response_id, owner)  # noqa: S608
        return found[0] if found else None

    def item(self, owner: str, item_id: str) -> bytes | None:
        """Returns an item as JSON, as it was last kept, or None."""
        query = "SELECT item FROM response_items WHERE id = ? AND owner = ? ORDER BY number DESC LIMIT 1"
        found = self._row(query, item_id, owner)
        return found[0] if found else None

    def whole(self, owner: str, response_id: str) -> tuple[bytes, bytes] | None:
        """Returns the items that a response answers, and those of the response, as JSON, or None."""
        found: tuple[bytes, bytes] | None = self._row(
            "SELECT conversation, CAST(json_extract(CAST(response AS TEXT), '$.output') AS BLOB) FROM responses "
            "WHERE id = ? AND owner = ?",
            response_id,
            owner,
        )
        return found

    def _row(self, query: str, *values: str) -> Any:
        self._store.prune()
        return self._database.execute(query, values).fetchone()

    def _delete(self, owner: str, response_id: str) -> bool:
        found = self._row("SELECT bytes FROM responses WHERE id = ? AND owner = ?", response_id, owner)
        if found:
            self._database.execute("DELETE FROM responses WHERE id = ?", (response_id,))
            self._table.grow(owner, -1, -found[0])
            self._store.deleted()
        return bool(found)


class Reader:
    """Looks up what one request refers to, in the thread that reads the request."""

    def __init__(self, store: Store, responses: ResponseStore, owner: str, max_found: int):
        self._store, self._responses, self._owner = store, responses, owner
        self._max_found = self._left = max_found

    def conversation(self, response_id: str) -> list[Json]:
        """Returns the items of a conversation up to a response, with it. Raises Problem if it is not kept."""
        found = self._wait(self._responses.whole, response_id)
        if found is None:
            said = (
                f"previous_response_id: there is no response {shown(response_id)}; it may be too old, not have ended, "
            )
            said += "or was sent with store: false. Send the whole conversation as input"
            raise Problem(400, said, param="previous_response_id", code="previous_response_not_found")
        self._count(sum(map(len, found)), "previous_response_id")
        before, output = map(json.loads, found)
        return [*before, *output]

    def item(self, item_id: str, place: str) -> Json:
        """Returns an item. Raises Problem if it is not kept."""
        found = self._wait(self._responses.item, item_id)
        if found is None:
            said = f"{place}: there is no item {shown(item_id)}; it may be too old, or its response was sent with "
            said += "store: false. Send store: false with each request, and the whole conversation as input"
            raise Problem(404, said, param=place, code="item_not_found")
        self._count(len(found), place)
        item: Json = json.loads(found)
        return item

    def _count(self, size: int, place: str) -> None:
        """Raises Problem where a small request would be a large one."""
        self._left -= size
        if self._left < 0:
            said = f"{place}: all that the request refers to has more than {self._max_found:,} bytes; send less"
            raise Problem(413, said, param=place)

    def _wait(self, work: Callable[[str, str], T], wanted: str) -> T:
        try:
            return self._store.wait_for(work, self._owner, wanted, patience=PATIENCE)
        except sqlite3.Error as error:
            raise unreadable(error) from error
        except TimeoutError:
            raise unreadable("it is busy") from None
