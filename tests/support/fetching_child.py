"""Fetches in children that may die at any moment. `Zygote` starts this file, which forks one for each job.

A job is a line of JSON: folder, source, and lose, the disk operation before which it kills itself, or null. The answers
are lines, too: the child's process id, and when it is over its exit status, which is FETCHED, REFUSED or BUG.
"""

import json
import os
import signal
import subprocess
import sys
import traceback
from itertools import count
from pathlib import Path

PIECE, BLOCK, SKIPPED, LITTLE = 1000, 2000, 600, 600  # bytes; the models here are small
DISK_OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
FETCHED, REFUSED, BUG = 0, 1, 3


class Zygote:
    """One process with everything imported."""

    def __init__(self, **environment):
        self.process = subprocess.Popen(
            [sys.executable, "-P", __file__],  # modules of this folder have names of the standard library
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
        )

    def start(self, **job):
        """The process id of a child that does a job."""
        self.process.stdin.write(json.dumps(job).encode() + b"\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def wait(self):
        """How it ended: FETCHED, REFUSED, BUG, or a signal below 0."""
        return int(self.process.stdout.readline())

    def close(self):
        self.process.communicate()


def small_pieces():
    """A connection brings a model of some kilobytes in as many steps as it would one of gigabytes."""
    from hermes.weights import http, hub, reader

    http.PIECE = http.LEAST = PIECE
    reader.BLOCK, reader.SKIPPED, reader.LITTLE = BLOCK, SKIPPED, LITTLE
    http.READ_SECONDS = hub.READ_SECONDS = 0.1


def fetch(folder, source):
    from hermes.errors import WeightsError
    from hermes.weights import Store
    from hermes.weights.remote import Patience
    from hermes.weights.source import parse_source

    patience = Patience(attempts=4, first_wait=0.001, longest_wait=0.005, longest_retry_after=0.01)
    try:
        Store(Path(folder, "weights"), Path(folder, "weights.lock"), patience=patience).fetch(parse_source(source))
    except WeightsError:
        return REFUSED
    return FETCHED


def die_before(number, folder):
    """Kill this process before it does anything to the folder for the `number`th time."""
    operations = count(1)

    def hook(event, arguments):
        if event in DISK_OPERATIONS and str(arguments[0]).startswith(folder) and next(operations) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def do(job):
    if job["lose"]:
        die_before(job["lose"], job["folder"])
    try:
        return fetch(job["folder"], job["source"])
    except BaseException:
        traceback.print_exc()
        return BUG


def main():
    import hf_xet  # noqa: F401

    import hermes.weights.store  # noqa: F401

    small_pieces()
    for line in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            os._exit(do(json.loads(line)))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
