import asyncio
from contextlib import suppress

import pytest

from hermes.gateway.pool import LineFull, Pool
from hermes.gateway.upstream import Full, NotThere


class Here:
    """An upstream whose health the test says."""

    def __init__(self, name, ready=True):
        self.name, self.is_ready, self.slots = name, ready, 1

    async def ready(self):
        return self.is_ready


def pool_of(*upstreams, slots=1, max_waiting=10, max_wait=60.0):
    pool = Pool(upstreams, max_waiting=max_waiting, max_wait=max_wait)
    for place in pool.places:
        place.upstream.slots = slots
        place.ready = place.upstream.is_ready
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


def test_one_who_finds_no_slot_there_keeps_its_place_in_line():
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
        with pytest.raises(NotThere):
            async with pool.slot(pool.ticket()):
                raise NotThere("no answer")
        assert [place.ready for place in pool.places] == [False]
        waiting = asyncio.create_task(pool.slot(pool.ticket()).__aenter__())
        await until(lambda: pool.waiting == 1)
        watching = asyncio.create_task(pool.watch())
        assert await waiting is here
        watching.cancel()

    asyncio.run(main())


def test_the_line_has_an_end_and_waiting_a_limit():
    async def main():
        pool = pool_of(Here("a"), max_waiting=2, max_wait=0.05)
        async with pool.slot(pool.ticket()):
            waiting = [asyncio.create_task(pool.slot(pool.ticket()).__aenter__()) for _ in range(2)]
            await until(lambda: pool.waiting == 2)
            with pytest.raises(LineFull, match="2 callers are waiting") as full:
                pool.ticket()
            assert full.value.retry_after > 0
            for each in waiting:
                with pytest.raises(LineFull, match="no slot was free for"):
                    await each
        assert pool.waiting == 0

    asyncio.run(main())


def test_a_caller_who_goes_away_leaves_the_line():
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
        assert [place.running for place in pool.places] == [0]
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
