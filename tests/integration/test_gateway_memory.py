"""Thousands send a gateway what is meant to fill it. Its memory stays within bounds, and nothing is left open."""

import asyncio
import json
import random
import statistics
import time
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.support.asking import until
from tests.support.fake_cog import FakeCog
from tests.support.gateways import MODEL, gateway_before
from tests.support.hostile_http import DEEP, LARGE, MOST, full, nested, path_for
from tests.support.hostile_requests import MEGABYTE

GROWTH = 200 * MEGABYTE  # bytes over the start
AT_ONCE = 200  # connections
MORE_FILES = 8  # than at the start, for idle connections to the upstream
SEED = 26
SMALL = {"prompt": "Hi", "max_tokens": 3}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}


class Attack:
    """So many hostile requests to one gateway, AT_ONCE at a time, of these kinds, each of which is a method."""

    def __init__(self, gateway, kinds, number):
        self._url = urlsplit(gateway.url)
        self._kinds, self._number = [getattr(self, kind) for kind in kinds], number
        self._draw = random.Random(SEED)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self.statuses = {}

    async def run(self):
        async with asyncio.TaskGroup() as group:
            for number in range(self._number):
                group.create_task(self._one(self._kinds[number % len(self._kinds)]))

    async def _one(self, kind):
        async with self._turns:
            reader, writer = await asyncio.open_connection(self._url.hostname, self._url.port)
            try:
                async with asyncio.timeout(60):
                    status = await kind(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                status = "closed"
            finally:
                writer.transport.abort()
            name = f"{kind.__name__} {status}"
            self.statuses[name] = self.statuses.get(name, 0) + 1

    async def large(self, reader, writer):
        return await self._send(reader, writer, full(*self._draw.choice(LARGE), MOST - 100))

    async def values(self, reader, writer):
        """A megabyte of empty objects: as Python's values it is thirty times as large."""
        shapes = [shape for shape in LARGE if shape[1] in ("{},", "[],")]
        return await self._send(reader, writer, full(*self._draw.choice(shapes), MOST - 100))

    async def deep(self, reader, writer):
        return await self._send(reader, writer, nested(*self._draw.choice(DEEP), 10_000))

    async def queued(self, reader, writer):
        """A prediction that stays when its client is gone."""
        inputs = SMALL | {"prompt": "word " * self._draw.choice([1, 10_000, 100_000])}
        return await self._send(
            reader, writer, json.dumps({"version": MODEL, "input": inputs}).encode(), "/v1/predictions"
        )

    async def queued_and_left(self, reader, writer):
        body = json.dumps(CHAT | {"user": "x" * self._draw.choice([1, 100_000])}).encode()
        await self._begin(writer, body, len(body), "/v1/chat/completions")
        await asyncio.sleep(self._draw.uniform(0, 0.5))
        return "left"

    async def slow(self, reader, writer):
        """Most of a body, and then nothing for a while."""
        body = full(*LARGE[0], MOST - 100)
        await self._begin(writer, body[:-1000], len(body), "/v1/chat/completions")
        await asyncio.sleep(self._draw.uniform(0, 1))
        return "left"

    async def unread(self, reader, writer):
        """A stream that nobody reads."""
        body = json.dumps(CHAT | {"stream": True, "messages": [{"role": "user", "content": "word " * 20_000}]}).encode()
        await self._begin(writer, body, len(body), "/v1/chat/completions")
        await asyncio.sleep(self._draw.uniform(0, 1))
        return "left"

    async def too_much(self, reader, writer):
        """A body of 16 MB, in one piece or in chunks."""
        return await self._send(reader, writer, b" " * (16 * MEGABYTE), "/v1/chat/completions")

    async def _send(self, reader, writer, body, path=None):
        with suppress(ConnectionError):  # it is refused before it is whole
            await self._begin(writer, body, len(body), path or path_for(body))
        head = await reader.readuntil(b"\r\n\r\n")
        return head.split(b" ")[1].decode()

    async def _begin(self, writer, body, length, path):
        head = f"POST {path} HTTP/1.1\r\nHost: {self._url.netloc}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {length}\r\n\r\n".encode() + body)
        await writer.drain()


class Watched:
    """A gateway's memory and descriptors."""

    def __init__(self, gateway):
        self._process = psutil.Process(gateway.process.pid)
        self.start, self.files = self.resident, self.open_files
        self.samples = []

    @property
    def resident(self):
        return self._process.memory_info().rss

    @property
    def open_files(self):
        return self._process.num_fds()

    @property
    def growth(self):
        """The most over the start, so far."""
        return max(self.samples) - self.start

    async def look_on(self):
        while True:
            self.samples.append(self.resident)
            await asyncio.sleep(0.02)


ALL = ["large", "large", "deep", "queued", "queued_and_left", "slow", "unread", "too_much"]
QUEUED = ["queued", "queued", "queued_and_left"]
LONG = [pytest.mark.long, pytest.mark.timeout(3000)]


@pytest.mark.parametrize(
    ("kinds", "number", "delay"),
    [
        pytest.param(ALL, 160, 0.02, id="160 of all kinds"),
        pytest.param(["values"], 100, 0.02, id="100 of many values"),
        pytest.param(ALL, 10_000, 0.02, id="10,000 of all kinds", marks=LONG),
        pytest.param(QUEUED, 5_000, 1, id="5,000 queued", marks=LONG),
        pytest.param(["values"], 2_000, 0.02, id="2,000 of many values", marks=LONG),
    ],
)
def test_hostile_bodies_do_not_fill_the_memory(kinds, number, delay):
    with FakeCog(slots=8) as fake, gateway_before(fake.url, options=["--slots", "8"]) as gateway:
        answers(gateway, 20)  # what each request leaves in the first place
        fake.behave(delay=delay)
        watched = Watched(gateway)
        attack = Attack(gateway, kinds, number)

        async def main():
            looking = asyncio.create_task(watched.look_on())
            await attack.run()
            looking.cancel()

        began = time.monotonic()
        asyncio.run(main())
        seconds = time.monotonic() - began
        print(f"{number} requests in {seconds:.0f} s: {dict(sorted(attack.statuses.items()))}")
        third = len(watched.samples) // 3
        thirds = [statistics.median(watched.samples[at : at + third]) / MEGABYTE for at in (0, third, 2 * third)]
        most = (
            f"at most {watched.growth / MEGABYTE:.0f} MB more, median of each third {[round(each) for each in thirds]}"
        )
        print(f"resident: {watched.start / MEGABYTE:.0f} MB at the start, {most}; {watched.files} files at the start")
        answered = [name for name in attack.statuses if name.rpartition(" ")[2].startswith("5")]
        assert answered == [], attack.statuses
        assert watched.growth < GROWTH

        fake.behave(delay=0)
        until(lambda: gateway.running == 0 and gateway.metric("hermes_gateway_waiting") == 0, 60, "the queue is empty")
        answers(gateway, 3)
        until(lambda: watched.open_files <= watched.files + MORE_FILES, 30, "the descriptors are closed")
        print(f"at rest: {(watched.resident - watched.start) / MEGABYTE:.0f} MB more, {watched.open_files} files")
        assert "Traceback" not in gateway.said


def answers(gateway, times):
    for _ in range(times):
        with httpx.Client(timeout=60) as client:
            response = client.post(f"{gateway.openai}/chat/completions", json=CHAT)
        assert response.status_code == 200, response.text
