"""What the soak sees of the server from outside: memory, files, threads and zombies of its processes, every 5 s."""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil

from hermes.devserver.server import LocalServer

POLL_SECONDS = 5.0
LOOKS, LOOK_SECONDS = 4, 0.3
SETTLED_SECONDS = 120.0  # after which memory is to be level
TOO_SHORT_SECONDS = 180.0
TOLERANCE = 0.05
ROLES = ("server", "worker", "engine core", "engine worker", "guard")


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

    @property
    def level(self) -> bool:
        return self.least >= (1 - TOLERANCE) * self.median and self.most <= (1 + TOLERANCE) * self.median


class Watch:
    """Looks on in a thread, from `start` to `stop`."""

    def __init__(self, server: LocalServer):
        """The server has to be ready; its processes are told apart now."""
        self.samples: list[Sample] = []
        self.unhealthy: list[str] = []  # what /health-check said that was not READY
        self.most_zombies = 0
        self._server = server
        found = dict(_roles(server))
        self._roles = {role: found[role] for role in ROLES}
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
        """Of each process the look at which it had least memory: a prompt of megabytes that passes is no growth."""
        looks = self.look()
        for _ in range(LOOKS - 1):
            time.sleep(LOOK_SECONDS)
            looks += self.look()
        by_role = {role: [each for each in looks if each.role == role] for role in self._roles}
        return [min(several, key=lambda each: each.unique_bytes) for several in by_role.values() if several]

    def look(self) -> list[Sample]:
        """Each process as it is now."""
        at = time.monotonic() - self._began
        samples = []
        for role, process in self._roles.items():
            with suppress(psutil.NoSuchProcess), process.oneshot():
                memory = process.memory_full_info()
                files, threads = process.num_fds(), process.num_threads()
                samples.append(Sample(role, at, memory.uss, memory.rss, files, threads))
        return samples

    def zombies(self) -> list[psutil.Process]:
        """Below the server, those that have ended and that nobody has asked about."""
        found = []
        with suppress(psutil.NoSuchProcess):
            for process in self._roles["server"].children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if process.status() == psutil.STATUS_ZOMBIE:
                        found.append(process)
        return found

    def settled(self, role: str) -> Memory | None:
        """None when the samples are too few to tell."""
        settled = [each.unique_bytes for each in self.samples if each.role == role and each.at >= SETTLED_SECONDS]
        if not settled or self.samples[-1].at < TOO_SHORT_SECONDS - POLL_SECONDS:
            return None
        return Memory(role, min(settled), int(statistics.median(settled)), max(settled))

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self.samples += self.sample()
            self.most_zombies = max(self.most_zombies, len(self.zombies()))
            if (status := self._server.health()["status"]) != "READY":
                self.unhealthy.append(status)


def _roles(server: LocalServer) -> Iterator[tuple[str, psutil.Process]]:
    """Which process is what: the server is coglet's, the worker the process with our predictor in it."""
    for process in server.processes():
        command, name = " ".join(process.cmdline()), process.name()
        if "cog.server.http" in command:
            yield "server", process
        elif "_run_worker" in command:
            yield "worker", process
        elif name.startswith("VLLM::EngineCore"):
            yield "engine core", process
        elif name.startswith("VLLM::Worker"):
            yield "engine worker", process
        elif "guard.py" in command:
            yield "guard", process
