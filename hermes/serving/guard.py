"""A small process beside Cog's processes. It outlives them and ends what they leave behind.

hermes/serving/worker.py runs it as a script. It needs only the standard library and psutil, so it starts at once:

    guard.py SERVER_PID WORKER_PID GRACE

The server is coglet's process. The worker is the process with the predictor in it; it starts the engine.

- If the server ends, the worker and the engine have 5 s to end by themselves. Then the guard kills them.
- If the worker ends, the guard kills the engine at once. A worker ends after a failed start, too. coglet would go on
  without a worker and fail every prediction. So the guard ends the server after GRACE seconds. A GRACE of "off" leaves
  the server alone. A server that no longer listens was told to stop and ends by itself.

The guard prints "stopping" when the server no longer listens. It logs when the kernel kills a process of the container
for lack of memory: nobody else here would say why that process has ended.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import psutil

POLL_SECONDS = 0.5
LOOK_ANYWAY = 20  # polls
MEMORY_EVENTS = (  # of this container, in cgroup v2 and v1
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
)
ORDERLY_SECONDS = 5.0

OUT_OF_MEMORY = "hermes: guard: out of memory: the kernel killed a process of this container; raise its memory limit\n"


def main(server_pid: int, worker_pid: int, grace: str) -> None:
    """Watch both until one ends, then end the rest."""
    server, worker = find(server_pid), find(worker_pid)
    family = {worker, *descendants(worker)} if worker else set()
    listener, killed, last, polls = None, oom_kills(), 0, 0
    while server and is_alive(server) and worker and is_alive(worker):
        last, polls = add_new(family, worker, last if polls % LOOK_ANYWAY else 0), polls + 1
        if listener is None:
            listener = find_listener(server)
        elif not listener.is_open():
            listener = None
            with suppress(BrokenPipeError):  # the worker has just ended
                print("stopping", flush=True)
        if oom_kills() > killed:
            killed = oom_kills()
            write_log(server, OUT_OF_MEMORY)
        time.sleep(POLL_SECONDS)
    if server and oom_kills() > killed:
        write_log(server, OUT_OF_MEMORY)
    if not (server and is_alive(server)):
        wait_for_end(family, ORDERLY_SECONDS)
    kill(family)
    if server and find_listener(server) and grace != "off":
        wait_for_end({server}, float(grace))
        if find_listener(server):  # nobody has stopped it meanwhile
            write_log(server, "hermes: guard: Cog's worker has ended; stopping the server so that it is restarted\n")
            end_server(server)


def oom_kills(files: Iterable[Path] = MEMORY_EVENTS) -> int:
    """How many processes of this container the kernel has killed for lack of memory, if it counts them."""
    for file in files:
        with suppress(OSError):
            if found := re.search(r"^oom_kill (\d+)$", file.read_text(encoding="ascii"), re.MULTILINE):
                return int(found[1])
    return 0


def write_log(server: psutil.Process, line: str) -> None:
    """Write a line to the server's own standard error, for coglet logs nothing of a guard whose worker has ended."""
    log = f"/proc/{server.pid}/fd/2"
    with (
        suppress(OSError),  # a pipe that is full, or that nobody reads, and a socket
        open(log, "ab", buffering=0, opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file,
    ):
        file.write(line.encode())


def end_server(server: psutil.Process) -> None:
    """End it with the status 129, so that a platform starts it again.

    coglet handles SIGTERM, which would give 0, and SIGINT, but not SIGHUP. SIGHUP does not end PID 1 of a container, so
    SIGINT follows (130). SIGINT alone would give 0 in a background job of a shell.
    """
    for number, seconds in ((signal.SIGHUP, 1.0), (signal.SIGINT, ORDERLY_SECONDS), (signal.SIGKILL, 0.0)):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            server.send_signal(number)
            if not wait_for_end({server}, seconds):
                return


def find(pid: int) -> psutil.Process | None:
    """The process, or None if it has ended: a start can fail before its guard has looked around."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid)
    return None


def descendants(process: psutil.Process) -> set[psutil.Process]:
    """The processes that a process has started, also through others, without this one."""
    with suppress(psutil.NoSuchProcess):
        return {child for child in process.children(recursive=True) if child.pid != os.getpid()}
    return set()


def add_new(family: set[psutil.Process], worker: psutil.Process, last: int) -> int:
    """Add what the worker has started since a process or thread with the id `last` was the last to start.

    Returns the id of the last now, or 0 if the system does not say, as in gVisor. To ask each process of the machine
    for its parent takes milliseconds, so that is done only if something has started. It is a hint: lxcfs gives another
    id, and only every 5 s.
    """
    before, last = last, 0
    with suppress(OSError, ValueError, IndexError):
        last = int(Path("/proc/loadavg").read_bytes().split()[-1])
    if not last or last != before:
        family |= descendants(worker)
    return last


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs. A zombie does not."""
    with suppress(psutil.NoSuchProcess):  # it has ended between the two questions
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def wait_for_end(processes: Iterable[psutil.Process], seconds: float) -> set[psutil.Process]:
    """Wait until all have ended, for at most `seconds`. Returns those that still run."""
    deadline = time.monotonic() + seconds
    alive = set(filter(is_alive, processes))
    while alive and time.monotonic() < deadline:
        time.sleep(0.05)
        alive = set(filter(is_alive, alive))
    return alive


@dataclass(frozen=True)
class Listener:
    """A socket that takes TCP connections: the file descriptor of its process, and what that was when it was found."""

    descriptor: Path
    socket: str

    def is_open(self) -> bool:
        """Whether it still takes them. To ask the system for all sockets each time would take 1 % of a core."""
        with suppress(OSError):
            return os.readlink(self.descriptor) == self.socket
        return False


def find_listener(process: psutil.Process) -> Listener | None:
    """A socket of the process that takes TCP connections, or None."""
    with suppress(psutil.NoSuchProcess, OSError):
        for each in process.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN:
                descriptor = Path(f"/proc/{process.pid}/fd/{each.fd}")
                return Listener(descriptor, os.readlink(descriptor))
    return None


def kill(processes: Collection[psutil.Process]) -> None:
    """End these processes and their descendants at once, also those that they start at this moment."""
    found: set[psutil.Process] = set()
    while new := set(filter(is_alive, chain(processes, *map(descendants, processes)))) - found:
        _send(psutil.Process.suspend, new)  # a process that is suspended starts no other
        found |= new
    _send(psutil.Process.kill, found)


def _send(signal_: Callable[[psutil.Process], None], processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            signal_(process)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
