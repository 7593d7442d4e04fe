"""The report of make bench: figures, ratios, and where the luck of an engine may be in a ratio.

A ratio is the median of the ratios within a round, with the smallest and the largest of them.
"""

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from bench.load import NEW_TOKENS, Timeline
from bench.systems import ENGINE, OpenAIServer, RawEngine

RAW, VLLMS = RawEngine.name, OpenAIServer.name
OURS, THROUGH = "this package", "this package, through its gateway"
OURS_JOINED, VLLMS_JOINED = f"{OURS}, 2 tokens a piece", f"{VLLMS}, 2 tokens a piece"
OURS_JSON, VLLMS_JSON = f"{OURS}, JSON", f"{VLLMS}, JSON"
OURS_TOOL, VLLMS_TOOL = f"{OURS}, a tool", f"{VLLMS}, a tool"

# What does the same work: vLLM's server.
SAME = {OURS: VLLMS, OURS_JOINED: VLLMS_JOINED, OURS_JSON: VLLMS_JSON, OURS_TOOL: VLLMS_TOOL}
# What does less: the same server without a grammar, or without the gateway.
PLAIN = {THROUGH: OURS, OURS_JSON: OURS, OURS_TOOL: OURS, VLLMS_JSON: VLLMS, VLLMS_TOOL: VLLMS}

CLIENT = "client"  # the role of the bench itself
APART = 0.05  # of CPU a token: from here on, two engines are said to differ

Runs = dict[tuple[str, int], list[list[Timeline]]]  # (system, clients) -> rounds -> requests
Cpu = dict[tuple[str, int], list[dict[str, float]]]  # (system, clients) -> rounds -> role -> us a token


@dataclass
class Ratio:
    """The median of ratios within a round, the smallest and the largest.

    With 7 rounds, the true median is between these two in 98 % of runs: 1 - 2 / 2 ** 7.
    """

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
    of: dict[str, Ratio]  # other systems -> tokens per second, as a part of theirs in the same round
    cpu: dict[str, float]  # role -> us a token

    def ratio(self, other: str | None) -> str:
        """That to another system, or nothing."""
        return str(self.of.get(other or "", ""))

    @property
    def cpu_cells(self) -> str:
        """The engine's CPU, all that serves it, and the client's."""
        served = sum(used for role, used in self.cpu.items() if role not in (ENGINE, CLIENT))
        return f"{self.cpu.get(ENGINE, 0):,.0f} | {served:.0f} | {self.cpu[CLIENT]:.0f}"


def summarise(runs: Runs, cpu: Cpu) -> Iterator[Figures]:
    speeds = {key: [speed(each) for each in rounds] for key, rounds in runs.items()}
    for (name, count), rounds in sorted(runs.items(), key=lambda item: item[0][1]):
        requests = [timeline for timelines in rounds for timeline in timelines]
        firsts = [timeline[0] for timeline in requests]
        others = {RAW, SAME.get(name), PLAIN.get(name)} - {name}
        yield Figures(
            name,
            count,
            tokens_per_second=statistics.median(speeds[name, count]),
            ttft_p50=statistics.median(firsts),
            ttft_p95=percentile_95(firsts),
            inter_token_latency_p95=percentile_95([b - a for timeline in requests for a, b in pairwise(timeline)]),
            of={
                other: median_ratio(speeds[name, count], speeds[other, count])
                for other in others
                if other and (other, count) in speeds
            },
            cpu={
                role: statistics.median(each.get(role, 0) for each in cpu[name, count]) for role in cpu[name, count][0]
            },
        )


def speed(timelines: list[Timeline]) -> float:
    """Tokens a second of all clients together, until the last has its answer."""
    return NEW_TOKENS * len(timelines) / max(timeline[-1] for timeline in timelines)


def percentile_95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]


def median_ratio(ours: list[float], theirs: list[float]) -> Ratio:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def engines_apart(cpu: Cpu) -> Iterator[str]:
    """Where a ratio has luck in it: in one round two engines did the same work, one with over 5 % more CPU.

    Under a grammar the work is not the same: this package's engine has a mask of its own.
    """
    for (name, count), rounds in [item for item in cpu.items() if item[0][0] not in PLAIN]:
        others = {SAME.get(name), RAW if name in (OURS, VLLMS) else None}
        for other in others & {each for each, at in cpu if at == count}:
            for number, (each, reference) in enumerate(zip(rounds, cpu[str(other), count], strict=True), 1):
                used, by_other = each[ENGINE], reference[ENGINE]
                if max(used, by_other) > (1 + APART) * min(used, by_other):
                    yield (
                        f"{count} clients, round {number}: {name} {used:,.0f} us, {other} {by_other:,.0f} us, "
                        f"{used / by_other - 1:+.0%}"
                    )


def table(
    caption: str,
    figures: Iterable[Figures],
    starts: Mapping[str, list[float]],
    memory: Mapping[str, int],
    apart: list[str],
) -> str:
    figures = list(figures)
    first = {(f.system, f.clients): f.ttft_p50 for f in figures}
    cpu = "engine's CPU | server's | client's |"
    lines = [
        f"{caption}. CPU in us a token.",
        "",
        f"| clients | system | tokens/s | of raw | of vLLM's server | TTFT p50 / p95 | inter-token latency p95 | {cpu}",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {f.clients} | {f.system} | {f.tokens_per_second:.1f} | {f.ratio(RAW)} | {f.ratio(SAME.get(f.system))} "
        f"| {f.ttft_p50:.2f} / {f.ttft_p95:.2f} s | {f.inter_token_latency_p95 * 1000:.0f} ms | {f.cpu_cells} |"
        for f in figures
        if f.system not in PLAIN
    ]
    lines += [
        "",
        f"| clients | with more | tokens/s | of the same without | of vLLM's with it | TTFT p50, and later | {cpu}",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {f.clients} | {f.system} | {f.tokens_per_second:.1f} | {f.ratio(PLAIN[f.system])} "
        f"| {f.ratio(SAME.get(f.system))} "
        f"| {f.ttft_p50:.3f} s, {f.ttft_p50 - first[PLAIN[f.system], f.clients]:+.3f} s | {f.cpu_cells} |"
        for f in figures
        if f.system in PLAIN
    ]
    lines += ["", "| system | start to first answer | peak memory |", "|---|--:|--:|"]
    lines += [
        f"| {name} | {statistics.median(starts[name]):.0f} s | {size / 2**30:.1f} GiB |"
        for name, size in memory.items()
    ]
    lines += ["", f"Engines that did the same work and differ by more than {APART:.0%} of CPU a token:", ""]
    lines += [f"- {each}" for each in apart] or ["- none"]
    return "\n".join(lines) + "\n"
