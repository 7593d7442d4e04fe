"""Clusters from their start to their end: replicas that come and go, a stop, a start that fails."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from hermes.devserver.server import PROJECT, free_port
from hermes.engine.devices import cuda_gpus
from hermes.serving.guard import is_alive
from tests.support.asking import until
from tests.support.clusters import (
    REPLICA_SECONDS,
    SLOTS,
    START_SECONDS,
    Cluster,
    ask,
    caller,
    callers,
    cluster_of,
    family_of,
)
from tests.support.tiny_llama import write_tiny_llama

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]
CUDA_DEVICES = len(cuda_gpus())


def test_replicas_come_and_go_with_the_load_and_no_request_is_lost():
    options = ["--max-replicas", "2", "--scale-up-after", "1", "--scale-down-after", "5"]
    with cluster_of(*options) as gateway, ThreadPoolExecutor(SLOTS) as threads:
        cluster, client, told = Cluster(gateway), caller(gateway), []

        def load(number, enough):
            """So many callers, each with its next request after the last, until `enough`."""

            def one(caller):
                requests = 0
                while not stopped:
                    requests += 1
                    told.append(ask(client, 1000 * caller + requests, 50))

            stopped = []
            running = [threads.submit(one, each) for each in range(number)]
            try:
                until(enough, REPLICA_SECONDS, f"enough slots or engines with {number} callers")
            finally:
                stopped.append(True)
                wait(running)

        assert cluster.slots == SLOTS
        load(24, lambda: cluster.slots == 2 * SLOTS)
        worked = [each.cpu_times().user for each in cluster.engines()]
        load(
            24,
            lambda: all(each.cpu_times().user > was + 1 for each, was in zip(cluster.engines(), worked, strict=True)),
        )
        load(3, lambda: cluster.slots == SLOTS)
        load(3, lambda: len(cluster.engines()) == 1)
        assert [each.problem for each in told if each.problem] == []
        assert len(told) > 50
        client.close()


def test_ctrl_c_ends_what_runs_with_e1205_and_leaves_nothing_behind():
    with cluster_of() as gateway:
        family = family_of(gateway.process.pid)
        assert len(Cluster(gateway).engines()) == 1
        with callers(gateway, 4, 1900) as asked:
            until(lambda: gateway.running == 4, 60, "all run")
            gateway.process.send_signal(signal.SIGINT)
            problems = [each.result().problem for each in asked]
        assert all("E1205" in problem for problem in problems), problems
        assert gateway.process.wait(timeout=60) == 0
        until(lambda: not any(map(is_alive, family)), 15, "all have ended")


@pytest.mark.cuda
@pytest.mark.skipif(CUDA_DEVICES < 2, reason=f"needs 2 CUDA devices; this machine has {CUDA_DEVICES}")
def test_a_replica_holds_two_gpus(tmp_path, small_model):
    write_tiny_llama(tmp_path, small_model)
    with cluster_of(HERMES_PROFILE="production", HERMES_MODEL=str(tmp_path)) as gateway:
        assert len(Cluster(gateway).processes("VLLM::Worker")) == 2
        assert ask(caller(gateway), 1, 20).problem is None


def test_a_replica_that_cannot_start_says_why_on_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "hermes", "cluster", "--port", str(free_port())],
        cwd=PROJECT,
        env={**os.environ, "HERMES_PROFILE": "local", "HERMES_MODEL": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("E1000 WeightsError: ")
