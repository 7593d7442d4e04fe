"""Something dies or hangs: whoever waits is told, health says so, the server ends to be started again, nothing is left.

`make test` tries each fault once, `make test-faults` each with 1 and 16 streams in flight and 1 and 2 workers.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import httpx
import psutil
import pytest
from asking import LONG, post, prediction_lines, stream, until
from conftest import ENGINE_ARGS, LOCAL

from hermes.caller.errors import PredictionFailed
from hermes.serving.server import LocalServer

GRACE = 3  # seconds from the engine's death to the server's exit
TOLD = 5  # seconds in which everybody whose prediction runs knows that it has failed
UNHEALTHY = 10  # seconds until health says so
GONE = 15  # seconds after the server's end in which everything else has ended


def named(server, name):
    return [process for process in server.processes() if process.name().startswith(name)]


def with_command(server, part):
    return [process for process in server.processes() if part in " ".join(process.cmdline())]


def engine_core(server):
    return named(server, "VLLM::EngineCor")[0]


def last_worker(server):
    """The tensor-parallel worker of the last rank."""
    return max(named(server, "VLLM::Worker"), key=lambda process: process.pid)


def cogs_worker(server):
    return with_command(server, "_run_worker")[0]


def cogs_server(server):
    return with_command(server, "cog.server.http")[0]


def without_memory(process):
    """From now on the process gets no more of it; the kernel's own way out, SIGKILL, is another fault."""
    process.rlimit(psutil.RLIMIT_AS, (1, 1))


@dataclass(frozen=True)
class Fault:
    """What is done to which process, and what a prediction in flight then fails with."""

    name: str
    victim: Callable[[LocalServer], psutil.Process]
    strike: Callable[[psutil.Process], None]
    said: str
    environment: tuple[tuple[str, str], ...] = ()


def stop(process):
    process.send_signal(signal.SIGSTOP)


DIED, STOPPED, SILENT = "the engine has died", "the engine hangs (its process", "the engine hangs (nothing came from it"

ENGINE_FAULTS = [
    Fault("the engine core is killed", engine_core, psutil.Process.kill, DIED),
    Fault("a worker is killed", last_worker, psutil.Process.kill, DIED),
    Fault("a worker is out of memory", last_worker, without_memory, DIED),
    Fault("the engine core is stopped", engine_core, stop, STOPPED),
    Fault("a worker is stopped", last_worker, stop, STOPPED),
    Fault("the engine core says nothing", engine_core, stop, SILENT, (("HERMES_STALL_TIMEOUT", "1"),)),
]
COG_FAULTS = [
    Fault("Cog's worker is killed", cogs_worker, psutil.Process.kill, "Worker crashed"),
    Fault("the server is killed", cogs_server, psutil.Process.kill, "the connection to"),
]

EVERY = list(product((1, 16), (1, 2)))  # streams in flight, tensor-parallel workers


def cases(faults):
    """All combinations, or each fault once with the combinations in turn."""
    everything = os.environ.get("FAULTS") == "all"
    return [
        pytest.param(fault, streams, workers, id=f"{fault.name}, {streams} streams, {workers} workers")
        for number, fault in enumerate(faults)
        for streams, workers in (EVERY if everything else [EVERY[-1 - number % len(EVERY)]])
    ]


def serving(model, workers=1, engine_args=None, **environment):
    """A server of the tiny model."""
    engine_args = {**ENGINE_ARGS, "tensor_parallel_size": workers, **(engine_args or {})}
    return LocalServer(
        environment={
            **LOCAL,
            "COG_WEIGHTS": str(model),
            "HERMES_ENGINE_ARGS": json.dumps(engine_args),
            "HERMES_ENGINE_DEATH_GRACE": str(GRACE),
            "HERMES_SHUTDOWN_GRACE": "1",
            **({"VLLM_CPU_OMP_THREADS_BIND": "0|1"} if workers == 2 else {}),
            **environment,
        }
    )


class InFlight:
    """Long streams, all of which have begun."""

    def __init__(self, server, streams):
        self.began = threading.Barrier(streams + 1, timeout=120)
        self._pool = ThreadPoolExecutor(streams)
        self._streams = [self._pool.submit(self._run, server) for _ in range(streams)]
        self.began.wait()

    def _run(self, server):
        """What the prediction said when it ended, its metrics, and when that was."""
        try:
            completed = stream(server, self.began.wait, **LONG).completed
            return completed["error"], completed["metrics"], time.monotonic()
        except PredictionFailed as failed:
            return str(failed), None, time.monotonic()

    def ends(self):
        with self._pool:
            return [each.result(timeout=60) for each in self._streams]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("fault", "streams", "workers"), cases(ENGINE_FAULTS))
def test_the_engine_dies_and_everybody_knows(tiny_model, fault, streams, workers):
    with serving(tiny_model, workers, **dict(fault.environment)) as server:
        server.wait_until_ready(timeout=300)
        in_flight = InFlight(server, streams)
        victim = fault.victim(server)
        struck = time.monotonic()
        fault.strike(victim)
        for said, metrics, ended in in_flight.ends():
            assert f"E1203 EngineFailed: {fault.said}" in said
            assert said.endswith("; the request can be sent again")
            assert metrics["output_token_count"] > 0
            assert ended - struck < TOLD
        asked = time.monotonic()
        late = post(server, prompt="Hi").json()
        assert (late["status"], "E1203" in late["error"], time.monotonic() - asked < 1) == ("failed", True, True)
        until(lambda: server.health()["status"] != "READY", UNHEALTHY - (time.monotonic() - struck), "health is bad")
        assert server.health()["status"] == "UNHEALTHY"
        assert [line["code"] for line in prediction_lines(server)] == ["E1203"] * (streams + 1)
        until(lambda: server.health()["status"] == "STOPPED", GRACE + 5, "the server has ended")
        assert server.exit_status != 0
        until(lambda: server.processes() == [], GONE, "everything else has ended")


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("fault", "streams", "workers"), cases(COG_FAULTS))
def test_cogs_own_processes_die_and_nothing_is_left(tiny_model, fault, streams, workers):
    with serving(tiny_model, workers) as server:
        server.wait_until_ready(timeout=300)
        in_flight = InFlight(server, streams)
        victim = fault.victim(server)
        struck = time.monotonic()
        fault.strike(victim)
        for said, _, ended in in_flight.ends():
            assert fault.said in said
            assert ended - struck < TOLD
        assert server.health()["status"] in ("UNHEALTHY", "STOPPED")
        until(lambda: server.health()["status"] == "STOPPED", GRACE + 5, "the server has ended")
        assert server.exit_status != 0
        until(lambda: server.processes() == [], GONE, "everything else has ended")


@pytest.mark.timeout(400)
def test_the_guard_is_killed_and_another_takes_its_place(tiny_model):
    with serving(tiny_model) as server:
        server.wait_until_ready(timeout=300)
        (first,) = with_command(server, "guard.py")
        first.kill()
        until(lambda: set(with_command(server, "guard.py")) - {first}, 5, "there is another guard")
        time.sleep(1)  # until it has looked around
        cogs_worker(server).kill()
        until(lambda: server.processes() == [], GRACE + GONE, "everything has ended")
        assert server.exit_status != 0


@pytest.mark.timeout(400)
def test_the_server_may_stay_up_with_a_dead_engine(tiny_model):
    with serving(tiny_model, HERMES_ENGINE_DEATH_GRACE="off") as server:
        server.wait_until_ready(timeout=300)
        engine_core(server).kill()
        until(lambda: server.health()["status"] == "UNHEALTHY", UNHEALTHY, "health is bad")
        time.sleep(GRACE + 2)
        assert server.health()["status"] == "UNHEALTHY"
        assert "E1203" in post(server, prompt="Hi").json()["error"]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("streams", "workers"), EVERY if os.environ.get("FAULTS") == "all" else [(16, 2)])
def test_sigterm_lets_short_answers_finish_and_ends_long_ones_with_a_clear_error(tiny_model, streams, workers):
    with serving(tiny_model, workers) as server:
        server.wait_until_ready(timeout=300)
        in_flight = InFlight(server, streams)
        with ThreadPoolExecutor(1) as caller:
            began = threading.Event()
            short = caller.submit(stream, server, began.set, prompt="Hi", min_tokens=30, max_tokens=30)
            assert began.wait(30)
            told = time.monotonic()
            cogs_server(server).terminate()
            until(lambda: server.health()["status"] == "STARTING", 2, "the server takes no more")
            with pytest.raises(httpx.ConnectError):
                post(server, prompt="Hi")
            assert short.result().completed["status"] == "succeeded"
        for said, metrics, _ in in_flight.ends():
            assert "E1205 ServerStopping: the server is stopping and this was not finished within 1 s; " in said
            assert 0 < metrics["output_token_count"] < LONG["max_tokens"]
        until(lambda: server.health()["status"] == "STOPPED", 10, "the server has ended")
        assert time.monotonic() - told < 10, "what Docker gives a container"
        assert server.exit_status == 0
        until(lambda: server.processes() == [], GONE, "everything else has ended")
