"""The report of a soak: tables of its requests, processes and checks, for the terminal and as files."""

import json
import os
import platform
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.soak.bad import BAD
from tests.soak.check import Check
from tests.soak.clients import Record
from tests.soak.gateway_clients import GATEWAY_BAD, GATEWAY_GOOD, Through
from tests.soak.good import GOOD
from tests.soak.run import Soak
from tests.soak.watch import SETTLED_SECONDS

SHOWN = 20  # failures of a kind


@dataclass(frozen=True)
class Grid:
    """A table of the report."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        rule = ["---", *["--:"] * (len(self.columns) - 1)]
        return "\n".join("| " + " | ".join(row) + " |" for row in (self.columns, rule, *self.rows))

    def rich(self) -> Table:
        table = Table(*self.columns)
        for row in self.rows:
            table.add_row(*row)
        return table


def percentile_95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]


def requests_grid(records: Iterable[Record]) -> Grid:
    kinds = [*((kind, "") for kind in (*GOOD, *BAD)), *((kind, Through.to) for kind in (*GATEWAY_GOOD, *GATEWAY_BAD))]
    by_kind: dict[str, list[Record]] = {to + kind.__name__.replace("_", " "): [] for kind, to in kinds}
    for record in records:
        by_kind[record.kind].append(record)
    rows = []
    for kind, several in by_kind.items():
        outcomes = Counter(each.outcome for each in several).most_common()
        firsts = [each.first_token for each in several if each.first_token is not None]
        first = f"{statistics.median(firsts):.2f} / {percentile_95(firsts):.2f} s" if firsts else ""
        rows.append([kind, str(len(several)), ", ".join(f"{outcome} {n}" for outcome, n in outcomes), first])
    return Grid(["requests", "sent", "how they ended", "TTFT p50 / p95"], rows)


def memory_grid(soak: Soak) -> Grid:
    """Make the table of memory, in MB. It begins when memory has settled, if the run was long enough."""
    rows = []
    at_rest = {each.role: each for each in soak.after}
    for before in soak.before:
        after = at_rest.get(before.role, before)
        mine = [each for each in soak.watch.samples if each.role == before.role]
        settled = [each for each in mine if each.at >= SETTLED_SECONDS] or mine or [before]
        unique = [each.unique_bytes for each in settled]
        rows.append(
            [
                before.role,
                " / ".join(f"{size / 1e6:.0f}" for size in (min(unique), statistics.median(unique), max(unique))),
                f"{max(each.resident_bytes for each in settled) / 1e6:.0f}",
                f"{before.files} -> {after.files}",
                f"{before.threads} -> {after.threads}",
            ]
        )
    return Grid(["process", "memory of its own, least / median / most, MB", "resident, most", "files", "threads"], rows)


def checks_grid(checks: Iterable[Check]) -> Grid:
    said = {True: "yes", False: "NO", None: "?"}
    return Grid(["check", "holds", "seen"], [[check.what, said[check.holds], check.seen] for check in checks])


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, Python {platform.python_version()}"


def report(soak: Soak, checks: Sequence[Check], caption: str, path: Path) -> None:
    """Print the report and write it beside the server's log."""
    book, tokens = soak.book, soak.tokens
    lines = [
        caption,
        f"{len(book.records)} requests, {60 * len(book.records) / soak.seconds:.0f} a minute; "
        f"{tokens.predictions} predictions, {tokens.engine} tokens, {tokens.preemptions} preemptions",
    ]
    grids = [requests_grid(book.records), memory_grid(soak), checks_grid(checks)]
    failures = {"hang": book.hangs, "mixed": book.mixed, "unexpected": book.unexpected}
    listed = [f"{name}: {each}" for name, several in failures.items() for each in several[:SHOWN]]
    console = Console(width=150, highlight=False)
    for line in lines:
        console.print(line, markup=False)
    for grid in grids:
        console.print(grid.rich())
    for line in listed:
        console.print(line, markup=False)
    text = [*lines, *(grid.markdown() for grid in grids), *listed]
    path.with_suffix(".md").write_text("\n\n".join(text) + "\n", encoding="utf-8")
    figures = {
        "caption": caption,
        "checks": [asdict(check) for check in checks],
        "tokens": asdict(tokens),
        "records": [asdict(record) for record in book.records],
        "samples": [asdict(sample) for sample in soak.watch.samples],
        **failures,
    }
    path.with_suffix(".json").write_text(json.dumps(figures), encoding="utf-8")
