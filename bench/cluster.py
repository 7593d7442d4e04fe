"""make bench-cluster: one and two replicas on Ray beside one Cog server, each through the same gateway, in one run.

Each round starts all systems anew. They take turns with the same new prompts, 96 new tokens each. Ratios are taken
within a round, as in bench.serving; printed is their median, with its 95 % interval by bootstrap.
"""

from contextlib import ExitStack
from datetime import UTC, datetime
from statistics import median
from typing import Annotated

import typer

from bench.load import NEW_TOKENS
from bench.report import median_ratio, percentile_95, speed
from bench.serving import RESULTS, Measured
from bench.systems import Gateway, OurServer, System
from hermes.devserver.server import PROJECT
from hermes.weights import smollm2

SERVER, COG, ONE, TWO = "Cog server", "one Cog server", "one replica on Ray", "two replicas on Ray"


def main(
    rounds: Annotated[int, typer.Option(help="how often each system is asked at each number of clients")] = 5,
    clients: Annotated[str, typer.Option(help="numbers of clients")] = "1,16,32,64",
) -> None:
    folder = smollm2.prepare(PROJECT / "weights" / smollm2.FOLDER)
    RESULTS.mkdir(exist_ok=True)
    counts = [int(count) for count in clients.split(",")]
    measured = Measured()
    with ExitStack() as stack:
        log = stack.enter_context((RESULTS / f"{datetime.now(UTC):%Y-%m-%dT%H%M}-cluster.log").open("wb"))
        for number in range(rounds):
            server = OurServer(SERVER, folder, log, COG_MAX_CONCURRENCY="32")
            systems: list[System] = [
                Gateway(COG, ["gateway", "--upstream", server.url], log),
                Gateway(ONE, ["cluster"], log, HERMES_PROFILE="local", HERMES_MODEL=str(folder)),
                Gateway(TWO, ["cluster", "--replicas", "2"], log, HERMES_PROFILE="local", HERMES_MODEL=str(folder)),
            ]
            with ExitStack() as started:
                started.callback(server.stop)
                server.start()
                measured.add_round(number, counts, systems, dict.fromkeys(systems, counts))
    print("| clients | system | tokens/s | of the Cog server's | TTFT p50 / p95 |\n|--:|---|--:|--:|--:|")
    for count in counts:
        speeds = {name: [speed(each) for each in measured.runs[name, count]] for name in (COG, ONE, TWO)}
        for name in speeds:
            firsts = [timeline[0] for timelines in measured.runs[name, count] for timeline in timelines]
            print(
                f"| {count} | {name} | {median(speeds[name]):.0f} | {median_ratio(speeds[name], speeds[COG])} "
                f"| {median(firsts):.2f} / {percentile_95(firsts):.2f} s |"
            )
    print(f"\n{rounds} rounds, {NEW_TOKENS} new tokens each")


if __name__ == "__main__":
    typer.run(main)
