"""The reply to a request in any dialect: the parts of one prediction or of several, as they come."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from enum import Enum
from typing import NamedTuple

from pydantic_core import from_json
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from hermes.client.cog import Json
from hermes.errors import BadTools
from hermes.gateway.answer import Answer, Arguments, CallStart, Part
from hermes.gateway.bodies import Bodies
from hermes.gateway.caller import Caller
from hermes.gateway.events import EVENT_STREAM, NO_CACHE, PING_SECONDS
from hermes.gateway.openai_requests import ParsedRequest
from hermes.gateway.pool import QueueFull
from hermes.gateway.problems import Problem, of_error, of_refused
from hermes.gateway.run import Run
from hermes.gateway.runs import Runs
from hermes.tool_calls.definitions import parse_functions

AT_ONCE = 16  # predictions of one request; each of the others begins when one ends, so that no request fills the queue


class Heartbeat(Enum):
    """Stands for a part where none has come for a while."""

    BEAT = "heartbeat"


HEARTBEAT = Heartbeat.BEAT


class Call(NamedTuple):
    """A whole call, or what there is of one that was cut."""

    name: str
    arguments: list[str]  # joined, they are JSON

    @property
    def text(self) -> str:
        """The arguments as JSON."""
        return "".join(self.arguments)


class Reply:
    """The reply to one request."""

    def __init__(self, runs: Runs, bodies: Bodies, parsed: ParsedRequest, caller: Caller):
        """Begin the first predictions. Raises what Runs.start raises, if there is no room for a single one."""
        self._runs, self._bodies, self._parsed, self._caller = runs, bodies, parsed, caller
        self._given_up = False
        self.runs: list[Run] = []  # that have begun
        self._start(also_held=parsed.size)
        with suppress(QueueFull, Problem):  # the others begin as the first ones end
            while len(self.runs) < min(AT_ONCE, self.predictions):
                self._start()

    @property
    def predictions(self) -> int:
        """How many there are in the end."""
        return self._parsed.predictions

    async def begun(self, patience: float | None = None) -> None:
        """Wait until the first ones have a piece each, or for `patience` seconds. Raises Problem if one failed before.

        Raises ClientDisconnect if they were canceled, for nobody reads them.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await asyncio.gather(*(run.begun() for run in self.runs))
        for number, run in enumerate(self.runs):
            if run.status == "canceled" and run.cancel_asked:
                raise ClientDisconnect
            if run.status in ("failed", "canceled") and not run.output:
                raise self._parsed.problem_of(number, run)

    async def parts(self) -> AsyncGenerator[tuple[int, Part | Heartbeat | None]]:
        """The parts of all, with the number of the run; None is the end of one. Raises Problem if one fails.

        Where no part comes, HEARTBEAT comes within PING_SECONDS. Raises ClientDisconnect once the reply is given up.
        """
        queue: asyncio.Queue[tuple[int, Part | Problem | Heartbeat | None]] = asyncio.Queue()
        going_on = list(range(len(self.runs)))
        readers = [asyncio.create_task(self._read(number, queue)) for number in going_on]
        loop = asyncio.get_running_loop()
        last = loop.time()

        async def beat() -> None:
            while True:
                await asyncio.sleep(PING_SECONDS / 3)
                if loop.time() - last > PING_SECONDS / 2:
                    queue.put_nowait((0, HEARTBEAT))

        readers.append(asyncio.create_task(beat()))
        try:
            while going_on:
                number, part = await queue.get()
                last = loop.time()
                if isinstance(part, Problem):
                    raise ClientDisconnect if self._given_up else part
                if part is None:
                    going_on.remove(number)
                    if len(self.runs) < self.predictions:
                        going_on.append(self._start(follows=self.runs[number]))
                        readers.append(asyncio.create_task(self._read(going_on[-1], queue)))
                    self._let_go(self.runs[number])
                yield (going_on[0] if part is HEARTBEAT else number), part
        finally:
            for reader in readers:
                reader.cancel()

    async def whole(self) -> list[tuple[str, list[Call]]]:
        """The text and the calls of each."""
        texts = [list[str]() for _ in range(self.predictions)]
        calls = [list[Call]() for _ in texts]
        async with aclosing(self.parts()) as parts:
            async for number, part in parts:
                match part:
                    case str():
                        texts[number].append(part)
                    case CallStart():
                        calls[number].append(Call(part.name, []))
                    case Arguments():
                        calls[number][-1].arguments.append(part.text)
        return list(zip(map("".join, texts), calls, strict=True))

    def finish_reason(self, number: int, called: bool) -> str:
        """Why an answer ended, in OpenAI's words."""
        if self.runs[number].cut_off:
            return "length"
        return "tool_calls" if called and not self._parsed.named else "stop"

    def usage(self) -> Json:
        """The tokens of all prompts, each counted once, and of all answers."""
        prompt = sum(run.metrics.get("input_token_count", 0) for run in self.runs[:: self._parsed.per_prompt])
        written = sum(run.metrics.get("output_token_count", 0) for run in self.runs)
        return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}

    def give_up(self) -> None:
        """End what runs still, and let go of what has ended: nobody reads it any more."""
        self._given_up = True
        for run in self.runs:
            self._runs.abandon(run)

    def _start(self, *, follows: Run | None = None, also_held: int = 0) -> int:
        """Begin the next one, and return its number. Raises ClientDisconnect if nobody reads it any more."""
        if self._given_up:
            raise ClientDisconnect
        inputs = self._parsed.inputs_of(len(self.runs))
        run = self._runs.start(inputs, self._caller, follows=follows, also_held=also_held)
        run.holds_place = self.predictions > 1
        self.runs.append(run)
        return len(self.runs) - 1

    def _let_go(self, run: Run) -> None:
        """Let go of an ended one of several, but for what it said."""
        if self.predictions > 1:
            self._runs.release(run)
            self._runs.drop_inputs(run)

    async def _read(self, number: int, queue: "asyncio.Queue[tuple[int, Part | Problem | Heartbeat | None]]") -> None:
        """Put the parts of one into the queue, and its end or what went wrong."""
        try:
            async with aclosing(self._parts_of(number)) as parts:
                async for part in parts:
                    queue.put_nowait((number, part))
        except Exception as error:
            queue.put_nowait((number, of_error(f"run {self.runs[number].id}", error)))
        else:
            queue.put_nowait((number, None))

    async def _parts_of(self, number: int) -> AsyncGenerator[Part]:
        run, answer = self.runs[number], Answer(())
        if self._parsed.may_call:  # read again only now: while it is queued, a request is held as its bytes
            await run.begun()
            answer = await self._bodies.in_thread(len(run.inputs), lambda: answer_to(run.inputs), run.owner)
        async with aclosing(run.pieces()) as pieces:
            async for piece in pieces:
                for part in answer.feed(piece):
                    yield part
        if run.status != "succeeded":
            raise self._parsed.problem_of(number, run)
        if self._parsed.may_call:  # up to a second of CPU time
            for part in await self._bodies.in_thread(run.size, lambda: list(answer.end(cut=run.cut_off)), run.owner):
                yield part


class ReplyStream(StreamingResponse):
    """The events of a reply."""

    def __init__(self, events: AsyncIterator[str], close: Callable[[], None]):
        """Args:
        events: of the stream.
        close: is called when they are sent, or cannot be.
        """
        super().__init__(events, media_type=EVENT_STREAM, headers=NO_CACHE)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


def answer_to(inputs: bytes) -> Answer:
    """The answer to these inputs, which may have calls. Raises Problem if their tools are none."""
    read = from_json(inputs)
    choice = read.get("tool_choice", "auto")
    try:
        functions = parse_functions(read["tools"])
    except BadTools as error:
        raise of_refused(str(error)) from error
    chosen = [function for function in functions if choice in ("auto", "required", function.name)]
    continues = read.get("continue_final_message", False)
    return Answer(chosen, or_document=read.get("json_schema") is not None, continues=continues)
