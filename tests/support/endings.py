"""How servers end: something dies or hangs while they stream, or they are told to stop. Each way with all its checks.

Whoever waits is told, health says so, the server ends to be started again, and no process is left.
"""

import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from hermes.client.errors import PredictionFailed
from hermes.devserver.server import LocalServer
from tests.support.asking import lines_in_log, once_a_slot_is_free, post, stream, until
from tests.support.servers import GRACE

LONG = {"prompt": "Count to a million.", "min_tokens": 8000, "max_tokens": 8000}  # or as many as the context takes
TOLD = 5  # seconds in which everybody whose prediction runs knows that it has failed
UNHEALTHY = 10  # seconds until health says so
GONE = 15  # seconds after the server's end in which everything else has ended
STOPPING = 10  # seconds that Docker gives a container


def with_name(server, name):
    return _processes(server, lambda process: process.name().startswith(name))


def with_command(server, part):
    return _processes(server, lambda process: part in " ".join(process.cmdline()))


def _processes(server, are_meant):
    """Those processes of a server; each may end while it is looked at."""
    found = []
    for process in server.processes():
        with suppress(psutil.NoSuchProcess):
            found += [process] if are_meant(process) else []
    return found


def engine_core(server):
    return with_name(server, "VLLM::EngineCor")[0]


def last_worker(server):
    """The tensor-parallel worker of the last rank."""
    return max(with_name(server, "VLLM::Worker"), key=lambda process: process.pid)


def cogs_worker(server):
    return with_command(server, "_run_worker")[0]


def cogs_server(server):
    return with_command(server, "cog.server.http")[0]


def raise_in_a_worker(server):
    """As running out of GPU memory would. vLLM 0.32 does it by itself on a CPU: at a seeded prompt in chunks."""
    assert "E1203" in post(server, prompt="word " * 1500).json()["error"]


def kill(find):
    return lambda server: find(server).kill()


def stop(find):
    return lambda server: find(server).send_signal(signal.SIGSTOP)


def kill_the_guard_and_then_cogs_worker(server):
    """Another guard takes the place of the first."""
    (first,) = with_command(server, "guard.py")
    first.kill()
    until(lambda: set(with_command(server, "guard.py")) - {first}, 5, "there is another guard")
    time.sleep(1)  # until it has looked around
    cogs_worker(server).kill()


@dataclass(frozen=True)
class Fault:
    """What is done, and what a prediction in flight then fails with."""

    name: str
    strike: Callable[[LocalServer], None]
    said: str
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


DIED, STOPPED, SILENT = "the engine has died", "the engine hangs (its process", "the engine hangs (nothing came from it"
IN_CHUNKS = {"enable_chunked_prefill": True, "max_num_batched_tokens": 1024}

CORE_KILLED = Fault("the engine core is killed", kill(engine_core), DIED)
CORE_STOPPED = Fault("the engine core is stopped", stop(engine_core), STOPPED)
CORE_SILENT = Fault("the engine core says nothing", stop(engine_core), SILENT, {}, {"HERMES_STALL_TIMEOUT": "1"})
WORKER_KILLED = Fault("a worker is killed", kill(last_worker), DIED)
WORKER_RAISES = Fault("a worker raises", raise_in_a_worker, DIED, IN_CHUNKS)
WORKER_STOPPED = Fault("a worker is stopped", stop(last_worker), STOPPED)
COGS_WORKER_KILLED = Fault("Cog's worker is killed", kill(cogs_worker), "Worker crashed")
GUARD_KILLED = Fault("the guard and Cog's worker are killed", kill_the_guard_and_then_cogs_worker, "Worker crashed")
SERVER_KILLED = Fault("the server is killed", kill(cogs_server), "the connection to")


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
            completed = once_a_slot_is_free(lambda: stream(server, self.began.wait, **LONG)).completed
            assert "error" in completed, "it ended before the fault"
            return completed["error"], completed["metrics"], time.monotonic()
        except PredictionFailed as failed:
            return str(failed), None, time.monotonic()

    def ends(self):
        with self._pool:
            return [each.result(timeout=60) for each in self._streams]


def strike(server, fault, streams):
    """Do it while so many stream. Each is told in time. Returns their metrics, and when it was done."""
    in_flight = InFlight(server, streams)
    began = time.monotonic()
    fault.strike(server)
    struck = time.monotonic()
    ends = in_flight.ends()
    for said, _, ended in ends:
        assert fault.said in said
        assert ended - struck < TOLD
    return ends, began


def engine_fails(server, fault, streams):
    """Strike the engine. Who is in flight and who comes later is told, and health says so."""
    ends, struck = strike(server, fault, streams)
    for said, metrics, _ in ends:
        assert f"E1203 EngineFailed: {fault.said}" in said
        assert said.endswith("; the request can be sent again")
        assert metrics["output_token_count"] > 0
    asked = time.monotonic()
    late = post(server, prompt="Hi").json()
    assert (late["status"], "E1203" in late["error"], time.monotonic() - asked < 1) == ("failed", True, True)
    until(lambda: server.health()["status"] != "READY", UNHEALTHY - (time.monotonic() - struck), "health is bad")
    assert server.health()["status"] == "UNHEALTHY"
    last = slice(-streams - 1, None)
    until(lambda: {line["code"] for line in lines_in_log(server)[last]} == {"E1203"}, 5, "the log says so of each")


def cog_fails(server, fault, streams):
    """Strike one of Cog's own processes, or the guard."""
    strike(server, fault, streams)
    assert server.health()["status"] != "READY"


def is_started_again(server, signal_number=signal.SIGHUP):
    """The server ends, with the status that has it started again, and leaves nothing."""
    until(lambda: server.health()["status"] == "STOPPED", GRACE + 5, "the server has ended")
    assert server.exit_status == -signal_number, f"it is {server.exit_status}: {list(server.log)[-12:]}"
    is_gone(server)


def is_gone(server):
    until(lambda: server.processes() == [], GONE, "everything else has ended")


def listens(server):
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
    except ConnectionError:
        return False
    return True


def is_told_to_stop(server, streams, grace):
    """Short answers finish, long ones end with a clear error."""
    in_flight = InFlight(server, streams)
    with ThreadPoolExecutor(1) as caller:
        began = threading.Event()
        short = caller.submit(stream, server, began.set, prompt="Hi", min_tokens=4, max_tokens=4)
        assert began.wait(30)
        told = time.monotonic()
        cogs_server(server).terminate()
        until(lambda: not listens(server), 2, "the server takes no more")
        assert short.result().completed["status"] == "succeeded"
    for said, metrics, _ in in_flight.ends():
        assert f"E1205 ServerStopping: the server is stopping and this was not finished within {grace:g} s; " in said
        assert metrics["output_token_count"] > 0
    until(lambda: server.health()["status"] == "STOPPED", STOPPING, "the server has ended")
    assert time.monotonic() - told < STOPPING, "what Docker gives a container"
    assert server.exit_status == 0
    is_gone(server)
