"""make soak: many clients, good and bad, use one server for minutes. Then nothing may be left over or mixed up.

The server is the real one with the small model. Three clients in four send what clients send: streams, plain requests,
cancels, drops, tools, schemas, conversations, prompts that are too long. One in four sends bad requests. More clients,
of two persons, speak the dialects of Replicate and OpenAI with a gateway before that server and before an imitated one
that is killed every minute and comes back. At the end, all counts of the server, the engine and the gateway must add
up; each check is a line of the report. The report goes to tests/soak/results as JSON and as tables. The exit status is
0 when every check holds.
"""

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from tests.soak.bad import BAD
from tests.soak.gateway_clients import GATEWAY_BAD, GATEWAY_GOOD
from tests.soak.good import GOOD
from tests.soak.report import machine, report
from tests.soak.run import Soak

RESULTS = Path(__file__).parent / "results"


def main(
    minutes: Annotated[float, typer.Option(help="how long the clients send requests")] = 10,
    clients: Annotated[int, typer.Option(help="how many clients of the server itself")] = 16,
    through: Annotated[int, typer.Option(help="how many clients of the gateway")] = 8,
    seed: Annotated[int | None, typer.Option(help="for everything random; None draws one")] = None,
    only: Annotated[str, typer.Option(help="send only these kinds of requests: copied,tools")] = "",
) -> None:
    seed = random.randrange(2**32) if seed is None else seed
    names = only.split(",") if only else []
    if unknown := set(names) - {kind.__name__ for kind in (*GOOD, *BAD, *GATEWAY_GOOD, *GATEWAY_BAD)}:
        raise typer.BadParameter(
            f"there is no kind {', '.join(unknown)}; see tests/soak/good.py, bad.py and gateway_clients.py"
        )
    RESULTS.mkdir(exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H%M")
    path = RESULTS / f"{stamp}-soak"
    with path.with_suffix(".log").open("w", encoding="utf-8") as log:
        soak = Soak(minutes, clients, through, seed, names, log)
        checks = soak.run()
    report(
        soak, checks, f"{stamp}Z, {machine()}, {minutes:g} minutes, {clients} + {through} clients, seed {seed}", path
    )
    raise typer.Exit(0 if all(check.holds is not False for check in checks) else 1)


if __name__ == "__main__":
    typer.run(main)
