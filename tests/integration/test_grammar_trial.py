"""The process in which grammars are tried out: what it says, how long it may take, and how it ends."""

import asyncio
import subprocess
import sys
import time

import psutil
import pytest
from asking import three_chances, until

from hermes.conversation.constraint import json_constraint
from hermes.engine.engine import eos_token_ids
from hermes.engine.grammar import COMPILE_SECONDS, GrammarTrial
from hermes.errors import BadJsonSchema, EngineFailed
from hermes.serving.server import PROJECT

# Optional properties cost their number squared, and hardly any time to parse.
OPTIONAL = {"type": "object", "properties": {f"q{number}": {"type": "string"} for number in range(300)}}
SLOW = json_constraint({"type": "object", "properties": dict.fromkeys("abcdefg", OPTIONAL)})
QUICK = [json_constraint({"type": "array", "items": {"enum": [number]}}) for number in range(20)]


@pytest.fixture(scope="module")
def trial(small_model):
    trial = GrammarTrial(small_model, eos_token_ids(small_model))
    asyncio.run(trial.check(QUICK[0]))
    yield trial
    trial.stop()
    assert not trial._server.is_alive()


def test_a_grammar_that_takes_too_long_is_given_up_on_and_others_pass_meanwhile(trial):
    async def quick():
        started = time.monotonic()
        await asyncio.gather(*(trial.check(each) for each in QUICK))
        return time.monotonic() - started

    async def both():
        slow = asyncio.create_task(trial.check(SLOW))
        seconds = await quick()
        assert not slow.done()
        with pytest.raises(BadJsonSchema, match=f"takes more than {COMPILE_SECONDS} s to make a grammar of"):
            await slow
        return seconds

    asyncio.run(both())


@three_chances
def test_a_verdict_is_remembered(trial):
    async def check_again():
        with pytest.raises(BadJsonSchema):
            await trial.check(SLOW)

    started = time.monotonic()
    asyncio.run(check_again())
    assert time.monotonic() - started < 0.5 * COMPILE_SECONDS


def test_one_caller_leaving_does_not_take_the_verdict_from_another(trial):
    constraint = json_constraint({"enum": ["left", "stayed"]})

    async def two():
        leaves, stays = (asyncio.create_task(trial.check(constraint)) for _ in range(2))
        await asyncio.sleep(0)
        leaves.cancel()
        await stays

    asyncio.run(two())


def test_killed_at_work_it_says_so_and_the_next_call_starts_it_again(small_model):
    trial = GrammarTrial(small_model, eos_token_ids(small_model))

    async def killed_at_work():
        check = asyncio.create_task(trial.check(SLOW))
        await asyncio.sleep(0.5)
        trial._server.kill()
        await check

    asyncio.run(trial.check(QUICK[0]))
    with pytest.raises(EngineFailed, match="the grammar could not be tried out"):
        asyncio.run(killed_at_work())
    asyncio.run(trial.check(QUICK[1]))
    trial.stop()


def test_it_ends_with_the_process_that_started_it(small_model):
    code = (
        "import sys, time; from pathlib import Path; from hermes.engine.grammar import GrammarTrial; "
        "print(GrammarTrial(Path(sys.argv[1]), [2])._server.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(small_model)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as parent:
        server = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, 30, "the trial has ended")
