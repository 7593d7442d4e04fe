"""Runs over upstreams that say what the test tells them to."""

import asyncio
import sqlite3
from collections import Counter

import pytest

from hermes.errors import EngineFailed, ServerStopping
from hermes.gateway import pool as pools
from hermes.gateway import runs as runs_module
from hermes.gateway.caller import Caller
from hermes.gateway.memory import Memory
from hermes.gateway.pool import Pool, QueueFull
from hermes.gateway.problems import Problem
from hermes.gateway.run import Hook
from hermes.gateway.runs import Runs
from hermes.gateway.store import Store
from hermes.gateway.upstream import Full, Refused, Unavailable

INPUTS = b'{"prompt":"Hi"}'
SAID = [("output", {"chunk": "Hel"}), ("log", {"data": "a line\n"}), ("output", {"chunk": "lo"})]
DONE = ("completed", {"status": "succeeded", "metrics": {"seed": 1}, "logs": "a line\n"})
ANNA, BERT = Caller("anna"), Caller("bert")


def failed(error):
    return "completed", {"status": "failed", "error": error}


class Scripted:
    """An upstream with a list of what each run meets: events, an error, or an event to wait for."""

    def __init__(self, *scripts, slots=4, name="scripted", refuses=None):
        self.name, self.slots = name, slots
        self.scripts = list(scripts)  # the last one goes on for ever
        self.seen, self.canceled, self.refuses = [], [], refuses

    async def ready(self):
        return True

    async def document(self):
        return {}

    async def run(self, run_id, inputs):
        self.seen.append((run_id, inputs))
        for step in self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, asyncio.Event):
                await step.wait()
            else:
                await asyncio.sleep(0)
                yield step

    async def cancel(self, run_id):
        self.canceled.append(run_id)
        if self.refuses:
            raise self.refuses


class Given:
    """Runs, and the parts that they stand on."""

    def __init__(self, *upstreams, max_waiting=9, path=None, **limits):
        self.ended, self.started = [], []
        self.pool = Pool(upstreams, max_waiting=max_waiting, max_wait=9.0)
        for backend in self.pool.backends:
            backend.ready = True
        self.upstream = upstreams[0]
        self.store, self.memory = Store(path), Memory(limits.pop("max_memory", 10**6))
        limits = {"keep": 3600.0, "keep_runs": 100, "keep_bytes": 10**6, **limits}
        self.runs = Runs(self.pool, self.store, self.memory, on_end=self.ended.append, **limits)

    def start(self, caller=ANNA, **more):
        self.started.append(self.runs.start(INPUTS, caller, **more))
        return self.started[-1]

    def read(self):
        """What was started is read: nobody holds what has ended."""
        for run in self.started:
            self.runs.abandon(run)


def given(*scripts, slots=4, **limits):
    return Given(Scripted(*scripts, slots=slots), **limits)


def of_one(main, *scripts, **limits):
    """Run a test on runs over one upstream with these scripts."""

    async def whole():
        parts = given(*scripts, **limits)
        try:
            async with asyncio.timeout(20):
                return await main(parts)
        finally:
            await parts.runs.stop(0)
            await parts.runs.close()
            parts.read()
            assert parts.memory.held == 0
            assert parts.runs.running == 0
            assert parts.pool.waiting == 0
            assert [backend.running for backend in parts.pool.backends] == [0]

    return asyncio.run(whole())


def run_to_its_end(*scripts):
    async def main(parts):
        run = parts.start()
        pieces = [piece async for piece in run.pieces()]
        assert parts.ended == [run]
        return run, pieces

    return of_one(main, *scripts)


def test_a_run_keeps_what_its_upstream_said():
    run, pieces = run_to_its_end([*SAID, DONE])
    assert (run.status, "".join(run.output), "".join(pieces), run.logs) == ("succeeded", "Hello", "Hello", "a line\n")
    assert run.metrics == {"seed": 1}
    assert run.created <= run.started <= run.first <= run.ended


@pytest.mark.parametrize(
    ("step", "error", "refused"),
    [
        (Refused("top_k: no"), "top_k: no", True),
        (EngineFailed("it broke"), "E1203 EngineFailed: it broke; the request can be sent again", False),
        (failed("Prediction failed: X: E1005 BadMessages: no"), "E1005 BadMessages: no", True),
        (failed("oh"), "oh", False),
        (("completed", {"status": "odd"}), "the server ended the prediction with the status 'odd'", False),
        (KeyError("bug"), "the gateway failed: KeyError", False),
    ],
)
def test_a_run_that_fails_says_why(step, error, refused):
    run, _ = run_to_its_end([step])
    assert (run.status, run.refused) == ("failed", refused)
    assert error in run.error


def test_an_upstream_gets_the_bytes_and_an_id_with_that_of_the_request():
    async def main(parts):
        run, other = parts.start(Caller("anna", request_id="r-1")), parts.start()
        await other.end()
        assert parts.upstream.seen == [(f"{run.id}-r-1", INPUTS), (other.id, INPUTS)]

    of_one(main, [DONE])


def test_a_run_that_nobody_began_is_tried_again():
    run, pieces = run_to_its_end([Full("no slot")], [Full("no slot")], [*SAID, DONE])
    assert (run.status, "".join(pieces)) == ("succeeded", "Hello")


def test_a_run_waits_while_no_upstream_is_there():
    async def main(parts):
        run = parts.start()
        while parts.pool.backends[0].ready:
            await asyncio.sleep(0)
        assert run.status == "starting"
        watching = asyncio.create_task(parts.pool.watch())
        await run.end()
        watching.cancel()
        return run.status

    assert of_one(main, [Unavailable("gone")], [DONE]) == "succeeded"


EARLY = [EngineFailed("the server answered 500: oh"), failed("E1203 EngineFailed: dead; so"), failed("oh")]


@pytest.mark.parametrize("step", EARLY)
def test_a_run_that_failed_before_its_first_piece_is_tried_once_at_another_upstream(step):
    async def main():
        broken, works = Scripted([step], name="broken"), Scripted([*SAID, DONE], name="works")
        parts = Given(broken, works)
        run = parts.start()
        await run.end()
        assert (run.status, "".join(run.output), len(broken.seen)) == ("succeeded", "Hello", 1)
        both = Given(broken, Scripted([step], name="also broken"))
        run = both.start()
        await run.end()
        assert (run.status, len(broken.seen), len(both.pool.backends[1].upstream.seen)) == ("failed", 2, 1)
        assert both.ended == [run]

    asyncio.run(main())


def test_what_is_the_clients_fault_or_came_after_a_piece_is_not_tried_again():
    async def main(*script):
        other = Scripted([DONE], name="other")
        parts = Given(Scripted(list(script)), other)
        run = parts.start()
        await run.end()
        assert (run.status, other.seen) == ("failed", [])
        assert parts.pool.backends[0].failures == 0

    asyncio.run(main(failed("E1005 BadMessages: no")))
    asyncio.run(main(Refused("no")))
    asyncio.run(main(*SAID, EngineFailed("it broke")))
    asyncio.run(main(*SAID, failed("E1203 EngineFailed: dead; so")))


def test_an_upstream_that_is_ready_and_fails_meets_a_handful_of_120_runs_and_all_succeed():
    async def main():
        broken = Scripted([EngineFailed("the server answered 500")], name="broken", slots=4)
        parts = Given(broken, Scripted([*SAID, DONE], name="works", slots=4), max_waiting=200)
        runs = [parts.start() for _ in range(120)]
        for run in runs:
            await run.end()
        assert Counter(run.status for run in runs) == {"succeeded": 120}
        assert len(broken.seen) <= 6
        assert [backend.ejections for backend in parts.pool.backends] == [1, 0]

    asyncio.run(main())


def test_inputs_that_make_every_server_fail_do_not_close_the_gateway():
    async def main():
        steps = [*[[failed("oh")]] * 20, [DONE]]
        parts = Given(Scripted(*steps, name="a"), Scripted(*steps, name="b"), max_waiting=20)
        runs = [parts.start() for _ in range(20)]
        for run in runs:
            await run.end()
        assert {run.status for run in runs} == {"failed"}
        for upstream in (backend.upstream for backend in parts.pool.backends):
            del upstream.scripts[:-1]
        run = parts.start()
        await run.end()
        assert run.status == "succeeded"

    asyncio.run(main())


CANCELED = ("completed", {"status": "canceled"})


@pytest.mark.parametrize(
    ("end", "failures"), [(CANCELED, 2), (DONE, 0), (failed("Prediction failed: X: E1005 BadMessages: no"), 0)]
)
def test_a_success_or_a_refusal_of_the_inputs_shows_that_an_upstream_works_and_a_cancel_does_not(end, failures):
    async def main(parts):
        parts.pool.backends[0].failures = 2
        run = parts.start()
        await run.end()
        assert parts.pool.backends[0].failures == failures

    of_one(main, [end])


def test_a_run_at_an_upstream_that_sends_nothing_and_answers_no_health_check_ends_with_e1203(monkeypatch):
    monkeypatch.setattr(pools, "POLL_SECONDS", 0)

    async def main(parts):
        run, lost = parts.start(), parts.pool.backends[0]

        async def gone():
            parts.asked += 1
            raise Unavailable("no answer")

        parts.asked, parts.upstream.ready = 0, gone
        watching = asyncio.create_task(parts.pool.watch())
        await run.begun()
        while parts.asked < 3:
            await asyncio.sleep(0)
        assert (run.status, lost.ready) == ("processing", False)
        monkeypatch.setattr(pools, "UNREACHABLE_SECONDS", 0)
        await run.end()
        watching.cancel()
        assert (run.status, lost.running) == ("failed", 0)
        assert run.error.startswith(
            "E1203 EngineFailed: scripted has sent nothing and answered no health check for 0 s"
        )

    of_one(main, [*SAID, asyncio.Event()])


def test_a_run_goes_on_at_an_upstream_that_says_that_it_is_not_ready(monkeypatch):
    monkeypatch.setattr(pools, "POLL_SECONDS", 0)
    monkeypatch.setattr(pools, "UNREACHABLE_SECONDS", 0)

    async def main(parts):
        async def not_ready():
            parts.asked += 1
            return False

        run, parts.asked, parts.upstream.ready = parts.start(), 0, not_ready
        await run.begun()
        watching = asyncio.create_task(parts.pool.watch())
        while parts.asked < 3:
            await asyncio.sleep(0)
        released.set()
        await run.end()
        watching.cancel()
        assert run.status == "succeeded"

    released = asyncio.Event()
    of_one(main, [*SAID, released, DONE])


def test_a_run_is_canceled_in_the_queue_and_where_it_runs():
    async def main(parts):
        running, waiting, never_begun = parts.start(), parts.start(), parts.start()
        await running.begun()
        await parts.runs.cancel(waiting)
        await parts.runs.cancel(never_begun)
        assert (waiting.status, never_begun.status, parts.pool.waiting) == ("canceled", "canceled", 0)
        asyncio.get_running_loop().call_soon(released.set)
        await parts.runs.cancel(running)
        assert parts.upstream.canceled == [running.id]
        assert (running.status, "".join(running.output)) == ("canceled", "Hello")

    released = asyncio.Event()
    of_one(main, [*SAID, released, CANCELED], slots=1)


def test_a_run_that_is_canceled_before_its_task_began_ends():
    async def main(parts):
        run = parts.start(kept=True)
        await parts.runs.cancel(run)
        assert (run.status, parts.upstream.seen) == ("canceled", [])

    of_one(main, [DONE])


@pytest.mark.parametrize(
    ("end", "status", "error"),
    [
        (CANCELED, "canceled", None),
        (("completed", {"status": "aborted"}), "canceled", None),
        (failed("Prediction failed: Generator iteration error: CancelledError: "), "canceled", None),
        (failed("Prediction was canceled"), "canceled", None),
        (DONE, "succeeded", None),
        (failed("CUDA out of memory"), "failed", "CUDA out of memory"),
        (failed("x: E1203 EngineFailed: was cancelled; so"), "failed", "E1203 EngineFailed: was cancelled; so"),
        (EngineFailed("the connection broke"), "failed", str(EngineFailed("the connection broke"))),
    ],
)
def test_a_canceled_run_ends_as_its_upstream_says(end, status, error):
    async def main(parts):
        run = parts.start()
        await run.begun()
        asyncio.get_running_loop().call_soon(released.set)
        await parts.runs.cancel(run)
        assert (run.status, run.error) == (status, error)

    released = asyncio.Event()
    of_one(main, [*SAID, released, end])


def test_a_failure_that_mentions_a_cancel_nobody_asked_for_is_one():
    run, _ = run_to_its_end([failed("CancelledError: ")])
    assert (run.status, run.error) == ("failed", "CancelledError: ")


@pytest.mark.parametrize("refuses", [None, Unavailable("the cancel was answered with 500")])
def test_a_run_whose_upstream_does_not_end_it_is_ended_all_the_same(monkeypatch, refuses):
    monkeypatch.setattr(runs_module, "CANCEL_SECONDS", 60 if refuses else 0.01)

    async def main(parts):
        parts.upstream.refuses = refuses
        run = parts.start()
        await run.begun()
        await parts.runs.cancel(run)
        assert (run.status, parts.pool.backends[0].running) == ("canceled", 0)

    of_one(main, [*SAID, asyncio.Event()])


def test_a_deadline_cancels_a_run_in_the_queue_and_where_it_runs(monkeypatch):
    monkeypatch.setattr(runs_module, "CANCEL_SECONDS", 0.001)

    async def main(parts):
        running, waiting = parts.start(cancel_after=0.01), parts.start(cancel_after=0.005)
        in_time = parts.start()
        await asyncio.gather(running.end(), waiting.end())
        assert (running.status, waiting.status) == ("canceled", "canceled")
        await parts.runs.cancel(in_time)
        assert [run_id for run_id, _ in parts.upstream.seen] == [running.id, in_time.id]

    of_one(main, [*SAID, asyncio.Event()], slots=1)


def test_a_token_has_no_more_in_flight_than_it_may():
    async def main(parts):
        first, _ = parts.start(), parts.start()
        with pytest.raises(Problem, match="2 predictions of this token are queued or running") as problem:
            parts.start()
        told = problem.value
        assert (told.status, told.code, told.retry_after) == (429, "too_many_predictions", 1)
        parts.start(BERT)
        for _ in range(2):
            parts.start(Caller())
        with pytest.raises(Problem):
            parts.start(Caller())
        await parts.runs.cancel(first)
        parts.start()

    of_one(main, [asyncio.Event()], max_per_token=2)


def test_memory_is_counted_from_the_start_to_the_end_and_not_beyond_its_limit():
    async def main(parts):
        run = parts.start(also_held=3)
        assert parts.memory.held == len(INPUTS) + 3
        with pytest.raises(Problem) as problem:
            parts.start()
        assert (problem.value.status, parts.memory.held, parts.runs.running) == (429, len(INPUTS) + 3, 1)
        await run.begun()
        assert parts.memory.held > len(INPUTS) + 5
        released.set()
        await run.end()
        assert parts.memory.held > len(INPUTS) + 5, "a reader holds it"
        for _ in range(2):
            parts.read()
            assert (parts.memory.held, parts.runs.running) == (0, 0)

    released = asyncio.Event()
    of_one(main, [*SAID, released, DONE], max_memory=2 * (len(INPUTS) + 5))  # half of it is one token's


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (["a"], {}),
        ({"output_token_count": "x", "input_token_count": -1, "seed": 2}, {"seed": 2}),
        ({"output_token_count": True, "input_token_count": 5}, {"input_token_count": 5}),
    ],
)
def test_metrics_that_cannot_be_counted_are_left_out(sent, kept):
    run, _ = run_to_its_end([("completed", {"status": "succeeded", "metrics": sent, "logs": ["a"]})])
    assert run.metrics == kept
    assert run.logs == "['a']"


def test_half_characters_of_a_server_are_replaced():
    run, pieces = run_to_its_end([("output", {"chunk": "é\ud800b"}), ("log", {"data": "\udfff"}), failed("x\ud800")])
    assert ("".join(pieces), run.logs, run.error) == ("é?b", "?", "x?")


def test_what_an_unreachable_upstream_had_not_begun_is_tried_at_another_one():
    async def main():
        silent, works = Scripted([asyncio.Event()], slots=1), Scripted([*SAID, DONE], slots=1)
        silent.name, works.name = "silent", "works"
        parts = Given(silent, works)
        run = parts.start()
        while run.upstream is not silent:
            await asyncio.sleep(0)
        [wait] = parts.pool.backends[0].waits
        wait.reschedule(0)
        await run.end()
        assert (run.status, "".join(run.output)) == ("succeeded", "Hello")
        await parts.runs.stop(0)
        await parts.runs.close()

    asyncio.run(main())


def test_a_full_queue_takes_no_run():
    async def main():
        parts = given([DONE], max_waiting=0)
        parts.pool.backends[0].ready = False
        with pytest.raises(QueueFull):
            parts.start()
        assert (parts.runs.running, parts.memory.held) == (0, 0)

    asyncio.run(main())


def test_a_kept_run_is_found_by_its_owner_while_it_runs_and_after_its_end():
    async def main(parts):
        runs = parts.runs
        run, unkept = parts.start(kept=True, version="v1"), parts.start()
        await runs.stored(run)
        for _ in range(2):
            found = await runs.find(run.id, "anna")
            assert (found.id, found.status, found.version) == (run.id, run.status, "v1")
            assert (await runs.find_by_secret(run.id, run.secret)).id == run.id
            assert await runs.find(run.id, "bert") is None
            assert await runs.find_by_secret(run.id, "\ud83d") is None
            assert await runs.find(unkept.id, "anna") is None
            page, following = await runs.page("anna", None, 10, 10**6)
            assert ([(each.id, each.output) for each in page], following) == ([(run.id, run.output)], None)
            assert await runs.page("bert", None, 10, 10**6) == ([], None)
            await run.begun()
            assert (await runs.find(run.id, "anna") is run) == (run.ended is None)
            released.set()
            await asyncio.gather(run.end(), unkept.end())

    released = asyncio.Event()
    of_one(main, [*SAID, released, DONE])


def test_a_page_counts_what_running_ones_have_so_far():
    async def main(parts):
        runs = [parts.start(kept=True) for _ in range(3)]
        for run in runs:
            await run.begun()
        page, following = await parts.runs.page("anna", None, 10, 2500)
        assert [run.id for run in page] == [runs[2].id, runs[1].id]
        assert following == runs[1].id
        page, following = await parts.runs.page("anna", following, 10, 2500)
        assert ([run.id for run in page], following) == ([runs[0].id], None)

    of_one(main, [("output", {"chunk": "x" * 1000}), asyncio.Event()])


def test_nobody_is_told_of_an_end_before_it_is_written():
    async def main(parts):
        run, written = parts.start(kept=True), []
        _end = parts.store._end

        def end(*args):
            written.append((run.status, run.ended))
            _end(*args)
            written.append((run.status, run.ended))

        parts.store._end = end
        await run.end()
        assert written == [("processing", None)] * 2
        assert run.status == "succeeded"

    of_one(main, [*SAID, DONE])


def test_a_run_that_cannot_be_stored_is_refused_and_ended(caplog):
    async def main(parts):
        parts.store._insert = full
        run = parts.start(kept=True)
        with pytest.raises(Problem, match="cannot be stored: disk is full") as problem:
            await parts.runs.stored(run)
        assert (problem.value.status, problem.value.code) == (503, "store_full")
        await run.end()
        assert run.status == "canceled"
        assert await parts.runs.find(run.id, "anna") is None

    of_one(main, [asyncio.Event()])


def full(*_):
    raise sqlite3.OperationalError("disk is full")


def test_an_end_that_cannot_be_written_is_readable_and_written_when_there_is_room(monkeypatch, caplog):
    monkeypatch.setattr(runs_module, "RETRY_SECONDS", 0.001)

    async def main(parts):
        _end, parts.store._end = parts.store._end, full
        made = [parts.start(kept=True) for _ in range(3)]
        await asyncio.gather(*(run.end() for run in made))
        assert (parts.runs.running, parts.ended) == (0, made)
        assert [await parts.runs.find(run.id, "anna") for run in made] == made
        assert (await parts.runs.page("anna", None, 10, 10**6))[0] == made[::-1]
        assert sum("its end cannot be stored yet: disk is full" in line for line in caplog.messages) == 3
        parts.store._end = _end
        while any([await parts.runs.find(run.id, "anna") is run for run in made]):
            await asyncio.sleep(0)
        assert [(await parts.store.get(run.id)).status for run in made] == ["succeeded"] * 3

    of_one(main, [*SAID, DONE])


def test_ends_that_cannot_be_written_are_counted_in_the_memory():
    async def main(parts):
        parts.store._end = full
        run = parts.start(kept=True)
        await run.end()
        with pytest.raises(Problem) as problem:
            parts.start()
        assert (problem.value.status, problem.value.code) == (429, "memory_full")
        assert await parts.runs.find(run.id, "anna") is run

    of_one(main, [("output", {"chunk": "x" * 1000}), DONE], max_memory=1000)


@pytest.mark.parametrize("there_is_room", [True, False])
def test_an_end_that_could_not_be_written_is_tried_once_more_at_the_end(tmp_path, there_is_room, caplog):
    async def main():
        parts = given([*SAID, DONE], path=tmp_path / "kept.db")
        _end, parts.store._end = parts.store._end, full
        run = parts.start(kept=True)
        await run.end()
        if there_is_room:
            parts.store._end = _end
        await parts.runs.stop(0)
        await parts.runs.close()
        assert parts.memory.held == 0
        again = Store(tmp_path / "kept.db")
        found = await again.get(run.id)
        await again.close()
        lost = any("its end is not stored: disk is full" in line for line in caplog.messages)
        return found.status, lost

    assert asyncio.run(main()) == (("succeeded", False) if there_is_room else ("failed", True))


def test_metrics_that_json_cannot_write_are_left_out_and_hold_up_nobody():
    async def main(parts):
        run = parts.start(kept=True)
        await run.end()
        while await parts.runs.find(run.id, "anna") is run:
            await asyncio.sleep(0)
        found = await parts.runs.find(run.id, "anna")
        assert (found.status, "".join(found.output), found.metrics) == ("succeeded", "Hello", {})

    of_one(main, [*SAID, ("completed", {"status": "succeeded", "metrics": {"a": object()}})])


def test_a_stop_waits_for_those_in_flight_and_then_ends_them_with_e1205(tmp_path):
    async def main():
        released = asyncio.Event()
        parts = given([*SAID, released, DONE], [*SAID, asyncio.Event()], slots=2, path=tmp_path / "kept.db")
        in_time, late, queued = (parts.start(kept=True, hook=Hook("http://a", ())) for _ in range(3))
        await late.begun()
        stopping = asyncio.create_task(parts.runs.stop(0.05))
        await asyncio.sleep(0)
        with pytest.raises(Problem) as problem:
            parts.start()
        assert (problem.value.status, problem.value.code) == (503, "E1205")
        released.set()
        await stopping
        assert [run.status for run in (in_time, late, queued)] == ["succeeded", "failed", "failed"]
        assert late.error == queued.error == str(ServerStopping(0.05))
        assert parts.memory.held == 0
        assert await parts.runs.find(late.id, late.owner), "what is stored is read until the end"
        await parts.runs.close()
        again = Store(tmp_path / "kept.db")
        assert (await again.get(late.id)).error == late.error
        await again.close()

    asyncio.run(main())
