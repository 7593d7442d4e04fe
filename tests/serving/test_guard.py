"""The guard, with processes that stand for a server, its worker and the engine."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from hermes.serving import guard

# server -> worker -> engine; the server listens until it gets SIGUSR1, and each says its process id.
# At SIGUSR1 the worker starts a shell with a process, which says its id, too.
SERVER = """
import os, signal, socket, subprocess, sys, time
listener = socket.create_server(("127.0.0.1", 0))
signal.signal(signal.SIGUSR1, lambda *_: listener.close())
print(os.getpid(), flush=True)
subprocess.Popen([sys.executable, "-c", sys.argv[1]])
while True:
    time.sleep(0.05)
"""
WORKER = """
import os, signal, subprocess, sys, time
engine = subprocess.Popen(["sleep", "60"])
signal.signal(signal.SIGUSR1, lambda *_: subprocess.Popen(["sh", "-c", "sleep 62 & echo $!; wait"]))
print(os.getpid(), flush=True)
print(engine.pid, flush=True)
while True:
    engine.poll()
    time.sleep(0.05)
"""


# begins to start processes when its server has ended, as a start of the engine goes on then
STARTING = """
import os, subprocess, sys, time
engine = subprocess.Popen(["sleep", "60"])
print(os.getpid(), flush=True)
print(engine.pid, flush=True)
server = os.getppid()
while True:
    if os.getppid() != server:
        subprocess.Popen(["sleep", "61.5"])
    time.sleep(0.1)
"""


class Family:
    """A server with its worker, its engine and a guard."""

    def __init__(self, grace, worker=WORKER):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, "-c", SERVER, worker], **pipes, text=True)
        pids = [int(self.process.stdout.readline()) for _ in range(3)]
        self.server, self.worker, self.engine = (psutil.Process(pid) for pid in pids)
        self.guard = None
        if grace:
            self.start_guard(grace)
            time.sleep(2 * guard.POLL_SECONDS)  # until it has seen them all

    def start_guard(self, grace, worker=None):
        arguments = [sys.executable, "-P", guard.__file__, str(self.server.pid), str(worker or self.worker.pid), grace]
        self.guard = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)

    def alive(self):
        return {name for name in ("server", "worker", "engine") if guard.is_alive(getattr(self, name))}

    def end(self):
        guard.kill([self.server, self.worker, self.engine])
        self.process.wait()
        self.guard.kill()
        self.guard.wait()
        self.process.stdout.close()
        self.process.stderr.close()
        self.guard.stdout.close()


@pytest.fixture
def family(request):
    family = Family(getattr(request, "param", "0.5"))
    yield family
    family.end()


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_nothing_happens_while_all_live(family):
    assert family.alive() == {"server", "worker", "engine"}
    assert family.guard.poll() is None


def test_the_worker_is_gone_so_the_engine_and_then_the_server_are_ended(family):
    family.worker.kill()
    wait_for(lambda: family.alive() == {"server"}, 5)
    assert family.process.wait(timeout=5) == -signal.SIGHUP, "129 in a shell and in a container"
    assert "hermes: guard: Cog's worker has ended; stopping the server" in family.process.stderr.readline()
    assert family.guard.wait(timeout=5) == 0


def test_what_the_worker_started_later_and_what_has_another_parent_by_now_is_ended_too(family):
    family.worker.send_signal(signal.SIGUSR1)
    orphan = psutil.Process(int(family.process.stdout.readline()))
    shell = orphan.parent()
    time.sleep(6 * guard.POLL_SECONDS)  # until a guard on a busy machine has seen it
    shell.kill()
    wait_for(lambda: orphan.ppid() != shell.pid)
    family.worker.kill()
    wait_for(lambda: not guard.is_alive(orphan), 5)


def test_the_processes_of_the_machine_are_looked_at_only_if_one_has_started():
    started = [subprocess.Popen(["sleep", "60"]) for _ in range(50)]
    processes = {psutil.Process(each.pid) for each in started}
    reads, family, last = [], set(), 0
    for _ in range(50):  # other tests start processes meanwhile
        before = files_read()
        last = guard.add_new(family, psutil.Process(), last)
        reads.append(files_read() - before)
    guard.kill(processes)
    for each in started:
        each.wait()
    assert processes <= family
    assert min(reads) < 10 < 50 < reads[0]


def files_read():
    """How often this thread has read from a file."""
    with open("/proc/thread-self/io") as file:
        return int(re.search(r"syscr: (\d+)", file.read())[1])


@pytest.mark.parametrize("family", [None], indirect=True)
def test_a_worker_that_was_gone_before_its_guard_ends_the_server_the_same_way(family):
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    family.start_guard("0.5", worker=gone.pid)
    assert family.process.wait(timeout=5) == -signal.SIGHUP
    assert family.guard.wait(timeout=5) == 0


@pytest.mark.long  # its short sibling: the server is gone after its guard has seen it
@pytest.mark.parametrize("family", [None], indirect=True)
def test_a_server_that_was_gone_before_its_guard_leaves_no_worker(family):
    family.process.kill()
    family.process.wait()
    family.start_guard("0.5")
    assert family.guard.wait(timeout=guard.ORDERLY_SECONDS + 5) == 0
    assert family.alive() == set()


@pytest.mark.parametrize("family", ["60"], indirect=True)
def test_a_server_that_is_told_to_stop_meanwhile_ends_its_guard_too(family):
    family.worker.kill()
    wait_for(lambda: family.alive() == {"server"}, 5)
    family.server.terminate()
    family.process.wait()
    assert family.guard.wait(timeout=2) == 0


def test_a_server_that_sighup_does_not_end_ends_with_130():
    """As the first process of a container."""
    said = "import time; print(1, flush=True); time.sleep(60)"
    with subprocess.Popen(["nohup", sys.executable, "-c", said], stdout=subprocess.PIPE) as server:
        server.stdout.readline()
        guard.end_server(psutil.Process(server.pid))
        assert server.wait(timeout=5) == -signal.SIGINT


@pytest.mark.long
def test_a_server_that_hangs_is_killed(family):
    family.server.suspend()
    family.worker.kill()
    assert family.process.wait(timeout=guard.ORDERLY_SECONDS + 5) == -signal.SIGKILL


@pytest.mark.parametrize("family", ["off"], indirect=True)
def test_the_server_may_be_left_alone(family):
    family.worker.kill()
    assert family.guard.wait(timeout=5) == 0
    assert family.alive() == {"server"}


def test_the_server_is_gone_so_all_else_is_ended_after_its_time_also_what_the_worker_starts_meanwhile():
    family = Family("0.5", STARTING)
    try:
        family.server.kill()
        family.process.wait()
        time.sleep(2 * guard.POLL_SECONDS)
        assert family.alive() == {"worker", "engine"}, "they have time to end in order"
        assert family.guard.wait(guard.ORDERLY_SECONDS + 20) == 0
        found = [each for each in psutil.process_iter() if guard.is_alive(each) and "61.5" in each.cmdline()]
        assert (family.alive(), found) == (set(), [])
    finally:
        family.end()


def test_a_server_that_no_longer_listens_is_reported_and_not_ended(family):
    family.server.send_signal(signal.SIGUSR1)
    assert family.guard.stdout.readline() == "stopping\n"
    family.worker.kill()
    assert family.guard.wait(timeout=5) == 0
    assert family.alive() == {"server"}


def test_who_listens():
    listening = [
        sys.executable,
        "-c",
        "import socket, time; a = socket.create_server(('127.0.0.1', 0)); time.sleep(60)",
    ]
    with subprocess.Popen(listening) as process:
        server = psutil.Process(process.pid)
        wait_for(lambda: guard.find_listener(server))
        listener = guard.find_listener(server)
        assert listener.is_open()
        process.kill()
        process.wait()
        assert not listener.is_open()
        assert guard.find_listener(server) is None
    with socket.create_server(("127.0.0.1", 0)) as socket_:
        listener = guard.find_listener(psutil.Process())
        descriptor = socket_.fileno()
    with open(os.devnull) as file:
        assert file.fileno() == descriptor  # the number lives on, and is no socket
        assert not listener.is_open()


def test_a_zombie_does_not_live(family):
    family.server.kill()
    wait_for(lambda: family.server.status() == psutil.STATUS_ZOMBIE)
    assert not guard.is_alive(family.server)
    assert guard.wait_for_end([family.server], 1) == set()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory.events", "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ],
    ids=["cgroup v2", "cgroup v1"],
)
def test_processes_that_the_kernel_killed_for_want_of_memory_are_counted(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert guard.oom_kills([tmp_path / "missing", tmp_path / name]) == 2
    assert guard.oom_kills([tmp_path / "missing"]) == 0
