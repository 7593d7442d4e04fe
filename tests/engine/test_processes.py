"""Which processes are the engine, and that none of them is left."""

import subprocess
import sys
from contextlib import suppress

import psutil
import pytest

from hermes.engine.processes import kill_trees, workers
from hermes.serving.guard import is_alive
from tests.support.asking import until

# As vLLM's core: with two workers, each of which has helpers, and a helper of its own.
CORE = """
import subprocess, sys, time
worker = "import os, setproctitle, subprocess, time; setproctitle.setproctitle('VLLM::Worker_TP%d'); " + (
    "subprocess.Popen(['sleep', '60']); os.write(1, b'ready' + bytes([10])); time.sleep(60)"  # in one go
)
subprocess.Popen(["sleep", "60"])
for rank in range(2):
    subprocess.Popen([sys.executable, "-c", worker % rank])
time.sleep(60)
"""


@pytest.fixture
def core():
    with subprocess.Popen([sys.executable, "-c", CORE], stdout=subprocess.PIPE, text=True) as process:
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        core = psutil.Process(process.pid)
        family = core.children(recursive=True)
        assert len(family) == 5
        yield core
        for each in [core, *family]:
            with suppress(psutil.NoSuchProcess):
                each.kill()


def test_the_workers_are_of_the_engine_and_helpers_are_not(core):
    assert sorted(each.name() for each in workers(core)) == ["VLLM::Worker_TP0", "VLLM::Worker_TP1"]


def test_a_core_that_is_gone_has_no_workers(core):
    core.kill()
    core.wait(10)
    assert workers(core) == []


def test_what_a_process_has_started_ends_with_it(core):
    family = [core, *core.children(recursive=True)]
    kill_trees([core, core])
    until(lambda: not any(map(is_alive, family)), 10, "all have ended")
    kill_trees([core])
