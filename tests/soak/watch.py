"""Watch the processes of the server from outside, every 5 s: memory, files, threads and zombies."""

import statistics
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil

from hermes.devserver.server import LocalServer

POLL_SECONDS = 5.0
LOOKS, LOOK_SECONDS = 4, 0.3
SETTLED_SECONDS = 120.0  # after which memory must be level
LATER_SETTLED = {"gateway": 480.0}  # its heap grows with the largest bodies that came at once so far
TOO_SHORT_SECONDS = 180.0
TOLERANCE = 0.05
TOLERANCES = {"gateway": 0.1}  # a body of 1 MB that is being read is a tenth of all
ROLES = ("server", "worker", "engine core", "fork server", "guard")


@dataclass(frozen=True)
class Sample:
    """One process at one time."""

    role: str
    at: float  # s since the first client began
    unique_bytes: int  # memory that no other process shares, which its end would free
    resident_bytes: int
    files: int  # descriptors
    threads: int


@dataclass(frozen=True)
class Memory:
    """The unique memory of a process once it had settled."""

    role: str
    least: int
    median: int
    most: int
    growth: float  # of the median, from the first half to the second

    @property
    def tolerance(self) -> float:
        return TOLERANCES.get(self.role, TOLERANCE)

    @property
    def level(self) -> bool:
        within = (1 - self.tolerance) * self.median <= self.least and self.most <= (1 + self.tolerance) * self.median
        return within and self.growth <= TOLERANCE


class Watch:
    """A thread that takes samples from `start` to `stop`."""

    def __init__(self, server: LocalServer, others: Mapping[str, psutil.Process]):
        """Find the processes of the server, which must be ready, and take others by their roles."""
        self.samples: list[Sample] = []
        self.unhealthy: list[str] = []  # each status of /health-check other than READY
        self.most_zombies = 0
        self._server = server
        found = dict(_roles(server))
        self._roles = {role: found[role] for role in ROLES} | dict(others)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._began = time.monotonic()

    def start(self) -> None:
        self._began = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def sample(self) -> list[Sample]:
        """Take the least of several looks at each process: a large prompt that passes through is not growth."""
        looks = self.look()
        for _ in range(LOOKS - 1):
            time.sleep(LOOK_SECONDS)
            looks += self.look()
        by_role = {role: [each for each in looks if each.role == role] for role in self._roles}
        return [min(several, key=lambda each: each.unique_bytes) for several in by_role.values() if several]

    def look(self) -> list[Sample]:
        """Look at each process now."""
        at = time.monotonic() - self._began
        samples = []
        for role, process in self._roles.items():
            with suppress(psutil.NoSuchProcess), process.oneshot():
                memory = process.memory_full_info()
                files, threads = process.num_fds(), process.num_threads()
                samples.append(Sample(role, at, memory.uss, memory.rss, files, threads))
        return samples

    def zombies(self) -> list[psutil.Process]:
        """Find descendants of the server that have ended but whose exit status nobody has read."""
        found = []
        with suppress(psutil.NoSuchProcess):
            for process in self._roles["server"].children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if process.status() == psutil.STATUS_ZOMBIE:
                        found.append(process)
        return found

    def settled(self, role: str) -> Memory | None:
        """Return None if the samples are too few."""
        begin = LATER_SETTLED.get(role, SETTLED_SECONDS)
        settled = [each.unique_bytes for each in self.samples if each.role == role and each.at >= begin]
        if not settled or self.samples[-1].at < TOO_SHORT_SECONDS - SETTLED_SECONDS + begin - POLL_SECONDS:
            return None
        middle = len(settled) // 2
        growth = statistics.median(settled[middle:]) / statistics.median(settled[: middle + 1]) - 1
        return Memory(role, min(settled), int(statistics.median(settled)), max(settled), growth)

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self.samples += self.sample()
            self.most_zombies = max(self.most_zombies, len(self.zombies()))
            if (status := self._server.health()["status"]) != "READY":
                self.unhealthy.append(status)


def _roles(server: LocalServer) -> Iterator[tuple[str, psutil.Process]]:
    """Find the role of each process. The server is coglet; the worker holds our predictor."""
    for process in server.processes():
        command, name = " ".join(process.cmdline()), process.name()
        if "cog.server.http" in command:
            yield "server", process
        elif "_run_worker" in command:
            yield "worker", process
        elif name.startswith("VLLM::EngineCore"):
            yield "engine core", process
        elif name.startswith("VLLM::ForkServer"):
            yield "fork server", process
        elif "guard.py" in command:
            yield "guard", process
