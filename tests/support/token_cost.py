"""Counts what one token costs on its way through Engine and ChatService, so that no other program changes the figure.

    python -m tests.support.token_cost

A scripted AsyncLLM gives tokens to some streams. Printed is how many bytecodes of Python each token took.
"""

import asyncio
import sys
from contextlib import aclosing
from types import SimpleNamespace

from hermes.chat.chatml import ChatML
from hermes.engine.counts import EngineCounts
from hermes.engine.engine import Engine
from hermes.serving import ChatService
from hermes.settings import Settings
from tests.support.fakes import INPUTS, byte_tokenizer

STREAMS = 8
WANTED = {**INPUTS, "max_tokens": 100_000, "timeout": 900.0}


class ScriptedLLM:
    """AsyncLLM as far as Engine uses it. `play` is its engine core: one token for every stream a step."""

    errored = False
    engine_core = SimpleNamespace(resources=SimpleNamespace(engine_manager=None))
    model_config = SimpleNamespace(max_model_len=200_000)

    def __init__(self):
        self._waiting = set()  # streams that have taken all that there is
        self._all_wait = asyncio.Event()

    def get_num_unfinished_requests(self):
        return 0

    def shutdown(self, timeout):
        """Nothing runs."""

    async def abort(self, request_id):
        """Nothing runs."""

    async def generate(self, prompt, params, request_id):
        finished = False
        while not finished:
            output = await self._next()
            finished = output.outputs[0].finish_reason is not None
            yield output

    async def _next(self):
        there = asyncio.get_running_loop().create_future()
        self._waiting.add(there)
        if len(self._waiting) == STREAMS:
            self._all_wait.set()
        return await there

    async def play(self, tokens):
        for left in reversed(range(tokens)):
            await self._all_wait.wait()
            self._all_wait.clear()
            token = SimpleNamespace(text=" token", token_ids=[7], finish_reason=None if left else "length")
            output = SimpleNamespace(outputs=[token], metrics=SimpleNamespace(num_preemptions=0))
            waiting, self._waiting = self._waiting, set()
            for there in waiting:
                there.set_result(output)


async def stream(settings, tokens):
    llm = ScriptedLLM()
    engine = Engine(llm, None, [2], EngineCounts(), 60.0)
    chat = ChatService(engine, ChatML(byte_tokenizer()), settings)

    async def read():
        async with aclosing(chat.respond({}.__setitem__, **WANTED)) as pieces:
            return len([piece async for piece in pieces])

    got, _ = await asyncio.gather(asyncio.gather(*(read() for _ in range(STREAMS))), llm.play(tokens))
    assert got == [tokens] * STREAMS


def count_opcodes(work):
    """How many bytecodes of Python `work` runs in this thread."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
    return count


def main():
    settings = Settings(profile="local")
    asyncio.run(stream(settings, 1))  # imports what is imported at the first request
    few, many = (count_opcodes(lambda tokens=tokens: asyncio.run(stream(settings, tokens))) for tokens in (50, 250))
    print((many - few) / (200 * STREAMS))


if __name__ == "__main__":
    main()
