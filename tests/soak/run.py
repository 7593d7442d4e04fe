"""One run of the soak: start the server and the gateway, let the clients send, wait for rest, and check all counts."""

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any

import httpx
from rich.console import Console

from hermes.client.cog import Json
from hermes.devserver.server import STOP_SECONDS, LocalServer
from hermes.environment import tls
from tests.soak.bad import BAD, LARGEST
from tests.soak.check import Check
from tests.soak.clients import PATIENCE, Book, Client, Kind, Session
from tests.soak.gateway import GatewaySoak
from tests.soak.gateway_clients import GATEWAY_BAD, GATEWAY_GOOD
from tests.soak.good import GOOD
from tests.soak.watch import TOLERANCE, Sample, Watch
from tests.support.servers import LOCAL, prediction_lines

SLOTS = 32
BAD_ONE_IN = 4
QUIET_SECONDS = 30.0  # at most, until the server is at rest after the last client
STEPS = 4  # that the engine may be ahead of what a client got when its request is broken off
MORE_FILES, MORE_THREADS = 4, 4  # more than at the start, allowed for a server at rest
notes = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Tokens:
    """The tokens that the engine counted, and those that the predictions reported.

    A finished prediction reports all its tokens. For a prediction that is broken off (cancelled, left, timed out) the
    engine may have counted a few more.
    """

    engine: int = 0
    reported: int = 0
    predictions: int = 0
    broken_off: int = 0
    preemptions: int = 0

    @classmethod
    def between(cls, first: Json, last: Json, lines: Sequence[Json]) -> "Tokens":
        """Count the predictions whose log lines come after `first`, up to `last`."""
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


class Soak:
    """One run: the server and the gateway, their clients, and their records."""

    def __init__(self, minutes: float, clients: int, through: int, seed: int, only: Collection[str], log: IO[str]):
        self.book = Book()
        self.log: list[str] = []  # of the server
        self.tokens = Tokens()
        self.after: list[Sample] = []  # at rest again
        self._seconds = 60 * minutes
        self._clients, self._through = clients, through
        self._seed = seed
        self._only = only
        self._file = log
        self._server = LocalServer(environment=LOCAL, on_log=self._on_log)

    def run(self) -> list[Check]:
        """Start the server, run the clients, stop the server, and return the checks."""
        with self._server as server:
            notes.print("starting the server")
            server.wait_until_ready(timeout=600)
            every_slot(server.url)  # starts a thread for each, which stays
            fill_buffers(server.url)
            first = self._alone()
            with GatewaySoak(server.url, self._seconds) as self.gateway:
                self.watch = Watch(server, {"gateway": self.gateway.process})
                self.before = self.watch.look()
                self._let_clients_run()
                checks = [*self._of_the_clients()]
                try:
                    for check in self._once_at_rest(first):
                        checks.append(check)
                except Exception as error:  # the server or the gateway is dead, or does not work
                    checks.append(Check("it responds at the end", False, repr(error)))
                self._file.write(f"\nThe gateway's log:\n{self.gateway.gateway.said}")
            began = time.monotonic()
        seconds, left = time.monotonic() - began, server.processes()
        in_order = not left and seconds < STOP_SECONDS
        return [*checks, Check("no process is left", in_order, f"{len(left)}, {seconds:.1f} s after the stop")]

    def _let_clients_run(self) -> None:
        notes.print(
            f"{self._clients} clients and {self._through} through the gateway "
            f"for {self._seconds / 60:g} minutes, seed {self._seed}"
        )
        draws = [random.Random(self._seed + number) for number in range(self._clients + self._through)]
        sessions = [Session(self._server.url, draw, self.book) for draw in draws[: self._clients]]
        sessions += [self.gateway.client(number, draw, self.book) for number, draw in enumerate(draws[self._clients :])]
        clients = [
            Client(session, self._kinds(number, session), self._seconds) for number, session in enumerate(sessions)
        ]
        self.watch.start()
        self.gateway.start()
        began = time.monotonic()
        for client in clients:
            client.start()
        deadline = began + self._seconds + 2 * PATIENCE
        for client in clients:
            client.join(max(0.0, deadline - time.monotonic()))
        self.book.hangs += [f"client {n} did not end" for n, client in enumerate(clients) if client.is_alive()]
        self.seconds = time.monotonic() - began
        self.gateway.stop()
        self.watch.stop()

    def _kinds(self, number: int, session: Session) -> Mapping[Kind, int]:
        good, bad = (GATEWAY_GOOD, GATEWAY_BAD) if session.to else (GOOD, BAD)
        if self._only:
            return {kind: weight for kind, weight in {**good, **bad}.items() if kind.__name__ in self._only}
        return bad if number % BAD_ONE_IN == BAD_ONE_IN - 1 else good

    def _of_the_clients(self) -> Iterator[Check]:
        book = self.book
        yield Check("no hang", not book.hangs, f"{len(book.hangs)} of {len(book.records)} requests")
        yield Check("no response mixed up", not book.mixed, f"{len(book.mixed)}, with {len(book.nonces)} nonces issued")
        yield Check("no unexpected response", not book.unexpected, f"{len(book.unexpected)}")

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
        yield from self.gateway.checks(self.book)
        yield from self._memory()
        yield from self._leftovers()

    def _wait_for_rest(self) -> None:
        """Wait until the engine has no other request, at most QUIET_SECONDS."""
        deadline = time.monotonic() + QUIET_SECONDS
        while self._alone()["engine"]["unfinished"] and time.monotonic() < deadline:
            time.sleep(1)

    def _alone(self) -> Json:
        """Send a small prediction and return its log line, once the server's log has it too."""
        prediction = predict(self._server.url, max_tokens=1).json()
        (line,) = prediction_lines(prediction["logs"].splitlines())
        until_empty(lambda: [] if line in prediction_lines(self.log[-1000:]) else ["not yet"])
        return line

    def _lines(self) -> Check:
        """Check that each log line in a response is in the server's log."""
        in_log = Counter(json.dumps(line) for line in prediction_lines(self.log))
        in_responses = Counter(json.dumps(line) for line in self.book.lines)
        missing = (in_responses - in_log).total()
        return Check(
            "each response has its line in the log", not missing, f"{missing} missing of {in_responses.total()}"
        )

    def _secrets(self) -> Check:
        told = [line for line in self.log if self.book.nonces.of_others(line)]
        return Check("no prompt in the log", not told, f"{len(told)} of {len(self.log)} messages")

    def _memory(self) -> Iterator[Check]:
        for role in ("server", "worker", "gateway"):
            memory, what = self.watch.settled(role), f"memory of the {role} is level"
            if memory is None:
                yield Check(what, None, "too short to tell")
            else:
                low, high = memory.least / memory.median - 1, memory.most / memory.median - 1
                seen = f"{low:+.1%} to {high:+.1%} of {memory.median / 1e6:.0f} MB, {memory.tolerance:.0%} allowed"
                seen += f"; {memory.growth:+.1%} from half to half, {TOLERANCE:.0%} allowed"
                yield Check(what, memory.level, seen)

    def _leftovers(self) -> Iterator[Check]:
        """Check that there are no more files and threads than before."""
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
    """Fill all slots at once with predictions, and return their HTTP statuses."""
    with ThreadPoolExecutor(SLOTS) as pool:
        inputs = {"min_tokens": 24, "max_tokens": 24}
        return list(pool.map(lambda _: predict(url, **inputs).status_code, range(SLOTS)))


def fill_buffers(url: str) -> None:
    """Send the largest prompt through every slot.

    For each slot, coglet 0.23 keeps a buffer of its largest prompt, in the server and in the worker. With all buffers
    there, later growth of memory has another cause.
    """
    prompt = "日" * (LARGEST + 1000)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: predict(url, prompt=prompt), range(4 * SLOTS)))


def until_empty(look: Callable[[], Iterable[Any]]) -> list[Any]:
    """Look until nothing is found, for at most 5 s, and return the last finds."""
    deadline = time.monotonic() + 5
    while (found := list(look())) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found
