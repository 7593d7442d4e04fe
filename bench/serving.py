"""make bench: this package beside the raw engine and vLLM's own server, in turn, in one run.

Every system is started alone, for its start-up time, and stays; an idle engine rests. Then several rounds: at each
number of clients, the systems take turns with the same new prompts, 96 new tokens each, and the order changes from
round to round. Ratios are taken within a round. Results go to bench/results as JSON and as the table printed here.
"""

import json
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.load import NEW_TOKENS, Timeline
from bench.systems import JSON_ANSWER, WITH_A_TOOL, Constrained, OpenAIServer, OurServer, RawEngine, System
from hermes.devserver.server import PROJECT
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
CONSTRAINED: dict[str, dict[str, Any]] = {"this package, JSON": JSON_ANSWER, "this package, a tool": WITH_A_TOOL}
notes = Console(stderr=True, highlight=False)


@dataclass
class Figures:
    """One system at one number of clients; the median over the rounds, or over all requests."""

    system: str
    clients: int
    tokens_per_second: float
    ttft_p50: float  # s
    ttft_p95: float  # s
    inter_token_latency_p95: float  # s between the pieces of a response
    of_raw: float  # tokens per second, as a part of the raw engine's in the same round
    of_vllm_server: float  # and of vLLM's own server's
    of_unconstrained: float  # and of this package's, without a grammar


def main(
    rounds: Annotated[int, typer.Option(help="how often each system is asked at each number of clients")] = 5,
    clients: Annotated[str, typer.Option(help="numbers of clients")] = "1,4,16,32",
) -> None:
    folder = smollm2.prepare(PROJECT / "weights" / smollm2.FOLDER)
    RESULTS.mkdir(exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H%M")
    counts = [int(count) for count in clients.split(",")]
    with ExitStack() as stack:
        log = stack.enter_context((RESULTS / f"{stamp}.log").open("wb"))
        ours = OurServer(folder, log)
        systems: list[System] = [RawEngine(folder, log), ours, OpenAIServer(folder, log)]
        systems += [Constrained(name, ours, inputs) for name, inputs in CONSTRAINED.items()]
        starts = {}
        for system in systems:
            notes.print(f"starting {system.name}")
            started = time.monotonic()
            stack.callback(system.stop)
            system.start()
            starts[system.name] = time.monotonic() - started
        runs = measure(systems, counts, rounds)
        memory = {system.name: peak_memory(system) for system in systems}
    figures = list(summarise(runs, counts))
    machine = (
        f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, Python {platform.python_version()}"
    )
    report = table(figures, starts, memory, f"{stamp}Z, {machine}, {rounds} rounds, {NEW_TOKENS} new tokens each")
    (RESULTS / f"{stamp}.json").write_text(
        json.dumps(
            {
                "machine": machine,
                "rounds": rounds,
                "start_seconds": starts,
                "peak_memory_bytes": memory,
                "figures": [asdict(each) for each in figures],
                "timelines": {f"{name} x{count}": rows for (name, count), rows in runs.items()},
            }
        )
    )
    (RESULTS / f"{stamp}.md").write_text(report)
    print(report)


Runs = dict[tuple[str, int], list[list[Timeline]]]  # (system, clients) -> rounds -> requests


def measure(systems: list[System], counts: list[int], rounds: int) -> Runs:
    runs: Runs = defaultdict(list)
    for number in range(rounds):
        order = systems[number % len(systems) :] + systems[: number % len(systems)]
        for count in counts:
            prompts = [f"Tell me story {number}.{i} about {SUBJECTS[i % len(SUBJECTS)]}." for i in range(count)]
            for system in order:
                timelines = system.answer(prompts)
                runs[system.name, count].append(timelines)
                notes.print(f"round {number + 1}, {count:2} clients, {system.name}: {speed(timelines):.0f} tokens/s")
                time.sleep(1.5)  # until its engine rests
    return runs


def speed(timelines: list[Timeline]) -> float:
    """Tokens a second of all clients together, until the last has its answer."""
    return NEW_TOKENS * len(timelines) / max(timeline[-1] for timeline in timelines)


def summarise(runs: Runs, counts: list[int]) -> Iterator[Figures]:
    for count in counts:
        raw, vllm_server, unconstrained = (
            [speed(each) for each in runs[name, count]] for name in (RawEngine.name, OpenAIServer.name, OurServer.name)
        )
        for name in (RawEngine.name, OurServer.name, OpenAIServer.name, *CONSTRAINED):
            rounds = runs[name, count]
            requests = [timeline for timelines in rounds for timeline in timelines]
            firsts = [timeline[0] for timeline in requests]
            gaps = [b - a for timeline in requests for a, b in pairwise(timeline)]
            speeds = [speed(each) for each in rounds]
            yield Figures(
                name,
                count,
                tokens_per_second=statistics.median(speeds),
                ttft_p50=statistics.median(firsts),
                ttft_p95=percentile_95(firsts),
                inter_token_latency_p95=percentile_95(gaps),
                of_raw=median_ratio(speeds, raw),
                of_vllm_server=median_ratio(speeds, vllm_server),
                of_unconstrained=median_ratio(speeds, unconstrained),
            )


def percentile_95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def peak_memory(system: System) -> int:
    """Bytes: the largest resident memory that each of its processes has had, added up."""
    peaks = 0
    for process in system.processes():
        status = Path(f"/proc/{process.pid}/status").read_text()
        peaks += next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024
    return peaks


def table(figures: list[Figures], starts: dict[str, float], memory: dict[str, int], caption: str) -> str:
    lines = [
        caption,
        "",
        "| clients | system | tokens/s | of raw | of vLLM's server | TTFT p50 / p95 | inter-token latency p95 |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]
    for f in [each for each in figures if each.system not in CONSTRAINED]:
        lines.append(
            f"| {f.clients} | {f.system} | {f.tokens_per_second:.1f} | {f.of_raw:.2f} | {f.of_vllm_server:.2f} "
            f"| {f.ttft_p50:.2f} / {f.ttft_p95:.2f} s | {f.inter_token_latency_p95 * 1000:.0f} ms |"
        )
    lines += [
        "",
        "| clients | with a grammar | tokens/s | of unconstrained | TTFT p50 |",
        "|--:|---|--:|--:|--:|",
    ]
    lines += [
        f"| {f.clients} | {f.system} | {f.tokens_per_second:.1f} | {f.of_unconstrained:.2f} | {f.ttft_p50:.2f} s |"
        for f in figures
        if f.system in CONSTRAINED
    ]
    lines += ["", "| system | start to first answer | peak memory |", "|---|--:|--:|"]
    lines += [
        f"| {name} | {starts[name]:.0f} s | {memory[name] / 2**30:.1f} GiB |"
        for name in starts
        if name not in CONSTRAINED
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
