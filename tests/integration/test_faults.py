"""Something dies or hangs: whoever waits is told, health says so, the server ends to be started again, nothing is left.

`make test` has one case of each kind, here or at the end of a server that other tests share: see conftest.py.
`make test-long` has each with 1 and 16 streams in flight and 1 and 2 workers.
"""

import signal
import time
from itertools import product

import pytest

from tests.support.asking import post
from tests.support.endings import (
    COGS_WORKER_KILLED,
    CORE_KILLED,
    CORE_SILENT,
    CORE_STOPPED,
    GUARD_KILLED,
    SERVER_KILLED,
    WORKER_KILLED,
    WORKER_RAISES,
    WORKER_STOPPED,
    cog_fails,
    cogs_server,
    engine_fails,
    is_gone,
    is_started_again,
    is_told_to_stop,
)
from tests.support.servers import GRACE, serving

pytestmark = pytest.mark.timeout(400)
ALL = list(product((1, 16), (1, 2)))  # streams in flight, tensor-parallel workers


def cases(faults):
    """All combinations of these faults; without `long` the one that a fault is given with, if any."""
    return [
        pytest.param(
            fault,
            *each,
            id=f"{fault.name}, {each[0]} streams, {each[1]} workers",
            marks=[] if each == short else pytest.mark.long,
        )
        for fault, short in faults
        for each in ALL
        if each[1] == 2 or fault not in (WORKER_KILLED, WORKER_STOPPED)  # one worker is no process of its own
    ]


@pytest.mark.parametrize(
    ("fault", "streams", "workers"),
    cases(
        [
            (CORE_KILLED, (16, 1)),
            (CORE_STOPPED, None),
            (CORE_SILENT, None),
            (WORKER_KILLED, None),
            (WORKER_RAISES, None),
            (WORKER_STOPPED, None),
        ]
    ),
)
def test_the_engine_dies_and_everybody_knows(tiny_model, fault, streams, workers):
    with serving(tiny_model, workers, fault.engine_args, **fault.environment) as server:
        server.wait_until_ready(timeout=300)
        engine_fails(server, fault, streams)
        is_started_again(server)


@pytest.mark.parametrize(
    ("fault", "streams", "workers"), cases([(COGS_WORKER_KILLED, None), (GUARD_KILLED, None), (SERVER_KILLED, (1, 1))])
)
def test_cogs_own_processes_die_and_nothing_is_left(tiny_model, fault, streams, workers):
    with serving(tiny_model, workers) as server:
        server.wait_until_ready(timeout=300)
        cog_fails(server, fault, streams)
        is_started_again(server, signal.SIGKILL if fault is SERVER_KILLED else signal.SIGHUP)


@pytest.mark.long
def test_a_silent_engine_is_dead_and_the_server_may_stay_up(tiny_model):
    with serving(tiny_model, HERMES_ENGINE_DEATH_GRACE="off", **CORE_SILENT.environment) as server:
        server.wait_until_ready(timeout=300)
        engine_fails(server, CORE_SILENT, 16)
        time.sleep(GRACE + 2)
        assert server.health()["status"] == "UNHEALTHY"
        assert "E1203" in post(server, prompt="Hi").json()["error"]
        cogs_server(server).kill()
        is_gone(server)


@pytest.mark.long
@pytest.mark.parametrize(("streams", "workers"), ALL)
def test_sigterm_lets_short_answers_finish_and_ends_long_ones_with_a_clear_error(tiny_model, streams, workers):
    with serving(tiny_model, workers, HERMES_SHUTDOWN_GRACE="1.5") as server:
        server.wait_until_ready(timeout=300)
        is_told_to_stop(server, streams, grace=1.5)
