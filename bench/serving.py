"""make bench: this package beside the raw engine and vLLM's own server, in turn, in one run.

Each round starts every system anew, alone, and all of them stay; an idle engine rests. At each number of clients the
systems then take turns with the same new prompts, 96 new tokens each, and the order changes from round to round. Two
engines of one system differ by up to 10 % for as long as they live, by where their memory lies. So only rounds with new
engines tell systems apart, and the CPU time of each engine is printed. Results go to bench/results as JSON and as the
report that is printed here, see bench/report.py.
"""

import json
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.console import Console

from bench.constrained import JSON, WITH_A_TOOL, same_for_vllm
from bench.load import COG, NEW_TOKENS, OPENAI
from bench.report import (
    CLIENT,
    OURS,
    OURS_JOINED,
    OURS_JSON,
    OURS_TOOL,
    THROUGH,
    VLLMS_JOINED,
    VLLMS_JSON,
    VLLMS_TOOL,
    Cpu,
    Runs,
    engines_apart,
    speed,
    summarise,
    table,
)
from bench.systems import LOCAL, Asked, Gateway, OpenAIServer, OurServer, RawEngine, System, cpu_seconds, peak_memory
from hermes.devserver.server import PROJECT
from hermes.serving.service import MANY
from hermes.settings import Settings
from hermes.weights import smollm2

RESULTS = Path(__file__).parent / "results"
SUBJECTS = [
    "a lighthouse",
    "the sea",
    "an old clock",
    "a lost dog",
    "the moon",
    "a red kite",
    "a quiet street",
    "bread",
]
notes = Console(stderr=True, highlight=False)


def main(
    rounds: Annotated[int, typer.Option(help="how often each system is asked at each number of clients")] = 7,
    clients: Annotated[str, typer.Option(help="numbers of clients")] = "1,4,16,32,64",
    brief: Annotated[bool, typer.Option(help="only this package and vLLM's server, each as one server")] = False,
) -> None:
    folder = smollm2.prepare(PROJECT / "weights" / smollm2.FOLDER)
    RESULTS.mkdir(exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H%M")
    counts = [int(count) for count in clients.split(",")]
    began = time.monotonic()
    with ExitStack() as stack:
        log = stack.enter_context((RESULTS / f"{stamp}.log").open("wb"))
        measured = Measured()
        for number in range(rounds):
            measured.add_round(number, counts, *all_systems(folder, log, brief=brief))
    machine = (
        f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, Python {platform.python_version()}, "
        f"{Settings().engine_args or LOCAL.engine_args['dtype']}"
    )
    (RESULTS / f"{stamp}.json").write_text(
        json.dumps(
            {
                "machine": machine,
                "start_seconds": measured.starts,
                "peak_memory_bytes": measured.memory,
                "timelines": {f"{name} x{count}": rows for (name, count), rows in measured.runs.items()},
                "cpu_us_a_token": {f"{name} x{count}": rows for (name, count), rows in measured.cpu.items()},
            }
        )
    )
    minutes = (time.monotonic() - began) / 60
    caption = f"{stamp}Z, {machine}, {rounds} rounds in {minutes:.0f} minutes, {NEW_TOKENS} new tokens each"
    figures = summarise(measured.runs, measured.cpu)
    report = table(caption, figures, measured.starts, measured.memory, list(engines_apart(measured.cpu)))
    (RESULTS / f"{stamp}.md").write_text(report)
    print(report)


Turns = Mapping[System, Collection[int]]  # the systems, and at how many clients each is asked


def all_systems(folder: Path, log: IO[bytes], *, brief: bool) -> tuple[list[System], Turns]:
    """The servers, and all that is asked of them. The counts are those that tell something, for a run takes long."""
    raw, theirs = RawEngine(folder, log), OpenAIServer(folder, log)
    ours, joined = OurServer(OURS, folder, log, HERMES_STREAM_INTERVAL="1"), OurServer(OURS_JOINED, folder, log)
    every, many = range(sys.maxsize), range(MANY, sys.maxsize)
    servers: list[System] = [ours, theirs]
    turns: dict[System, Collection[int]] = {ours: every, theirs: every}
    if not brief:
        servers += [raw, joined]
        turns |= {
            raw: range(33),
            joined: many,
            Asked(VLLMS_JOINED, theirs, OPENAI, {"stream_interval": 2}): many,
            Gateway(THROUGH, ["gateway", "--upstream", ours.url], log): (1, 32),
        }
    json_for_vllm, tool_for_vllm = same_for_vllm(folder)
    grammars = [
        Asked(OURS_JSON, ours, COG, JSON),
        Asked(VLLMS_JSON, theirs, OPENAI, json_for_vllm),
        Asked(OURS_TOOL, ours, COG, WITH_A_TOOL),
        Asked(VLLMS_TOOL, theirs, OPENAI, tool_for_vllm),
    ]
    turns |= dict.fromkeys(grammars, (32,) if brief else (16, 32))
    return servers, turns


class Measured:
    """What came of the rounds so far."""

    def __init__(self) -> None:
        self.runs: Runs = defaultdict(list)
        self.cpu: Cpu = defaultdict(list)
        self.starts: dict[str, list[float]] = defaultdict(list)  # system -> rounds, s
        self.memory: dict[str, int] = defaultdict(int)  # system -> bytes, the most of any round

    def add_round(self, number: int, counts: Sequence[int], servers: list[System], turns: Turns) -> None:
        """Start the systems, servers first, ask them in turn, stop them."""
        with ExitStack() as stack:
            for system in [*turned(servers, number), *(each for each in turns if each not in servers)]:
                started = time.monotonic()
                stack.callback(system.stop)
                system.start()
                self.starts[system.name].append(time.monotonic() - started)
            for count in counts:
                prompts = [f"Tell me story {number}.{i} about {SUBJECTS[i % len(SUBJECTS)]}." for i in range(count)]
                for system in turned([each for each, asked in turns.items() if count in asked], number):
                    self._ask(system, prompts)
                    notes.print(
                        f"round {number + 1}, {count:2} clients, {system.name}: "
                        f"{speed(self.runs[system.name, count][-1]):.0f} tokens/s"
                    )
                    time.sleep(0.5)  # until the next begins, the last has closed its connections
            for system in servers:
                self.memory[system.name] = max(self.memory[system.name], peak_memory(system))

    def _ask(self, system: System, prompts: list[str]) -> None:
        before = cpu_seconds(system) | {CLIENT: time.process_time()}
        timelines = system.answer(prompts)
        after = {CLIENT: time.process_time()} | cpu_seconds(system)
        tokens = NEW_TOKENS * len(prompts)
        self.runs[system.name, len(prompts)].append(timelines)
        self.cpu[system.name, len(prompts)].append(
            {role: (after.get(role, 0) - before[role]) / tokens * 1e6 for role in before}
        )


def turned(systems: list[System], number: int) -> list[System]:
    """The same, and each round another is first. In every other round they come in reverse."""
    first = number % len(systems)
    return (systems[first:] + systems[:first])[:: -1 if number % 2 else 1]


if __name__ == "__main__":
    typer.run(main)
