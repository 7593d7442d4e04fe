"""The gateway of the soak: before the real server and before an imitated one, which is killed and comes back.

The imitated one repeats its prompt, so each of its answers is known in advance, and it can be killed every minute on a
machine that has no room for two engines. The clients have tokens of two persons.
"""

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

import httpx
import psutil

from tests.soak.check import Check
from tests.soak.clients import PATIENCE, Book
from tests.soak.gateway_clients import PIECES, TOKENS, Outages, Owned, Through
from tests.support.fake_cog import FakeCog
from tests.support.gateways import MODEL, gateway_before

SLOTS = 4  # at each upstream: fewer than clients, so that requests are queued
ALIVE_SECONDS, GONE_SECONDS = 50.0, 8.0  # of the imitated server, in turns
DELAY = 0.02  # s before each of its pieces
FOUND = 500  # predictions, the newest, that are looked for at the end
MORE_TASKS = 4  # than at the start, allowed at rest
REST_SECONDS = 30.0


class GatewaySoak:
    """The gateway and the imitated server, from the beginning of the block to its end."""

    def __init__(self, server_url: str, seconds: float):
        self._server_url = server_url
        self._alive = min(ALIVE_SECONDS, seconds / 4)
        self._stack = ExitStack()
        self._over = threading.Event()
        self._killer = threading.Thread(target=self._kill_and_start, daemon=True)
        self.outages, self.owned = Outages(), Owned()
        self.most_tasks = 0.0

    def __enter__(self) -> "GatewaySoak":
        folder = Path(self._stack.enter_context(TemporaryDirectory()))
        self.fake = self._stack.enter_context(FakeCog(slots=SLOTS, pieces=PIECES, delay=DELAY))
        options = ["--slots", str(SLOTS), "--store", str(folder / "predictions.sqlite")]
        tokens = ",".join(f"{person}:{token}" for person, token in TOKENS.items())
        self.gateway = self._stack.enter_context(
            gateway_before(
                self._server_url,
                self.fake.url,
                options=options,
                environment={"HERMES_GATEWAY_TOKENS": tokens},
                show_log=False,
            )
        )
        self.process = psutil.Process(self.gateway.process.pid)
        self.first_tasks = self.metric("hermes_gateway_tasks")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def metric(self, name: str) -> float:
        """A number of /metrics, which needs a token."""
        text = httpx.get(f"{self.gateway.url}/metrics", headers=headers_of("alice"), timeout=30).text
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))

    def start(self) -> None:
        self._killer.start()

    def stop(self) -> None:
        """End the outages; the imitated server is there."""
        self._over.set()
        self._killer.join()

    def client(self, number: int, draw: random.Random, book: Book) -> Through:
        """Make the connection of a client: every second one is the same person's."""
        person = sorted(TOKENS)[number % len(TOKENS)]
        return Through(self.gateway.url, draw, book, person, self.owned, self.outages)

    def checks(self, book: Book) -> Iterator[Check]:
        """Check at rest what can be seen from outside."""
        deadline = time.monotonic() + REST_SECONDS
        while (busy := self._busy()) and time.monotonic() < deadline:
            time.sleep(0.5)
        yield Check("gateway: nothing runs or waits", not busy, f"{busy:g}")
        yield Check("gateway: the upstream was killed and came back", *self._outages())
        lost = list(self._lost())
        newest = sum(min(FOUND, len(ids)) for ids in self.owned.ids.values())
        yield Check("gateway: no prediction lost", not lost, f"{len(lost)} of the newest {newest}: {lost[:3]}")
        tasks = self.metric("hermes_gateway_tasks")
        seen = f"{self.first_tasks:g} -> {tasks:g}, at most {self.most_tasks:g} seen on the way"
        yield Check("gateway: tasks as at the start", 0 < tasks <= self.first_tasks + MORE_TASKS, seen)
        log = self.gateway.said.splitlines()
        errors = [line for line in log if "ERROR" in line or "Traceback" in line or "the gateway failed" in line]
        yield Check("gateway: no error of its own in the log", not errors, f"{len(errors)} of {len(log)}: {errors[:2]}")
        told = [line for line in log if book.nonces.of_others(line) or any(token in line for token in TOKENS.values())]
        yield Check("gateway: no prompt and no token in the log", not told, f"{len(told)} of {len(log)}")

    def _busy(self) -> float:
        return self.metric("hermes_gateway_upstream_running") + self.metric("hermes_gateway_waiting")

    def _outages(self) -> tuple[bool, str]:
        """Send more requests than the real server has slots, until the imitated one gets some."""
        deadline = time.monotonic() + REST_SECONDS
        served = 0
        while not served and time.monotonic() < deadline:
            with ThreadPoolExecutor(2 * SLOTS) as pool:
                answered = list(pool.map(lambda _: self._chat(), range(2 * SLOTS)))
            served = self.fake.counts["begun"]
        seen = f"{len(self.outages)} times; it serves again, and {answered.count(200)} of {2 * SLOTS} are answered"
        return bool(self.outages and served) and answered == [200] * 2 * SLOTS, seen

    def _chat(self) -> int:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20, "min_tokens": 20}
        url = f"{self.gateway.openai}/chat/completions"
        return httpx.post(url, json=body, headers=headers_of("alice"), timeout=PATIENCE).status_code

    def _lost(self) -> Iterator[str]:
        """Find predictions that are not there, or have no end."""
        for person, ids in self.owned.ids.items():
            with httpx.Client(base_url=self.gateway.url, headers=headers_of(person), timeout=30) as client:
                for prediction_id in ids[-FOUND:]:
                    response = client.get(f"/v1/predictions/{prediction_id}")
                    if response.status_code != httpx.codes.OK or not response.json()["completed_at"]:
                        yield f"{prediction_id}: {response.status_code} {response.text[:200]}"

    def _kill_and_start(self) -> None:
        while not self._over.wait(self._alive):
            with self.outages.recorded():
                self.fake.kill()
            self.most_tasks = max(self.most_tasks, self.metric("hermes_gateway_tasks"))
            self._over.wait(GONE_SECONDS)
            self.fake.start()


def headers_of(person: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[person]}"}
