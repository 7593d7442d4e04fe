"""Measure the event loop of a command of hermes: python -m tests.support.measured_gateway REPORT gateway ...

Each callback of the loop is measured by the processor time of its thread: the time on the wall also has what other
threads and other processes did meanwhile. The loop is asyncio's own, since uvloop's callbacks cannot be wrapped. A line
of JSON is appended to the file REPORT for each callback over REPORTED seconds, and at the end one with the longest.
"""

import asyncio
import atexit
import gc
import json
import sys
import time

REPORTED = 0.02  # s
COLLECTING = 0.05  # s, where garbage of other callbacks is collected: that grows with all that the process holds
STACK = 4  # frames of a task


class Measured:
    """The callbacks of all loops of this process."""

    def __init__(self, path):
        self._report = open(path, "a", buffering=1)  # noqa: SIM115 - until the end
        self._collecting = self._collected = 0.0  # processor time of the garbage collector
        self.longest, self.of, self.count = 0.0, "", 0

    def install(self):
        run = asyncio.Handle._run

        def measured(handle):
            self._collected, began = 0.0, time.thread_time()
            run(handle)
            self.take(time.thread_time() - began, handle)

        asyncio.Handle._run = measured
        gc.callbacks.append(self._on_collection)
        atexit.register(self.write, {"longest": 0})

    def take(self, seconds, handle):
        self.count += 1
        if seconds > self.longest:
            self.longest, self.of = seconds, what(handle)
        if seconds - self._collected > REPORTED or seconds > COLLECTING:
            self.write({"over": seconds, "of": what(handle), "collected": self._collected})

    def write(self, line):
        if "longest" in line:
            line = {"longest": self.longest, "of": self.of, "callbacks": self.count}
        self._report.write(json.dumps(line) + "\n")

    def _on_collection(self, phase, _):
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            self._collected += time.thread_time() - self._collecting


def what(handle):
    """What a callback was: for a step of a task, its coroutine and where it waits now."""
    task = getattr(handle._callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return repr(handle._callback)
    frames = [
        f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}" for frame in task.get_stack(limit=STACK)
    ]
    return f"{task.get_coro().__qualname__} at {' > '.join(frames) or 'its end'}"


if __name__ == "__main__":
    sys.modules["uvloop"] = None  # uvicorn would take it
    Measured(sys.argv.pop(1)).install()
    from hermes.cli import run

    run()
