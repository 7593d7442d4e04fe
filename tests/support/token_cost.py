"""Counts what one token costs on its way through Engine and ChatService, so that no other program changes the figure.

    python -m tests.support.token_cost

A scripted AsyncLLM gives tokens to some streams. Printed is how many bytecodes of Python each token took.
"""

import asyncio
import sys
from types import SimpleNamespace

from vllm.v1.engine.output_processor import RequestOutputCollector

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
        self._collectors = []
        self._all_ask = asyncio.Event()

    def get_num_unfinished_requests(self):
        return 0

    def shutdown(self, timeout):
        """Nothing runs."""

    async def abort(self, request_id):
        """Nothing runs."""

    async def add_request(self, request_id, prompt, params):
        collector = RequestOutputCollector(params.output_kind, request_id)
        self._collectors.append(collector)
        if len(self._collectors) == STREAMS:
            self._all_ask.set()
        return collector

    async def play(self, tokens):
        await self._all_ask.wait()
        for left in reversed(range(tokens)):
            await asyncio.sleep(0)
            token = SimpleNamespace(text=" token", token_ids=[7], finish_reason=None if left else "length")
            metrics = SimpleNamespace(num_preemptions=0)
            output = SimpleNamespace(outputs=[token], metrics=metrics, finished=not left)
            for collector in self._collectors:
                collector.put(output)


async def stream(settings, tokens):
    llm = ScriptedLLM()
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
