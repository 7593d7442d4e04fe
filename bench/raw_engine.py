"""vLLM's AsyncLLM alone in a process: what the engine can do with no server around it.

Reads a JSON list of prompts a line on standard input, answers them all at once, and writes the timelines as a line of
JSON to the file descriptor given as the second argument; the first is the folder of the model.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from bench.load import NEW_TOKENS, Timeline
from hermes.chat.chatml import ChatML
from hermes.chat.messages import Message
from hermes.chat.request import DEFAULT_SYSTEM_PROMPT
from hermes.chat.sampling import Sampling
from hermes.engine.engine import EnginePlan, import_vllm
from hermes.settings import Settings


async def serve(folder: Path, answers: int) -> None:
    settings = Settings(profile="local").with_predictor_config(folder)
    import_vllm(settings.defaults)
    plan = EnginePlan(folder, settings.engine_args)
    with plan.starting(stall_timeout=settings.defaults.stall_timeout, start_timeout=settings.start_timeout) as engine:
        pass
    llm, chatml = engine._llm, ChatML(plan.tokenizer, plan.vocab_size)
    sampling = Sampling(seed=0, temperature=0, min_tokens=NEW_TOKENS, max_tokens=NEW_TOKENS)
    params = engine._sampling_params(sampling, None, 1)

    async def one(name: str, prompt: str) -> Timeline:
        ids = chatml.encode([Message("system", DEFAULT_SYSTEM_PROMPT), Message("user", prompt)])
        started = time.perf_counter()
        outputs = llm.generate({"prompt_token_ids": ids}, params, name)
        return [time.perf_counter() - started async for output in outputs if output.outputs[0].text]

    await one("warm-up", "Hello")
    os.write(answers, b"ready\n")
    number = 0
    while line := await asyncio.to_thread(sys.stdin.readline):
        number += 1
        prompts = json.loads(line)
        timelines = await asyncio.gather(*(one(f"{number}-{i}", prompt) for i, prompt in enumerate(prompts)))
        os.write(answers, json.dumps(timelines).encode() + b"\n")
    engine.stop()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
