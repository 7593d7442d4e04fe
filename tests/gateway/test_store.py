import asyncio
import json
import logging
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hermes.errors import Interrupted, InvalidConfiguration
from hermes.gateway import store as stores
from hermes.gateway.caller import Caller
from hermes.gateway.response_store import ResponseStore
from hermes.gateway.run import Hook, Outcome, Run
from hermes.gateway.store import Store

HOOK = Hook("http://127.0.0.1:9/hook", ("start", "completed"))
SUCCEEDED = Outcome("succeeded", metrics={"seed": 1}, logs="a line\n")
NOON = datetime(2025, 12, 1, 12, tzinfo=UTC)


@asynccontextmanager
async def opened(path=None, *, keep=10**9, keep_runs=10**6, keep_bytes=10**9):
    store = Store(path)
    store.limit(keep, keep_runs, keep_bytes)
    try:
        yield store
    finally:
        await store.close()


def run_of(owner="", number=0, **more):
    return Run(b'{"prompt":"Hi"}', Caller(owner), "v1", kept=True, created=NOON + timedelta(seconds=number), **more)


async def end(store, run, outcome=SUCCEEDED, ended=None):
    await store.add(run)
    run.output = run.output or ["Hel", "lo"]
    await store.end(run, outcome, ended or datetime.now(UTC))


def told(run):
    """What a reader gets of it."""
    names = ("id", "owner", "secret", "version", "inputs", "status", "output", "logs", "error", "refused", "metrics")
    moments = ("created", "started", "first", "ended", "webhook", "kept")
    return {name: getattr(run, name) for name in names + moments}


@pytest.mark.parametrize("in_file", [True, False])
def test_an_ended_run_is_read_as_it_was_written(tmp_path, in_file):
    async def main():
        async with opened(tmp_path / "kept.db" if in_file else None) as store:
            run = run_of("anna", webhook=HOOK)
            await store.add(run)
            assert (await store.get(run.id)).status == "starting"
            run.output, run.started, run.first = ["Hel", "\ud83d", "lo"], NOON, NOON + timedelta(microseconds=1)
            outcome = Outcome("failed", "E1005 BadMessages: \ud83d", True, metrics={"a": [1.5]}, logs="\ud83d")
            ended = datetime.now(UTC)
            await store.end(run, outcome, ended)
            run.finish(outcome, ended)
            assert told(await store.get(run.id)) == told(run)
            assert await store.get("another") is None

    asyncio.run(main())


def test_what_was_committed_is_found_again_and_what_had_not_ended_has_failed(tmp_path, caplog):
    caplog.set_level(logging.INFO, "hermes")

    async def main(path):
        running, ended = run_of("anna", 1, webhook=HOOK), run_of(number=2)
        async with opened(path) as store:
            secret = store.secret()
            await store.add(running)
            await end(store, ended)
        async with opened(path) as store:
            assert (store.secret(), len(secret)) == (secret, 32)
            found = await store.get(running.id)
            assert (found.status, found.error, found.inputs) == ("failed", str(Interrupted()), running.inputs)
            assert found.ended > found.created
            assert (await store.get(ended.id)).status == "succeeded"
            assert await store.undelivered() == [(running.id, "anna", HOOK)]

    asyncio.run(main(tmp_path / "kept.db"))
    assert "1 predictions had not ended" in caplog.text


def test_a_webhook_is_undelivered_until_it_took_the_end(tmp_path):
    async def main():
        async with opened() as store:
            wants = run_of(webhook=Hook("http://a", ()))
            for run in (wants, run_of(), run_of(webhook=Hook("http://a", ("output",)))):
                await end(store, run)
            await store.add(run_of(webhook=HOOK))  # it runs
            assert await store.undelivered() == [(wants.id, "", wants.webhook)]
            await store.delivered(wants.id)
            assert await store.undelivered() == []
        await store.delivered(wants.id)  # after close: it is told again after the next start
        with pytest.raises(sqlite3.Error, match="it is closed"):
            await store.undelivered()

    asyncio.run(main())


def test_a_page_has_an_owners_runs_the_newest_first():
    async def main():
        async with opened() as store:
            runs = [run_of("anna", number // 2) for number in range(7)]  # pairs of the same moment
            for run in (*runs, run_of("bert", 1)):
                await store.add(run)
            newest_first = sorted(runs, key=lambda run: (run.created, run.id), reverse=True)
            seen, cursor = [], None
            while True:
                page, cursor = await store.page("anna", cursor, 3, 10**6)
                seen.append([run.id for run in page])
                if cursor is None:
                    break
            assert [len(page) for page in seen] == [3, 3, 1]
            assert [run_id for page in seen for run_id in page] == [run.id for run in newest_first]
            for cursor in ("unknown", (await store.page("bert", None, 1, 1))[0][0].id):
                with pytest.raises(KeyError):
                    await store.page("anna", cursor, 3, 10**6)
            assert await store.page("carl", None, 3, 10**6) == ([], None)

    asyncio.run(main())


def test_a_page_ends_after_so_many_bytes_and_has_at_least_one():
    async def main():
        async with opened() as store:
            for number in range(3):
                run = run_of(number=number)
                run.output = ["x" * 1000]
                await end(store, run)
            sizes = []
            for most in (1, 2500, 10**6):
                page, cursor = await store.page("", None, 10, most)
                sizes.append((len(page), cursor is None))
            assert sizes == [(1, False), (2, False), (3, True)]

    asyncio.run(main())


@pytest.mark.parametrize("limit", [{"keep": 10.0}, {"keep_runs": 3}, {"keep_bytes": 3500}])
def test_ended_runs_are_deleted_by_time_by_number_and_by_size_what_ended_first_first(tmp_path, limit):
    async def main():
        path, now = tmp_path / "kept.db", datetime.now(UTC)
        runs = [run_of(number=number, webhook=HOOK) for number in range(4)]
        running = run_of(number=9)
        async with opened(path, **limit) as store:
            await store.add(running)
            for age, run in zip((11, 3, 2, 1), runs, strict=True):
                run.output = ["x" * 1000]
                await end(store, run, ended=now - timedelta(seconds=age))
            there = [await store.get(run.id) is not None for run in (*runs, running)]
            assert there == [False, True, True, True, True]
            assert len(await store.undelivered()) == 3
        async with opened(path, keep_runs=1) as store:
            kept, _ = await store.page("", None, 10, 10**6)
            assert [run.id for run in kept] == [running.id], "at opening, too; this one has just failed"
        assert b"xxxx" not in path.read_bytes()

    asyncio.run(main())


@pytest.mark.parametrize("limit", [{"keep_runs": 6}, {"keep_bytes": 7000}])
def test_nobodys_are_deleted_because_another_has_many(tmp_path, limit):
    async def main():
        for _ in range(2):  # it is counted at opening, too
            async with opened(tmp_path / "kept.db", **limit) as store:
                runs = [run_of("anna"), run_of("bert"), *(run_of("eve") for _ in range(9)), run_of("anna")]
                for run in runs:
                    run.output = ["x" * 1000]
                    await end(store, run)
                pages = [(await store.page(owner, None, 100, 10**6))[0] for owner in ("anna", "bert", "eve")]
        assert {run.id for run in runs if run.owner == "anna"} <= {run.id for run in pages[0]}
        assert [len(page) for page in pages] == [2, 2, 2]

    asyncio.run(main())


def test_the_same_end_is_written_and_counted_once():
    async def main():
        async with opened(keep_runs=2) as store:
            runs = [run_of(number=number) for number in range(2)]
            for run in runs:
                await end(store, run)
                await store.end(run, Outcome("failed"), datetime.now(UTC))
            assert [(await store.get(run.id)).status for run in runs] == ["succeeded"] * 2

    asyncio.run(main())


def test_what_is_too_old_leaves_the_files_of_an_idle_gateway(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "PRUNE_SECONDS", 0.001)

    async def main():
        async with opened(tmp_path / "kept.db") as store:
            run = run_of()
            run.output = ["xyzzy" * 1000]
            await end(store, run)
            assert b"xyzzy" in contents()
            store.bounds.seconds = 0.001
            while b"xyzzy" in contents():
                await asyncio.sleep(0)
            assert (tmp_path / "kept.db-wal").stat().st_size == 0

    def contents():
        return b"".join(each.read_bytes() for each in tmp_path.iterdir())

    asyncio.run(main())


def test_nobody_else_reads_the_file(tmp_path):
    path = tmp_path / "kept.db"

    async def main():
        async with opened(path) as store:
            await store.add(run_of())
            return {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}

    assert set(asyncio.run(main()).values()) == {0o600}
    path.chmod(0o644)
    asyncio.run(main())
    assert path.stat().st_mode & 0o777 == 0o600


def other_programs(path):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE notes (text)")
    database.close()


def later_version(path):
    asyncio.run(main_of(path))
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


async def main_of(path):
    async with opened(path):
        pass


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: path.write_text("my notes, which are long enough to be no database" * 20), "is not a database"),
        (other_programs, "is another program's"),
        (later_version, "has the version 99; this gateway reads version 1"),
        (Path.mkdir, "unable to open database file"),
    ],
)
def test_a_file_that_is_no_store_of_this_version_is_refused_and_left_as_it_is(tmp_path, make, problem):
    path = tmp_path / "kept.db"
    make(path)
    path.chmod(0o755)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(InvalidConfiguration, match=problem) as error:
        Store(path)
    assert str(error.value).startswith("E1202 InvalidConfiguration: --store: ")
    assert str(path) in str(error.value)
    assert "name another file" in str(error.value)
    assert path.stat().st_mode & 0o777 == 0o755
    assert (path.read_bytes() if path.is_file() else b"") == before


HOLD = """
import os, pathlib, sys
from hermes.gateway.store import Store
print(Store(pathlib.Path(sys.argv[1])).secret().hex(), flush=True)
sys.stdin.read()
os._exit(0)  # as after kill -9
"""


def test_a_store_that_another_gateway_has_open_is_refused_until_that_one_is_gone(tmp_path):
    path = tmp_path / "kept.db"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        secret = bytes.fromhex(other.stdout.readline().decode())
        with pytest.raises(InvalidConfiguration, match="another gateway has it open; name another file"):
            Store(path)
        other.stdin.close()

    async def main():
        async with opened(path) as store:
            return store.secret()

    assert asyncio.run(main()) == secret


def test_a_full_disk_is_told_and_what_was_written_stays(tmp_path):
    async def main():
        async with opened(tmp_path / "kept.db") as store:
            run = run_of()
            await store.add(run)
            store.wait_for(store.database.execute, "PRAGMA max_page_count = 1")
            with pytest.raises(sqlite3.OperationalError, match="full"):
                await store.add(Run(b"x" * 10**6))
            run.output = ["x" * 10**6]
            with pytest.raises(sqlite3.OperationalError, match="full"):
                await store.end(run, SUCCEEDED, datetime.now(UTC))
            assert (await store.get(run.id)).status == "starting"
            store.wait_for(store.database.execute, "PRAGMA max_page_count = 100000")
            await store.end(run, SUCCEEDED, datetime.now(UTC))
            assert (await store.get(run.id)).output == run.output

    asyncio.run(main())


def test_an_older_file_without_room_for_responses_is_refused(tmp_path):
    async def main():
        async with opened(tmp_path / "kept.db") as store:
            store.wait_for(store.database.execute, "PRAGMA max_page_count = 1")
            with pytest.raises(InvalidConfiguration, match=r"kept\.db cannot be used: .* full; name another file"):
                ResponseStore(store, 1)

    asyncio.run(main())


def test_a_closed_store_says_so_in_any_thread():
    async def main():
        async with opened() as store:
            await store.close()
            with pytest.raises(sqlite3.ProgrammingError, match="closed"):
                store.wait_for(store.prune)

    asyncio.run(main())


def test_the_file_can_be_read_with_sqlites_own_tools(tmp_path):
    path = tmp_path / "kept.db"

    async def main():
        async with opened(path) as store:
            await end(store, run_of("anna"))

    asyncio.run(main())
    database = sqlite3.connect(path)
    row = database.execute("SELECT owner, status, json_extract(result, '$.output') FROM predictions").fetchone()
    database.close()
    assert (row[0], row[1], json.loads(row[2])) == ("anna", "succeeded", ["Hel", "lo"])
