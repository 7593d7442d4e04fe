import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress

import pytest

from hermes.errors import InvalidConfiguration
from hermes.gateway import pool as pools
from hermes.gateway.pool import FailedEarly, Pool, QueueFull
from hermes.gateway.upstream import Full, Unavailable


class Here:
    """An upstream whose health the test says."""

    def __init__(self, name, ready=True):
        self.name, self.is_ready, self.slots = name, ready, 1
        self.documents = [{"title": name}]

    async def ready(self):
        return self.is_ready

    async def document(self):
        if isinstance(self.documents[0], Exception):
            raise self.documents.pop(0)
        return self.documents[0]


def pool_of(*upstreams, slots=1, max_waiting=10, max_wait=60.0):
    pool = Pool(upstreams, max_waiting=max_waiting, max_wait=max_wait)
    for backend in pool.backends:
        backend.upstream.slots = slots
        backend.ready = backend.upstream.is_ready
    return pool


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def test_callers_are_served_in_their_order():
    async def main():
        pool, served = pool_of(Here("a")), []

        async def caller(number):
            async with pool.slot(pool.ticket()):
                served.append(number)
                await asyncio.sleep(0)

        await asyncio.gather(*map(caller, range(10)))
        return served

    assert asyncio.run(main()) == list(range(10))


def test_one_who_finds_no_slot_there_keeps_its_place_in_the_queue():
    async def main():
        pool, served, refused = pool_of(Here("a")), [], []

        def serve(number):
            if number == 0 and len(refused) < 3:
                refused.append(number)
                raise Full
            served.append(number)

        async def caller(number):
            ticket = pool.ticket()
            while number not in served:
                with suppress(Full):
                    async with pool.slot(ticket):
                        serve(number)

        await asyncio.gather(*map(caller, range(4)))
        return served

    assert asyncio.run(main()) == [0, 1, 2, 3]


def test_the_upstream_with_most_free_slots_is_next_and_one_that_is_not_ready_is_left_out():
    async def main():
        pool = pool_of(Here("a"), Here("b"), Here("c", ready=False), slots=2)
        used = []
        release = asyncio.Event()

        async def caller():
            async with pool.slot(pool.ticket()) as upstream:
                used.append(upstream.name)
                await release.wait()

        callers = [asyncio.create_task(caller()) for _ in range(5)]
        await until(lambda: len(used) == 4)
        assert pool.waiting == 1
        release.set()
        await asyncio.gather(*callers)
        return used

    assert asyncio.run(main())[:4] == ["a", "b", "a", "b"]


def test_an_upstream_that_is_gone_gets_nobody_until_it_says_that_it_is_ready():
    async def main():
        here = Here("a")
        pool = pool_of(here)
        with pytest.raises(Unavailable):
            async with pool.slot(pool.ticket()):
                raise Unavailable("no answer")
        assert [backend.ready for backend in pool.backends] == [False]
        waiting = asyncio.create_task(pool.slot(pool.ticket()).__aenter__())
        await until(lambda: pool.waiting == 1)
        watching = asyncio.create_task(pool.watch())
        assert await waiting is here
        watching.cancel()

    asyncio.run(main())


def test_the_queue_has_an_end_and_waiting_a_limit():
    async def main():
        pool = pool_of(Here("a"), max_waiting=2, max_wait=0.05)
        async with pool.slot(pool.ticket()):
            waiting = [asyncio.create_task(pool.slot(pool.ticket()).__aenter__()) for _ in range(2)]
            await until(lambda: pool.waiting == 2)
            with pytest.raises(QueueFull, match="2 requests are waiting") as full:
                pool.ticket()
            assert full.value.retry_after > 0
            for each in waiting:
                with pytest.raises(QueueFull, match="no slot was free for"):
                    await each
        assert pool.waiting == 0

    asyncio.run(main())


def test_a_caller_who_goes_away_leaves_the_queue():
    async def main():
        pool, served = pool_of(Here("a")), []

        async def caller(number):
            async with pool.slot(pool.ticket()):
                served.append(number)

        async with pool.slot(pool.ticket()):
            callers = [asyncio.create_task(caller(number)) for number in range(3)]
            await until(lambda: pool.waiting == 3)
            callers[1].cancel()
            await until(callers[1].done)
            assert pool.waiting == 2
        await asyncio.gather(callers[0], callers[2])
        assert [backend.running for backend in pool.backends] == [0]
        return served

    assert asyncio.run(main()) == [0, 2]


def test_a_caller_who_goes_away_at_its_turn_gives_the_slot_on():
    async def main():
        pool = pool_of(Here("a"))
        first = pool.slot(pool.ticket())
        await first.__aenter__()
        gone = asyncio.create_task(pool.slot(pool.ticket()).__aenter__())
        await until(lambda: pool.waiting == 1)
        await first.__aexit__(None, None, None)  # the slot is given to the one who waits
        gone.cancel()  # before it could take it
        with pytest.raises(asyncio.CancelledError):
            await gone
        async with asyncio.timeout(5), pool.slot(pool.ticket()):
            pass

    asyncio.run(main())


async def fail_early(pool, times, avoid=None):
    """How many of these predictions came to which upstream; all of them fail."""
    met = Counter()
    for _ in range(times):
        with suppress(FailedEarly):
            async with pool.slot(pool.ticket(), avoid) as upstream:
                met[upstream.name] += 1
                raise FailedEarly
    return met


def test_an_upstream_that_fails_three_times_in_a_row_is_ejected_while_another_one_is_ready():
    async def main():
        broken, works = Here("broken"), Here("works", ready=False)
        pool = pool_of(broken, works)
        assert await fail_early(pool, 3) == {"broken": 3}
        assert [(each.ejected, each.ejections) for each in pool.backends] == [(True, 1), (False, 0)]
        assert await fail_early(pool, 5) == {"broken": 5}, "no other one is ready"
        pool.backends[1].ready = True
        async with pool.slot(pool.ticket()) as first:
            assert first is works
            waiting = asyncio.create_task(pool.slot(pool.ticket()).__aenter__())
            await until(lambda: pool.waiting == 1)
        assert await waiting is works
        assert pool.backends[0].ejections == 1

    asyncio.run(main())


def test_one_success_makes_an_upstream_count_from_the_start_again():
    async def main():
        pool = pool_of(Here("a"))
        for _ in range(3):
            await fail_early(pool, 2)
            async with pool.slot(pool.ticket()) as upstream:
                pool.succeeded(upstream)
        assert pool.backends[0].ejections == 0
        await fail_early(pool, 3)
        pool.succeeded(pool.backends[0].upstream)  # a first piece
        assert (pool.backends[0].ejected, pool.backends[0].failures) == (False, 0)

    asyncio.run(main())


def test_an_ejected_upstream_is_tried_again_with_one_prediction_at_a_time(monkeypatch):
    monkeypatch.setattr(pools, "EJECT_SECONDS", 0.001)

    async def main():
        pool = pool_of(Here("broken"), Here("works"), slots=4)
        one, other = pool.backends
        other.ready = False
        await fail_early(pool, 3)
        other.ready = True
        await until(lambda: not one.ejected)
        taken = []
        with suppress(FailedEarly):
            async with AsyncExitStack() as slots:
                for _ in range(5):
                    taken.append(await slots.enter_async_context(pool.slot(pool.ticket())))
                raise FailedEarly
        assert Counter(upstream.name for upstream in taken) == {"broken": 1, "works": 4}
        assert one.ejected
        assert one.ejections == 2, "one more failure is enough"
        await until(lambda: not one.ejected)
        for each in (one, other):
            pool.succeeded(each.upstream)
        async with AsyncExitStack() as slots:
            taken = [await slots.enter_async_context(pool.slot(pool.ticket())) for _ in range(8)]
            assert Counter(upstream.name for upstream in taken) == {"broken": 4, "works": 4}

    asyncio.run(main())


def test_the_time_of_an_ejection_doubles_up_to_a_limit(monkeypatch):
    async def main():
        seconds = []
        pool = pool_of(Here("a"))
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda after, *_: seconds.append(after))
        for _ in range(7):
            await fail_early(pool, 3)
            pool._readmit(pool.backends[0])
        return seconds

    assert asyncio.run(main()) == [10, 20, 40, 80, 160, 300, 300]


def test_a_request_that_avoids_an_upstream_does_not_hold_up_those_behind_it():
    async def main():
        pool = pool_of(Here("a"), Here("b"))
        one, other = (backend.upstream for backend in pool.backends)
        assert pool.has_other(one)
        first = pool.ticket()
        busy = [pool.slot(pool.ticket()) for _ in range(2)]
        for each in busy:
            await each.__aenter__()
        avoiding = asyncio.create_task(pool.slot(first, avoid=one).__aenter__())
        behind = asyncio.create_task(pool.slot(pool.ticket()).__aenter__())
        await until(lambda: pool.waiting == 2)
        await busy[0].__aexit__(None, None, None)
        assert await behind is one
        await busy[1].__aexit__(None, None, None)
        assert await avoiding is other

    asyncio.run(main())


def test_requests_that_are_cancelled_leave_the_queue_at_once():
    async def main():
        pool = pool_of(Here("a"), max_waiting=20_000)
        async with pool.slot(pool.ticket()):
            stay = asyncio.create_task(pool.slot(pool.ticket()).__aenter__())
            waiting = [asyncio.create_task(pool.slot(pool.ticket()).__aenter__()) for _ in range(15_000)]
            last = asyncio.create_task(pool.slot(pool.ticket()).__aenter__())
            await until(lambda: pool.waiting == 15_002)
            for each in waiting:
                each.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert (pool.waiting, len(pool._queue)) == (2, 2)
        assert (await stay).name == "a"
        assert not last.done()
        last.cancel()
        with suppress(asyncio.CancelledError):
            await last

    asyncio.run(main())


def test_a_request_is_queued_as_fast_after_many_that_were_cancelled():
    async def main():
        pool = pool_of(Here("a"), max_waiting=20_000)

        async def create_and_cancel(times):
            began = time.process_time()
            for _ in range(times):
                each = asyncio.create_task(pool.slot(pool.ticket()).__aenter__())
                await asyncio.sleep(0)
                each.cancel()
                await asyncio.sleep(0)
            return time.process_time() - began

        async with pool.slot(pool.ticket()):
            first = await create_and_cancel(500)
            await create_and_cancel(4000)
            assert await create_and_cancel(500) < 10 * first

    asyncio.run(main())


def test_the_document_is_asked_for_whenever_an_upstream_becomes_ready(monkeypatch):
    monkeypatch.setattr(pools, "POLL_SECONDS", 0)

    async def main():
        here = Here("a", ready=False)
        here.documents = [Unavailable("starting"), {"version": 1}, {"version": 2}]
        pool = Pool([here], max_waiting=1, max_wait=9.0)
        watching = asyncio.create_task(pool.watch())
        await asyncio.sleep(0)
        assert pool.document is None
        here.is_ready = True
        await until(lambda: pool.document == {"version": 1})
        del here.documents[0]
        for _ in range(5):
            await asyncio.sleep(0)
        assert pool.document == {"version": 1}, "it was ready all the time"
        here.is_ready = False
        await until(lambda: not pool.backends[0].ready)
        assert pool.document == {"version": 1}, "the last that was known"
        here.is_ready = True
        await until(lambda: pool.document == {"version": 2})
        watching.cancel()

    asyncio.run(main())


def test_an_upstream_whose_health_cannot_be_asked_does_not_stop_the_others(monkeypatch):
    monkeypatch.setattr(pools, "POLL_SECONDS", 0)

    class Odd(Here):
        async def ready(self):
            raise RecursionError("a deep answer")

    async def main():
        pool = Pool([Odd("odd"), Here("a")], max_waiting=1, max_wait=9.0)
        watching = asyncio.create_task(pool.watch())
        await until(lambda: pool.backends[1].ready)
        assert not pool.backends[0].ready
        watching.cancel()

    asyncio.run(main())


def test_two_upstreams_of_one_name_are_refused():
    with pytest.raises(InvalidConfiguration, match="--upstream: a is there twice"):
        Pool([Here("a"), Here("b"), Here("a")], max_waiting=1, max_wait=1.0)
