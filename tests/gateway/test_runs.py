"""Runs over an upstream that says what the test tells it to."""

import asyncio
from datetime import timedelta

import pytest

from hermes.errors import EngineFailed
from hermes.gateway.pool import LineFull, Pool
from hermes.gateway.runs import Runs
from hermes.gateway.upstream import Full, NotThere, Refused

SAID = [("output", {"chunk": "Hel"}), ("log", {"data": "a line\n"}), ("output", {"chunk": "lo"})]
DONE = ("completed", {"status": "succeeded", "metrics": {"seed": 1}, "logs": "a line\n"})


def failed(error):
    return "completed", {"status": "failed", "error": error}


class Scripted:
    """An upstream with a list of what each run meets: events, an error, or an event to wait for."""

    name = "scripted"
    slots = 4

    def __init__(self, *scripts):
        self.scripts = list(scripts)
        self.canceled = []

    async def ready(self):
        return True

    async def run(self, run_id, inputs):
        for step in self.scripts.pop(0):
            if isinstance(step, Exception):
                raise step
            if isinstance(step, asyncio.Event):
                await step.wait()
            else:
                yield step

    async def cancel(self, run_id):
        self.canceled.append(run_id)


def runs_of(*scripts, ended=None, slots=4, **limits):
    pool = Pool([Scripted(*scripts)], max_waiting=9, max_wait=9.0)
    pool.places[0].ready, pool.places[0].upstream.slots = True, slots
    kept = {"keep": 3600.0, "keep_runs": 100, "keep_bytes": 10**6, **limits}
    return Runs(pool, on_end=(ended if ended is not None else []).append, **kept), pool


def run_to_its_end(*script):
    async def main():
        ended = []
        runs, _ = runs_of(*script, ended=ended)
        run = runs.start({"prompt": "Hi"})
        pieces = [piece async for piece in run.pieces()]
        assert ended == [run]
        return run, pieces

    return asyncio.run(main())


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
        (KeyError("bug"), "the gateway failed: KeyError: 'bug'", False),
    ],
)
def test_a_run_that_fails_says_why(step, error, refused):
    run, _ = run_to_its_end([step])
    assert (run.status, run.error, run.refused) == ("failed", error, refused)


def test_a_run_that_nobody_began_is_tried_again():
    run, pieces = run_to_its_end([Full("no slot")], [Full("no slot")], [*SAID, DONE])
    assert (run.status, "".join(pieces)) == ("succeeded", "Hello")


def test_a_run_waits_while_no_upstream_is_there():
    async def main():
        runs, pool = runs_of([NotThere("gone")], [DONE])
        run = runs.start({})
        async with asyncio.timeout(9):
            while pool.places[0].ready:
                await asyncio.sleep(0)
            assert run.status == "starting"
            watching = asyncio.create_task(pool.watch())
            await run.end()
        watching.cancel()
        return run.status

    assert asyncio.run(main()) == "succeeded"


def test_a_run_is_canceled_in_line_and_where_it_runs():
    async def main():
        released = asyncio.Event()
        runs, pool = runs_of([*SAID, released, ("completed", {"status": "canceled"})], slots=1)
        running, waiting = runs.start({}), runs.start({})
        await running.begun()
        await runs.cancel(waiting)
        assert (waiting.status, pool.waiting) == ("canceled", 0)
        asyncio.get_running_loop().call_later(0.01, released.set)
        await runs.cancel(running)
        assert pool.places[0].upstream.canceled == [running.id]
        assert (running.status, "".join(running.output)) == ("canceled", "Hello")

    asyncio.run(main())


def test_a_run_whose_upstream_does_not_end_it_is_ended_all_the_same():
    async def main():
        runs, pool = runs_of([*SAID, asyncio.Event()])
        run = runs.start({})
        await run.begun()
        await runs.cancel(run)
        assert (run.status, pool.places[0].running) == ("canceled", 0)

    asyncio.run(main())


def test_runs_are_forgotten_by_time_by_number_and_by_size():
    async def main(**limits):
        runs, _ = runs_of(*[[("output", {"chunk": "x" * 1000}), DONE]] * 4, **limits)
        made = []
        for _ in range(4):
            made.append(runs.start({}))
            await made[-1].end()
        if "keep" in limits:
            made[0].ended -= timedelta(seconds=11)
        return [runs.find(run.id) is run for run in made], [*reversed(runs.newest_first())] == made[-3:]

    assert asyncio.run(main(keep=10.0)) == ([False, True, True, True], True)
    assert asyncio.run(main(keep_runs=3)) == ([False, True, True, True], True)
    assert asyncio.run(main(keep_bytes=3500)) == ([False, True, True, True], True)


def test_a_full_line_takes_no_run():
    async def main():
        pool = Pool([Scripted()], max_waiting=0, max_wait=9.0)
        runs = Runs(pool, keep=1.0, keep_runs=1, keep_bytes=1, on_end=print)
        with pytest.raises(LineFull):
            runs.start({})
        assert runs.newest_first() == []

    asyncio.run(main())
