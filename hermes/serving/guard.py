"""A small process beside Cog's: it outlives them, and sees to it that nothing else of theirs does.

Run as a script by hermes/serving/worker.py, with the standard library and psutil alone, so that it is up in an instant:

    guard.py SERVER_PID WORKER_PID GRACE

The server is coglet's, the worker is the process with our predictor in it, and below that is the engine. Whichever of
them ends, in whatever way:

- the server: the worker and the engine have 5 s to end in order, then they are killed.
- the worker: the engine is killed at once. coglet goes on with no worker and fails every prediction, so the server is
  ended too, after GRACE seconds ("off": it is left alone) and with a status that is not 0. A server that no longer
  listens was told to stop, and ends by itself.

One line on standard output, "stopping", says that the server no longer listens: it was told to stop.
"""

import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

POLL_SECONDS = 0.5
ORDERLY_SECONDS = 5.0


def main(server_pid: int, worker_pid: int, grace: str) -> None:
    server, worker = psutil.Process(server_pid), psutil.Process(worker_pid)
    family = {worker}
    listened = False
    while is_alive(server) and is_alive(worker):
        family |= descendants(worker)
        listens = is_listening(server)
        if listened and not listens:
            with suppress(BrokenPipeError):  # the worker has just ended
                print("stopping", flush=True)
        listened = listens
        time.sleep(POLL_SECONDS)
    if not is_alive(server):
        wait_for_end(family, ORDERLY_SECONDS)
    kill(family)
    if is_listening(server) and grace != "off":
        time.sleep(float(grace))
        end_server(server)


def end_server(server: psutil.Process) -> None:
    """End it with a status that is not 0, so that whoever started it starts it again."""
    with suppress(psutil.NoSuchProcess):
        server.kill()
        if wait_for_end({server}, 1):
            server.terminate()  # the first process of a container can't be killed from inside


def descendants(process: psutil.Process) -> set[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return {child for child in process.children(recursive=True) if child.pid != os.getpid()}
    return set()


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; one that has ended and that its parent has not asked about (a zombie) does not."""
    with suppress(psutil.NoSuchProcess):  # it has ended between the two questions
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def wait_for_end(processes: Iterable[psutil.Process], seconds: float) -> set[psutil.Process]:
    """Wait until all have ended, or that long; returns those that have not."""
    deadline = time.monotonic() + seconds
    alive = set(filter(is_alive, processes))
    while alive and time.monotonic() < deadline:
        time.sleep(0.05)
        alive = set(filter(is_alive, alive))
    return alive


def is_listening(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return any(each.status == psutil.CONN_LISTEN for each in process.net_connections("tcp"))
    return False


def kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
