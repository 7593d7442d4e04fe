"""The streams of predictions in Replicate's API (https://replicate.com/docs/topics/predictions/streaming).

All readers of an ended prediction share one copy, without its inputs, which is counted while they read.
"""

import asyncio
import copy
import json
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from hermes.gateway.bodies import SMALL, Bodies
from hermes.gateway.events import EVENT_STREAM, NO_CACHE, PING_SECONDS
from hermes.gateway.memory import Memory
from hermes.gateway.run import Run

BATCH = 200  # pieces at once
LINE_ENDS = re.compile("\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")  # where replicate's client ends a line


class Streams:
    """Makes streams, and knows what they hold."""

    def __init__(self, bodies: Bodies, memory: Memory):
        """Args:
        bodies: has the threads where what is large is written.
        memory: counts predictions that only streams hold.
        """
        self._bodies, self._memory = bodies, memory
        self._read: dict[str, _SharedRun] = {}

    def response(self, run: Run, pieces: int, logs: int) -> StreamingResponse:
        """Returns the stream of a prediction, from so many pieces and characters of its logs on.

        Where the memory is full, it becomes a 429.
        """
        return _Stream(self, run, pieces, logs)

    @contextmanager
    def reading(self, run: Run) -> "Iterator[_SharedRun]":
        """What a reader of a prediction reads. Raises Problem if the memory is full."""
        run_id, shared = run.id, self._read.setdefault(run.id, _SharedRun(run))
        del run  # a copy of what others read, which this frame would hold
        try:
            shared.enter(self._memory)
            yield shared
        finally:
            if shared.leave(self._memory):
                del self._read[run_id]

    async def events(self, shared: "_SharedRun", pieces: int, logs: int) -> AsyncIterator[str]:
        """The events.

        Replicate's client drops everything until an event has an id, and raises at an event that it does not know.
        """
        while True:
            changed, ended = shared.run.change, shared.run.ended
            more, new_logs = shared.after(pieces, logs)
            if more or new_logs:
                size = sum(map(len, more)) + len(new_logs)
                begin = pieces, logs
                if size <= SMALL:
                    yield _written(more, new_logs, *begin)
                else:
                    work = lambda: _written(more, new_logs, *begin)  # noqa: B023, E731
                    yield await self._bodies.in_thread(size, work, shared.run.owner)
                pieces, logs = pieces + len(more), logs + len(new_logs)
                await asyncio.sleep(0)  # a reader that is fast would keep the event loop
            elif ended:
                break
            else:
                try:
                    async with asyncio.timeout(PING_SECONDS):
                        await changed.wait()
                except TimeoutError:
                    yield ": ping\n\n"
        status = shared.run.status
        if status == "failed":
            yield _event("error", f"{pieces}:{logs}", json.dumps({"detail": shared.run.error}))
        yield _event("done", f"{pieces}:{logs}", json.dumps({"reason": "canceled"} if status == "canceled" else {}))


class _Stream(StreamingResponse):
    def __init__(self, streams: Streams, run: Run, pieces: int, logs: int):
        self._streams, self._run, self._start = streams, run, (pieces, logs)
        super().__init__((), media_type=EVENT_STREAM, headers=NO_CACHE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._streams.reading(self._run) as shared:
            del self._run
            self.body_iterator = self._streams.events(shared, *self._start)
            await super().__call__(scope, receive, send)


class _SharedRun:
    """A prediction and its readers. From its end on, it is one without inputs, and counted."""

    def __init__(self, run: Run):
        self.run = run
        self._readers = self._held = 0
        self._waiting: asyncio.Task[None] | None = None

    def enter(self, memory: Memory) -> None:
        """Take one more reader."""
        self._readers += 1
        if self._readers == 1 and self.run.ended:
            self._count(memory.take)
        elif self._readers == 1:  # until its end, it is counted as one in flight
            self._waiting = asyncio.create_task(self._count_at_end(memory))

    def leave(self, memory: Memory) -> bool:
        """Take one reader less. Returns whether it was the last."""
        self._readers -= 1
        if not self._readers:
            if self._waiting:
                self._waiting.cancel()
            memory.give_back(self._held, self.run.owner)
        return not self._readers

    def after(self, pieces: int, logs: int) -> tuple[Sequence[str], str]:
        """Returns some of the pieces and of the logs after so many: BATCH of them, or fewer if they are long."""
        more, size = self.run.output[pieces : pieces + BATCH], 0
        for number, piece in enumerate(more, 1):
            size += len(piece)
            if size > SMALL:
                return more[:number], ""
        return more, self.run.logs[logs : logs + SMALL - size]

    async def _count_at_end(self, memory: Memory) -> None:
        await self.run.end()
        self._count(memory.add)

    def _count(self, count: Callable[[int, str], None]) -> None:
        run = copy.copy(self.run)
        run.inputs = b""
        size = sum(map(sys.getsizeof, (run.output, run.logs, *run.output)))
        count(size, run.owner)
        self.run, self._held = run, size


def _written(pieces: Sequence[str], new_logs: str, number: int, logs: int) -> str:
    """The events of some pieces of the output after `number`, and of what the logs have after `logs`."""
    events = [_event("output", f"{number + index}:{logs}", piece) for index, piece in enumerate(pieces, 1)]
    if new_logs:
        events.append(_event("logs", f"{number + len(pieces)}:{logs + len(new_logs)}", new_logs))
    return "".join(events)


def _event(name: str, event_id: str, text: str) -> str:
    data = "\n".join(f"data: {line}" for line in LINE_ENDS.split(text))
    return f"event: {name}\nid: {event_id}\n{data}\n\n"
