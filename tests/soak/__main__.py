"""make soak: many clients, good and bad, at one server for minutes, and nothing may be left over or mixed up.

The server is the real one with the small model. Three clients in four send what callers send: streams, plain requests,
cancels, drops, tools, schemas, conversations, prompts that are too long. One in four sends what no caller should. At
the end everything that the server and the engine count has to add up; each check is a line of the report. It goes to
tests/soak/results as JSON and as the tables printed here. The exit status is 0 when every check holds.
"""

import json
import os
import platform
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from hermes.client.cog import Json, tls
from hermes.devserver.server import STOP_SECONDS, LocalServer
from tests.soak.clients import PATIENCE, Book, Client, Kind, Record
from tests.soak.requests import BAD, GOOD, LARGEST
from tests.soak.watch import SETTLED_SECONDS, TOLERANCE, Sample, Watch
from tests.support.servers import LOCAL, prediction_lines

SLOTS = 32
BAD_ONE_IN = 4
QUIET_SECONDS = 30.0  # for the server to come to rest after the last client
STEPS = 4  # of the engine, that a request may be ahead of what its caller was told when it is broken off
MORE_FILES, MORE_THREADS = 4, 4  # than at the start, that a server at rest may have
SHOWN = 20  # failures of a kind
RESULTS = Path(__file__).parent / "results"
notes = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Check:
    """Something that has to hold at the end; None is too short a run to tell."""

    what: str
    holds: bool | None
    seen: str


@dataclass(frozen=True)
class Tokens:
    """What the engine itself counted, and what its predictions reported.

    To a finished prediction all its tokens are reported. One that is broken off (cancelled, left, timed out) may have
    had a few more by then, which the engine had counted and nobody had taken.
    """

    engine: int = 0
    reported: int = 0
    predictions: int = 0
    broken_off: int = 0
    preemptions: int = 0

    @classmethod
    def between(cls, first: Json, last: Json, lines: Sequence[Json]) -> "Tokens":
        """Of the predictions whose lines are in the log after the first and up to the last."""
        counted = lines[lines.index(first) + 1 : lines.index(last) + 1]
        return cls(
            engine=last["engine"]["output_tokens"] - first["engine"]["output_tokens"],
            reported=sum(each["output_tokens"] for each in counted),
            predictions=len(counted),
            broken_off=sum(each["code"] is None and each["finish_reason"] in (None, "timeout") for each in counted),
            preemptions=sum(each["preemptions"] for each in counted),
        )

    @property
    def add_up(self) -> bool:
        return 0 <= self.engine - self.reported <= STEPS * self.broken_off


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


class Soak:
    """One run: a server, its clients, and what came of it."""

    def __init__(self, minutes: float, clients: int, seed: int, only: Collection[str], log: IO[str]):
        self.book = Book()
        self.log: list[str] = []  # of the server
        self.tokens = Tokens()
        self.after: list[Sample] = []  # at rest again
        self._seconds = 60 * minutes
        self._clients = clients
        self._seed = seed
        self._only = only
        self._file = log
        self._server = LocalServer(environment=LOCAL, on_log=self._on_log)

    def run(self) -> list[Check]:
        """Start the server, let the clients at it, stop it, and say what held."""
        with self._server as server:
            notes.print("starting the server")
            server.wait_until_ready(timeout=600)
            every_slot(server.url)  # starts a thread for each, which stays
            fill_buffers(server.url)
            first = self._alone()
            self.watch = Watch(server)
            self.before = self.watch.look()
            self._let_clients_run()
            checks = [*self._of_the_clients()]
            try:
                for check in self._once_at_rest(first):
                    checks.append(check)
            except Exception as error:  # it is dead, or as good as dead
                checks.append(Check("it answers at the end", False, repr(error)))
            began = time.monotonic()
        seconds, left = time.monotonic() - began, server.processes()
        in_order = not left and seconds < STOP_SECONDS
        return [*checks, Check("no process is left", in_order, f"{len(left)}, {seconds:.1f} s after the stop")]

    def _let_clients_run(self) -> None:
        notes.print(f"{self._clients} clients for {self._seconds / 60:g} minutes, seed {self._seed}")
        clients = [
            Client(self._server.url, self._seed + number, self.book, self._kinds(number), self._seconds)
            for number in range(self._clients)
        ]
        self.watch.start()
        began = time.monotonic()
        for client in clients:
            client.start()
        deadline = began + self._seconds + 2 * PATIENCE
        for client in clients:
            client.join(max(0.0, deadline - time.monotonic()))
        self.book.hangs += [f"client {n} never came back" for n, client in enumerate(clients) if client.is_alive()]
        self.seconds = time.monotonic() - began
        self.watch.stop()

    def _kinds(self, number: int) -> Mapping[Kind, int]:
        if self._only:
            return {kind: weight for kind, weight in {**GOOD, **BAD}.items() if kind.__name__ in self._only}
        return BAD if number % BAD_ONE_IN == BAD_ONE_IN - 1 else GOOD

    def _of_the_clients(self) -> Iterator[Check]:
        book = self.book
        yield Check("no hang", not book.hangs, f"{len(book.hangs)} of {len(book.records)} requests")
        yield Check("no answer mixed", not book.mixed, f"{len(book.mixed)}, with {len(book.nonces)} nonces issued")
        yield Check("no unexpected answer", not book.unexpected, f"{len(book.unexpected)}")

    def _once_at_rest(self, first: Json) -> Iterator[Check]:
        notes.print("waiting for rest")
        self._wait_for_rest()
        slots = Counter(every_slot(self._server.url))
        last = self._alone()
        self.tokens = tokens = Tokens.between(first, last, prediction_lines(self.log))
        seen = f"{tokens.engine} by the engine, {tokens.reported} reported; {tokens.broken_off} broken off"
        yield Check("tokens add up", tokens.add_up, seen)
        yield self._lines()
        yield Check("every slot is free", slots == {200: SLOTS}, f"{slots[200]} of {SLOTS}")
        unfinished = last["engine"]["unfinished"]
        yield Check("the engine has nothing unfinished", unfinished == 0, str(unfinished))
        statuses = [*self.watch.unhealthy, self._server.health()["status"]]
        yield Check("healthy throughout", statuses == ["READY"], ", ".join(sorted(set(statuses))))
        yield self._secrets()
        zombies = until_empty(self.watch.zombies)
        yield Check("no zombie", not zombies, f"{len(zombies)}; at most {self.watch.most_zombies} seen on the way")
        yield from self._memory()
        yield from self._leftovers()

    def _wait_for_rest(self) -> None:
        """Until a prediction has nothing beside it, or not for ever."""
        deadline = time.monotonic() + QUIET_SECONDS
        while self._alone()["engine"]["unfinished"] and time.monotonic() < deadline:
            time.sleep(1)

    def _alone(self) -> Json:
        """Send a small prediction and return its line, once it is in the server's log as well."""
        prediction = predict(self._server.url, max_tokens=1).json()
        (line,) = prediction_lines(prediction["logs"].splitlines())
        until_empty(lambda: [] if line in prediction_lines(self.log[-1000:]) else ["not yet"])
        return line

    def _lines(self) -> Check:
        """The line of an answer is one of the server's log."""
        in_log = Counter(json.dumps(line) for line in prediction_lines(self.log))
        in_answers = Counter(json.dumps(line) for line in self.book.lines)
        missing = (in_answers - in_log).total()
        return Check("each answer has its line in the log", not missing, f"{missing} missing of {in_answers.total()}")

    def _secrets(self) -> Check:
        told = [line for line in self.log if self.book.nonces.of_others(line)]
        return Check("no prompt in the log", not told, f"{len(told)} of {len(self.log)} messages")

    def _memory(self) -> Iterator[Check]:
        for role in ("server", "worker"):
            memory, what = self.watch.settled(role), f"memory of the {role} is level"
            if memory is None:
                yield Check(what, None, "too short to tell")
            else:
                low, high = memory.least / memory.median - 1, memory.most / memory.median - 1
                seen = f"{low:+.1%} to {high:+.1%} of {memory.median / 1e6:.0f} MB, {TOLERANCE:.0%} allowed"
                yield Check(what, memory.level, seen)

    def _leftovers(self) -> Iterator[Check]:
        """Files and threads are as many as before."""
        deadline = time.monotonic() + QUIET_SECONDS
        while (more := list(self._more_than_before())) and time.monotonic() < deadline:
            time.sleep(1)
        self.after = self.watch.look()
        yield Check("files and threads as at the start", not more, "; ".join(more) or "none more")

    def _more_than_before(self) -> Iterator[str]:
        now = {each.role: each for each in self.watch.look()}
        for before in self.before:
            after = now.get(before.role)
            if after is None:
                yield f"the {before.role} is gone"
            elif after.files > before.files + MORE_FILES:
                yield f"{before.role}: {before.files} files became {after.files}"
            elif before.role in ("server", "worker") and after.threads > before.threads + MORE_THREADS:
                yield f"{before.role}: {before.threads} threads became {after.threads}"

    def _on_log(self, message: str) -> None:
        self.log.append(message)
        self._file.write(message + "\n")


def predict(url: str, **inputs: Any) -> httpx.Response:
    return httpx.post(f"{url}/predictions", json={"input": {"prompt": "Hi", **inputs}}, timeout=PATIENCE, verify=tls())


def every_slot(url: str) -> list[int]:
    """The HTTP statuses of as many predictions at once as there are slots, each long enough to meet all others."""
    with ThreadPoolExecutor(SLOTS) as callers:
        inputs = {"min_tokens": 24, "max_tokens": 24}
        return list(callers.map(lambda _: predict(url, **inputs).status_code, range(SLOTS)))


def fill_buffers(url: str) -> None:
    """Send prompts as large as any to come through every slot.

    coglet 0.23 keeps a buffer for each slot, in the server and in the worker, of the largest prompt that went through
    it. Once all of them are there, what still grows does so by itself.
    """
    prompt = "日" * (LARGEST + 1000)
    with ThreadPoolExecutor(8) as callers:
        list(callers.map(lambda _: predict(url, prompt=prompt), range(4 * SLOTS)))


def until_empty(look: Callable[[], Iterable[Any]]) -> list[Any]:
    """What is there still after 5 s of looking."""
    deadline = time.monotonic() + 5
    while (found := list(look())) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def percentile_95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]


def requests_grid(records: Iterable[Record]) -> Grid:
    by_kind: dict[str, list[Record]] = {kind.__name__.replace("_", " "): [] for kind in (*GOOD, *BAD)}
    for record in records:
        by_kind[record.kind].append(record)
    rows = []
    for kind, several in by_kind.items():
        outcomes = Counter(each.outcome for each in several).most_common()
        firsts = [each.first_token for each in several if each.first_token is not None]
        first = f"{statistics.median(firsts):.2f} / {percentile_95(firsts):.2f} s" if firsts else ""
        rows.append([kind, str(len(several)), ", ".join(f"{outcome} {n}" for outcome, n in outcomes), first])
    return Grid(["requests", "sent", "how they ended", "first token p50 / p95"], rows)


def memory_grid(soak: Soak) -> Grid:
    """In MB; from when memory had settled where the run was long enough."""
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


def main(
    minutes: Annotated[float, typer.Option(help="how long the clients go on")] = 10,
    clients: Annotated[int, typer.Option(help="how many there are")] = 16,
    seed: Annotated[int | None, typer.Option(help="of all that is drawn; None draws one")] = None,
    only: Annotated[str, typer.Option(help="kinds of requests, by comma, to look for a fault: copied,tools")] = "",
) -> None:
    seed = random.randrange(2**32) if seed is None else seed
    names = only.split(",") if only else []
    if unknown := set(names) - {kind.__name__ for kind in (*GOOD, *BAD)}:
        raise typer.BadParameter(f"there is no kind {', '.join(unknown)}; see tests/soak/requests.py")
    RESULTS.mkdir(exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H%M")
    path = RESULTS / f"{stamp}-soak"
    with path.with_suffix(".log").open("w", encoding="utf-8") as log:
        soak = Soak(minutes, clients, seed, names, log)
        checks = soak.run()
    report(soak, checks, f"{stamp}Z, {machine()}, {minutes:g} minutes, {clients} clients, seed {seed}", path)
    raise typer.Exit(0 if all(check.holds is not False for check in checks) else 1)


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, Python {platform.python_version()}"


def report(soak: Soak, checks: Sequence[Check], caption: str, path: Path) -> None:
    """Print it, and write it beside the server's log."""
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


if __name__ == "__main__":
    typer.run(main)
