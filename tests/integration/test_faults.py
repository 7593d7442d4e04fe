"""Something dies or hangs: whoever waits is told, health says so, the server ends to be started again, nothing is left.

`make test` tries each fault once, `make test-faults` each with 1 and 16 streams in flight and 1 and 2 workers.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest

from hermes.client.errors import PredictionFailed
from hermes.devserver.server import LocalServer
from tests.support.asking import lines_in_log, post, stream, until
from tests.support.servers import GRACE, serving

LONG = {"prompt": "Count to a million.", "min_tokens": 8000, "max_tokens": 8000}  # some 20 s of the tiny model
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


def listens(server):
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
    except ConnectionError:
        return False
    return True


def cogs_server(server):
    return with_command(server, "cog.server.http")[0]


def raise_in_a_worker(server):
    """As running out of GPU memory would. vLLM 0.32 does it by itself on a CPU: at a seeded prompt in chunks."""
    assert "E1203" in post(server, prompt="word " * 1500).json()["error"]


@dataclass(frozen=True)
class Fault:
    """What is done, and what a prediction in flight then fails with."""

    name: str
    strike: Callable[[LocalServer], None]
    said: str
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def kill(find):
    return lambda server: find(server).kill()


def stop(find):
    return lambda server: find(server).send_signal(signal.SIGSTOP)


DIED, STOPPED, SILENT = "the engine has died", "the engine hangs (its process", "the engine hangs (nothing came from it"
IN_CHUNKS = {"enable_chunked_prefill": True, "max_num_batched_tokens": 1024}

ENGINE_FAULTS = [
    Fault("the engine core is killed", kill(engine_core), DIED),
    Fault("a worker is killed", kill(last_worker), DIED),
    Fault("a worker raises", raise_in_a_worker, DIED, engine_args=IN_CHUNKS),
    Fault("the engine core is stopped", stop(engine_core), STOPPED),
    Fault("a worker is stopped", stop(last_worker), STOPPED),
    Fault("the engine core says nothing", stop(engine_core), SILENT, environment={"HERMES_STALL_TIMEOUT": "1"}),
]
COG_FAULTS = [
    Fault("Cog's worker is killed", kill(cogs_worker), "Worker crashed"),
    Fault("the server is killed", kill(cogs_server), "the connection to"),
]

EVERY = list(product((1, 16), (1, 2)))  # streams in flight, tensor-parallel workers


def cases(faults, first=3):
    """All combinations, or each fault once with the combinations in turn, from that one down."""
    everything = os.environ.get("FAULTS") == "all"
    return [
        pytest.param(fault, streams, workers, id=f"{fault.name}, {streams} streams, {workers} workers")
        for number, fault in enumerate(faults)
        for streams, workers in (EVERY if everything else [EVERY[(first - number) % len(EVERY)]])
    ]


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
            assert "error" in completed, "it ended before the fault"
            return completed["error"], completed["metrics"], time.monotonic()
        except PredictionFailed as failed:
            return str(failed), None, time.monotonic()

    def ends(self):
        with self._pool:
            return [each.result(timeout=60) for each in self._streams]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("fault", "streams", "workers"), cases(ENGINE_FAULTS))
def test_the_engine_dies_and_everybody_knows(tiny_model, fault, streams, workers):
    with serving(tiny_model, workers, fault.engine_args, **fault.environment) as server:
        server.wait_until_ready(timeout=300)
        in_flight = InFlight(server, streams)
        struck = time.monotonic()
        fault.strike(server)
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
        until(lambda: len(lines_in_log(server)) > streams, 5, "the log has a line of each")
        assert {line["code"] for line in lines_in_log(server)} == {"E1203"}
        until(lambda: server.health()["status"] == "STOPPED", GRACE + 5, "the server has ended")
        assert server.exit_status != 0
        until(lambda: server.processes() == [], GONE, "everything else has ended")


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("fault", "streams", "workers"), cases(COG_FAULTS, first=2))
def test_cogs_own_processes_die_and_nothing_is_left(tiny_model, fault, streams, workers):
    with serving(tiny_model, workers) as server:
        server.wait_until_ready(timeout=300)
        in_flight = InFlight(server, streams)
        struck = time.monotonic()
        fault.strike(server)
        for said, _, ended in in_flight.ends():
            assert fault.said in said
            assert ended - struck < TOLD
        assert server.health()["status"] != "READY"
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
    with serving(tiny_model, workers, HERMES_SHUTDOWN_GRACE="1.5") as server:
        server.wait_until_ready(timeout=300)
        in_flight = InFlight(server, streams)
        with ThreadPoolExecutor(1) as caller:
            began = threading.Event()
            short = caller.submit(stream, server, began.set, prompt="Hi", min_tokens=8, max_tokens=8)
            assert began.wait(30)
            told = time.monotonic()
            cogs_server(server).terminate()
            until(lambda: not listens(server), 2, "the server takes no more")
            assert short.result().completed["status"] == "succeeded"
        for said, metrics, _ in in_flight.ends():
            assert "E1205 ServerStopping: the server is stopping and this was not finished within 1.5 s; " in said
            assert 0 < metrics["output_token_count"] < LONG["max_tokens"]
        until(lambda: server.health()["status"] == "STOPPED", 10, "the server has ended")
        assert time.monotonic() - told < 10, "what Docker gives a container"
        assert server.exit_status == 0
        until(lambda: server.processes() == [], GONE, "everything else has ended")
