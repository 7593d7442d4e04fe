"""The reply to a request in OpenAI's dialect: the parts of one prediction or of several, as they come."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from enum import Enum

from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from hermes.client.cog import Json
from hermes.errors import BadTools
from hermes.gateway.answer import Answer, Part
from hermes.gateway.bodies import Bodies
from hermes.gateway.caller import Caller
from hermes.gateway.events import EVENT_STREAM, NO_CACHE, PING_SECONDS
from hermes.gateway.openai_requests import ParsedRequest
from hermes.gateway.problems import Problem, of_bug, of_failed, of_refused
from hermes.gateway.run import Run
from hermes.gateway.runs import Runs
from hermes.tool_calls.call import ToolCall
from hermes.tool_calls.definitions import Function, parse_functions

REFUSAL_SECONDS = 1.0  # that a stream waits for its first piece, so that a refusal is a status and not an event


class Heartbeat(Enum):
    """Stands for a part where none has come for a while."""

    BEAT = "heartbeat"


HEARTBEAT = Heartbeat.BEAT


class Reply:
    """The reply to one request."""

    def __init__(self, runs: Runs, bodies: Bodies, parsed: ParsedRequest, caller: Caller):
        """Begin a run for each prediction. Raises what Runs.start raises."""
        self._runs, self._bodies = runs, bodies
        self._may_call, self._named, self._parallel = parsed.may_call, parsed.named, parsed.parallel_calls
        self._per_prompt = parsed.per_prompt
        self._given_up = False
        self.runs: list[Run] = []
        try:
            for inputs in parsed.inputs:
                self.runs.append(runs.start(inputs, caller, also_held=len(parsed.echo)))
        except BaseException:
            self.give_up()
            raise

    async def begun(self, patience: float | None = None) -> None:
        """Wait until each has its first piece, or for `patience` seconds. Raises Problem if one has failed before.

        Raises ClientDisconnect if they were canceled, for nobody reads them.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await asyncio.gather(*(run.begun() for run in self.runs))
        for run in self.runs:
            if run.status == "canceled" and run.cancel_asked:
                raise ClientDisconnect
            if run.status in ("failed", "canceled") and not run.output:
                raise of_failed(run)

    async def parts(self) -> AsyncGenerator[tuple[int, Part | Heartbeat | None]]:
        """The parts of all, with the number of the run; None is the end of one. Raises Problem if one fails.

        Where no part comes, HEARTBEAT comes within PING_SECONDS. Raises ClientDisconnect once the reply is given up.
        """
        queue: asyncio.Queue[tuple[int, Part | Problem | Heartbeat | None]] = asyncio.Queue()
        readers = [asyncio.create_task(self._read(number, queue)) for number in range(len(self.runs))]
        loop = asyncio.get_running_loop()
        last = loop.time()

        async def beat() -> None:
            while True:
                await asyncio.sleep(PING_SECONDS / 3)
                if loop.time() - last > PING_SECONDS / 2:
                    queue.put_nowait((0, HEARTBEAT))

        readers.append(asyncio.create_task(beat()))
        try:
            going_on = list(range(len(self.runs)))
            while going_on:
                number, part = await queue.get()
                last = loop.time()
                if isinstance(part, Problem):
                    raise ClientDisconnect if self._given_up else part
                if part is None:
                    going_on.remove(number)
                yield (going_on[0] if part is HEARTBEAT else number), part
        finally:
            for reader in readers:
                reader.cancel()

    async def whole(self) -> list[tuple[str, list[ToolCall]]]:
        """The text and the calls of each."""
        texts, calls = [list[str]() for _ in self.runs], [list[ToolCall]() for _ in self.runs]
        async with aclosing(self.parts()) as parts:
            async for number, part in parts:
                if isinstance(part, str):
                    texts[number].append(part)
                elif isinstance(part, ToolCall):
                    calls[number].append(part)
        return list(zip(map("".join, texts), calls, strict=True))

    def finish_reason(self, number: int, called: bool) -> str:
        """Why an answer ended, in OpenAI's words."""
        if self.runs[number].cut_off:
            return "length"
        return "tool_calls" if called and not self._named else "stop"

    def usage(self) -> Json:
        """The tokens of all prompts, each counted once, and of all answers."""
        prompt = sum(run.metrics.get("input_token_count", 0) for run in self.runs[:: self._per_prompt])
        written = sum(run.metrics.get("output_token_count", 0) for run in self.runs)
        return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}

    def give_up(self) -> None:
        """End what runs still, and let go of what has ended: nobody reads it any more."""
        self._given_up = True
        for run in self.runs:
            self._runs.abandon(run)

    async def _read(self, number: int, queue: "asyncio.Queue[tuple[int, Part | Problem | Heartbeat | None]]") -> None:
        """Put the parts of one into the queue, and its end or what went wrong."""
        called = False
        try:
            async with aclosing(self._parts_of(self.runs[number])) as parts:
                async for part in parts:
                    is_call = isinstance(part, ToolCall)
                    if self._parallel or not (called and is_call):  # else one call is all that was asked for
                        queue.put_nowait((number, part))
                    called = called or is_call
        except Problem as problem:
            queue.put_nowait((number, problem))
        except Exception as bug:
            queue.put_nowait((number, of_bug(f"run {self.runs[number].id}", bug)))
        else:
            queue.put_nowait((number, None))

    async def _parts_of(self, run: Run) -> AsyncGenerator[Part]:
        functions: tuple[Function, ...] = ()
        if self._may_call:  # read again only now: while it is queued, a request is held as its bytes
            await run.begun()
            functions = await self._bodies.in_thread(len(run.inputs), lambda: functions_in(run.inputs), run.owner)
        answer = Answer(functions)
        async with aclosing(run.pieces()) as pieces:
            async for piece in pieces:
                for part in answer.feed(piece):
                    yield part
        if run.status != "succeeded":
            raise of_failed(run)
        if self._may_call:  # up to a second of CPU time
            for part in await self._bodies.in_thread(run.size, lambda: list(answer.end(cut=run.cut_off)), run.owner):
                yield part


class ReplyStream(StreamingResponse):
    """The events of a reply, which is given up when they are sent, or cannot be."""

    def __init__(self, events: AsyncIterator[str], reply: Reply):
        super().__init__(events, media_type=EVENT_STREAM, headers=NO_CACHE)
        self._reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._reply.give_up()


def functions_in(inputs: bytes) -> tuple[Function, ...]:
    """The functions that the answer to these inputs may call. Raises Problem if they are none."""
    try:
        return parse_functions(from_json(inputs).get("tools", ()))
    except BadTools as error:
        raise of_refused(str(error)) from error


@asynccontextmanager
async def cancel_on_disconnect(request: Request, reply: Reply) -> AsyncIterator[None]:
    """Give the reply up if its client goes away, or what is done with it fails."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        reply.give_up()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except BaseException:
        reply.give_up()
        raise
    finally:
        watcher.cancel()
