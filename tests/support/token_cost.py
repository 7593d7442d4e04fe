"""Counts what one token costs on its way through Engine and ChatService, so that no other program changes the figure.

    python -m tests.support.token_cost

A scripted AsyncLLM gives tokens to some streams. Printed is how many bytecodes of Python each token took.
"""

import asyncio
import sys

from hermes.chat.chatml import ChatML
from hermes.engine.counts import EngineCounts
from hermes.engine.engine import Engine
from hermes.serving import ChatService
from hermes.settings import Settings
from tests.support.fakes import INPUTS, byte_tokenizer
from tests.support.scripted_llm import ScriptedLLM, given

STREAMS = 8
WANTED = {**INPUTS, "max_tokens": 100_000, "timeout": 900.0}


class PlayedLLM(ScriptedLLM):
    """`play` is its engine core: one token for every stream a step."""

    async def play(self, tokens):
        while len(self.collectors) < STREAMS:
            await asyncio.sleep(0)
        for left in reversed(range(tokens)):
            await asyncio.sleep(0)
            output = given(" token", end=None if left else "length")
            for collector in self.collectors.values():
                collector.put(output)


async def stream(settings, tokens):
    llm = PlayedLLM()
    engine = Engine(llm, None, [2], EngineCounts(), 60.0)
    chat = ChatService(engine, ChatML(byte_tokenizer()), settings)

    async def read():
        pieces = []
        await chat.respond({}.__setitem__, **WANTED).write_to(pieces.append)
        return len(pieces)

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
