"""The switch that ends many waits, and the watch that throws it."""

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from hermes.devserver import PROJECT
from hermes.engine import Breaker, watch
from hermes.engine.watch import EngineWatch
from hermes.errors import EngineFailed


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(watch, "STOPPED_POLLS", 10)


@pytest.fixture
def engine_process():
    """A process that is there and does nothing."""
    process = subprocess.Popen(["sleep", "60"])
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


def watching(*processes, stall_timeout=60.0, unfinished=1, steps=lambda: 1):
    return EngineWatch(processes, stall_timeout=stall_timeout, unfinished=lambda: unfinished, steps=steps)


async def failure_of(looking_on, strike=lambda: None):
    """The error of one who waits for the engine when `strike` has been called."""
    looking_on.start()

    async def wait():
        async with looking_on.breaker.waiting():
            await asyncio.Event().wait()

    waiter = asyncio.create_task(wait())
    await asyncio.sleep(0.05)
    assert not waiter.done()
    strike()
    with pytest.raises(EngineFailed) as caught:
        await asyncio.wait_for(waiter, 5)
    assert looking_on.died.is_set()
    with pytest.raises(EngineFailed):  # and whoever comes later
        looking_on.breaker.check()
    return str(caught.value)


def test_a_process_that_is_gone_fails_whoever_waits(engine_process):
    said = asyncio.run(failure_of(watching(engine_process), engine_process.kill))
    assert f"the engine has died (its process {engine_process.pid} is gone); the request can be sent again" in said


def test_a_process_that_is_stopped_fails_whoever_waits_and_is_killed(engine_process):
    strike = lambda: engine_process.send_signal(signal.SIGSTOP)  # noqa: E731
    said = asyncio.run(failure_of(watching(engine_process), strike))
    assert f"the engine hangs (its process {engine_process.pid} is stopped)" in said
    assert engine_process.wait(5) is not None


def test_an_engine_that_says_nothing_while_it_has_work_hangs(engine_process):
    said = asyncio.run(failure_of(watching(engine_process, stall_timeout=0.2)))
    assert "E1203 EngineFailed: the engine hangs (nothing came from it for 0 s)" in said


def test_an_engine_that_never_says_anything_hangs(engine_process):
    said = asyncio.run(failure_of(watching(engine_process, stall_timeout=0.02, steps=lambda: 0)))
    assert "the engine hangs (nothing came from it" in said


@pytest.mark.parametrize(
    "signs",
    [{"unfinished": 0}, {"steps": itertools.count(1).__next__}, {"steps": lambda: 0}],
    ids=["no work", "signs of work", "a first step"],
)
def test_an_engine_that_need_not_have_computed_anything_is_left_alone(engine_process, signs):
    async def look_on():
        looking_on = watching(engine_process, stall_timeout=0.05, **signs)
        looking_on.start()
        await asyncio.sleep(0.2)
        looking_on.breaker.check()
        looking_on.stop()
        engine_process.kill()
        await asyncio.sleep(0.1)
        assert not looking_on.died.is_set(), "it was stopped, and did not die"

    asyncio.run(look_on())


def test_a_pause_shorter_than_a_hang_passes(engine_process, monkeypatch):
    monkeypatch.setattr(watch, "STOPPED_POLLS", 500)

    async def look_on():
        looking_on = watching(engine_process)
        looking_on.start()
        engine_process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.1)
        engine_process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.05)
        looking_on.breaker.check()

    asyncio.run(look_on())


# It watches an engine that computes a step in a fifth of a second, and says so at each.
WATCHING = """
import asyncio, psutil, subprocess, sys
from hermes.engine import watch

watch.POLL_SECONDS, watch.STOPPED_POLLS = 0.01, 10

async def main():
    engine, steps = psutil.Process(subprocess.Popen(["sleep", "60"]).pid), 0
    looking_on = watch.EngineWatch([engine], stall_timeout=0.4, unfinished=lambda: 1, steps=lambda: steps)
    looking_on.start()
    while not looking_on.died.is_set():
        await asyncio.sleep(0.2)
        steps += 1
        print("a step", flush=True)

asyncio.run(main())
"""


def test_a_pause_of_everything_passes_whatever_its_length():
    """As `docker pause`, or a virtual machine that is suspended."""
    command = [sys.executable, "-c", WATCHING]
    with subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as looking_on:
        try:
            for _ in range(2):
                assert [looking_on.stdout.readline() for _ in range(3)] == ["a step\n"] * 3
                os.killpg(looking_on.pid, signal.SIGSTOP)
                time.sleep(1)  # more than each limit
                os.killpg(looking_on.pid, signal.SIGCONT)
            assert [looking_on.stdout.readline() for _ in range(3)] == ["a step\n"] * 3
        finally:
            os.killpg(looking_on.pid, signal.SIGKILL)


def test_a_wait_ends_as_it_would_without_a_breaker():
    async def run():
        breaker = Breaker()
        async with breaker.waiting():
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), breaker.waiting():
                await asyncio.Event().wait()
        with pytest.raises(TimeoutError, match="its own"):
            async with breaker.waiting():
                raise TimeoutError("its own")
        task = asyncio.create_task(wait_in(breaker))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_each_of_many_waits_gets_an_error_of_its_own():
    async def run():
        breaker = Breaker()
        waits = [asyncio.create_task(wait_in(breaker)) for _ in range(3)]
        await asyncio.sleep(0)
        breaker.trip(lambda: EngineFailed("first"))
        breaker.trip(lambda: EngineFailed("second"))
        return await asyncio.gather(*waits, return_exceptions=True)

    errors = asyncio.run(run())
    assert len({id(error) for error in errors}) == 3
    assert all("first" in str(error) for error in errors)


async def wait_in(breaker):
    async with breaker.waiting():
        with contextlib.suppress(ValueError):
            await asyncio.Event().wait()
