"""make bench: this package beside the raw engine and vLLM's own server, in turn, in one run.

Each round starts every system anew, alone, and all of them stay; an idle engine rests. At each number of clients the
systems then take turns with the same new prompts, 96 new tokens each, and the order changes from round to round. Two
engines of one system differ by up to 6 % for as long as they live, by where their memory lies. So only rounds with new
engines tell systems apart. Ratios are taken within a round; printed is their median, with its 95 % interval by
bootstrap. Results go to bench/results as JSON and as the table printed here.
"""

import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Console

from bench.load import NEW_TOKENS, Timeline, ask_cog, ask_openai
from bench.systems import (
    JSON_ANSWER,
    WITH_A_TOOL,
    Asked,
    Gateway,
    OpenAIServer,
    OurServer,
    RawEngine,
    System,
)
from hermes.devserver.server import PROJECT
from hermes.serving.service import MANY
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
OURS, OURS_JOINED = "this package", "this package, 2 tokens a piece"
VLLMS_JOINED = "vLLM's OpenAI server, 2 tokens a piece"
CONSTRAINED: dict[str, dict[str, Any]] = {"this package, JSON": JSON_ANSWER, "this package, a tool": WITH_A_TOOL}
THROUGH = "this package, through its gateway"
# What a system is compared with, if it is not OpenAIServer.
REFERENCE = {THROUGH: OURS, OURS_JOINED: VLLMS_JOINED, VLLMS_JOINED: VLLMS_JOINED, **dict.fromkeys(CONSTRAINED, OURS)}
notes = Console(stderr=True, highlight=False)


@dataclass
class Ratio:
    """The median of ratios within a round, and the 95 % interval of that median by bootstrap."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclass
class Figures:
    """One system at one number of clients; the median over the rounds, or over all requests."""

    system: str
    clients: int
    tokens_per_second: float
    ttft_p50: float  # s
    ttft_p95: float  # s
    inter_token_latency_p95: float  # s between the pieces of a response
    of_raw: Ratio  # tokens per second, as a part of the raw engine's in the same round
    of_reference: Ratio  # and of REFERENCE's


def main(
    rounds: Annotated[int, typer.Option(help="how often each system is asked at each number of clients")] = 7,
    clients: Annotated[str, typer.Option(help="numbers of clients")] = "1,4,16,32",
    beside: Annotated[bool, typer.Option(help="keep one core busy meanwhile, from another session")] = False,
) -> None:
    folder = smollm2.prepare(PROJECT / "weights" / smollm2.FOLDER)
    RESULTS.mkdir(exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H%M")
    counts = [int(count) for count in clients.split(",")]
    with ExitStack() as stack:
        log = stack.enter_context((RESULTS / f"{stamp}.log").open("wb"))
        if beside:
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
            stack.callback(busy.wait)
            stack.callback(busy.kill)
        measured = Measured()
        for number in range(rounds):
            measured.add_round(number, counts, *all_systems(folder, log, constrained=not beside))
    figures = list(summarise(measured.runs))
    machine = (
        f"{os.cpu_count()} cores{' and another program on one of them' * beside}, "
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}"
    )
    report = table(figures, measured, f"{stamp}Z, {machine}, {rounds} rounds, {NEW_TOKENS} new tokens each")
    (RESULTS / f"{stamp}.json").write_text(
        json.dumps(
            {
                "machine": machine,
                "rounds": rounds,
                "start_seconds": measured.starts,
                "peak_memory_bytes": measured.memory,
                "figures": [asdict(each) for each in figures],
                "timelines": {f"{name} x{count}": rows for (name, count), rows in measured.runs.items()},
            }
        )
    )
    (RESULTS / f"{stamp}.md").write_text(report)
    print(report)


Runs = dict[tuple[str, int], list[list[Timeline]]]  # (system, clients) -> rounds -> requests


def all_systems(folder: Path, log: IO[bytes], *, constrained: bool) -> tuple[list[System], list[System], list[System]]:
    """Those for every number of clients, those that stand before one of them, those for many clients."""
    ours, theirs = OurServer(OURS, folder, log, HERMES_STREAM_INTERVAL="1"), OpenAIServer(folder, log)
    many: list[System] = [OurServer(OURS_JOINED, folder, log)]
    many += [Asked(VLLMS_JOINED, theirs, ask_openai, {"stream_interval": 2})]
    if constrained:
        many += [Asked(name, ours, ask_cog, inputs) for name, inputs in CONSTRAINED.items()]
    return [RawEngine(folder, log), ours, theirs], [Gateway(THROUGH, ["gateway", "--upstream", ours.url], log)], many


class Measured:
    """What came of the rounds so far."""

    def __init__(self) -> None:
        self.runs: Runs = defaultdict(list)
        self.starts: dict[str, list[float]] = defaultdict(list)  # system -> rounds, s
        self.memory: dict[str, int] = defaultdict(int)  # system -> bytes, the most of any round

    def add_round(
        self, number: int, counts: Sequence[int], systems: list[System], before: list[System], many: list[System]
    ) -> None:
        """Start the systems, ask them in turn, stop them."""
        with ExitStack() as stack:
            for system in turned(systems, number) + before + many:
                started = time.monotonic()
                stack.callback(system.stop)
                system.start()
                self.starts[system.name].append(time.monotonic() - started)
            for count in counts:
                prompts = [f"Tell me story {number}.{i} about {SUBJECTS[i % len(SUBJECTS)]}." for i in range(count)]
                for system in turned(systems + before + many * (count >= MANY), number):
                    timelines = system.answer(prompts)
                    self.runs[system.name, count].append(timelines)
                    notes.print(
                        f"round {number + 1}, {count:2} clients, {system.name}: {speed(timelines):.0f} tokens/s"
                    )
                    time.sleep(0.5)  # until the next begins, the last has closed its connections
            for system in systems:
                self.memory[system.name] = max(self.memory[system.name], peak_memory(system))


def turned(systems: list[System], number: int) -> list[System]:
    """The same, and each round another is first."""
    number %= len(systems)
    return systems[number:] + systems[:number]


def speed(timelines: list[Timeline]) -> float:
    """Tokens a second of all clients together, until the last has its answer."""
    return NEW_TOKENS * len(timelines) / max(timeline[-1] for timeline in timelines)


def summarise(runs: Runs) -> Iterator[Figures]:
    speeds = {key: [speed(each) for each in rounds] for key, rounds in runs.items()}
    for (name, count), rounds in sorted(runs.items(), key=lambda item: item[0][1]):
        requests = [timeline for timelines in rounds for timeline in timelines]
        firsts = [timeline[0] for timeline in requests]
        yield Figures(
            name,
            count,
            tokens_per_second=statistics.median(speeds[name, count]),
            ttft_p50=statistics.median(firsts),
            ttft_p95=percentile_95(firsts),
            inter_token_latency_p95=percentile_95([b - a for timeline in requests for a, b in pairwise(timeline)]),
            of_raw=median_ratio(speeds[name, count], speeds[RawEngine.name, count]),
            of_reference=median_ratio(speeds[name, count], speeds[REFERENCE.get(name, OpenAIServer.name), count]),
        )


def percentile_95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]


def median_ratio(ours: list[float], theirs: list[float]) -> Ratio:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    again = random.Random(0)
    medians = sorted(statistics.median(again.choices(ratios, k=len(ratios))) for _ in range(10_000))
    return Ratio(statistics.median(ratios), medians[250], medians[-250])


def peak_memory(system: System) -> int:
    """Bytes: the largest resident memory that each of its processes has had, added up."""
    peaks = 0
    for process in system.processes():
        status = Path(f"/proc/{process.pid}/status").read_text()
        peaks += next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024
    return peaks


def table(figures: list[Figures], measured: Measured, caption: str) -> str:
    lines = [
        caption,
        "",
        "| clients | system | tokens/s | of raw | of vLLM's server | TTFT p50 / p95 | inter-token latency p95 |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]
    for f in [each for each in figures if REFERENCE.get(each.system) != OURS]:
        lines.append(
            f"| {f.clients} | {f.system} | {f.tokens_per_second:.1f} | {f.of_raw} | {f.of_reference} "
            f"| {f.ttft_p50:.2f} / {f.ttft_p95:.2f} s | {f.inter_token_latency_p95 * 1000:.0f} ms |"
        )
    lines += ["", "| clients | with more | tokens/s | of this package | TTFT p50, and later |", "|--:|---|--:|--:|--:|"]
    first = {f.clients: f.ttft_p50 for f in figures if f.system == OURS}
    lines += [
        f"| {f.clients} | {f.system} | {f.tokens_per_second:.1f} | {f.of_reference} "
        f"| {f.ttft_p50:.3f} s, {f.ttft_p50 - first[f.clients]:+.3f} s |"
        for f in figures
        if REFERENCE.get(f.system) == OURS
    ]
    lines += ["", "| system | start to first answer | peak memory |", "|---|--:|--:|"]
    lines += [
        f"| {name} | {statistics.median(measured.starts[name]):.0f} s | {size / 2**30:.1f} GiB |"
        for name, size in measured.memory.items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
