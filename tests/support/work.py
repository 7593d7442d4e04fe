"""The CPU time that something takes. Machines differ, and are shared: a slower one gets more of it."""

import time
from contextlib import contextmanager

TURNS = 1_000_000  # of an empty loop, as a yardstick
USUAL = 0.025  # s of CPU time for them; bounds are for a core that takes no longer


@contextmanager
def at_most(seconds, *, all_threads=False):
    """Fail if the block takes more CPU time; where the yardstick is slow at that moment, in proportion more."""
    clock = time.process_time if all_threads else time.thread_time
    began = clock()
    yield
    spent = clock() - began
    if spent >= seconds:
        slower = max(1, _yardstick() / USUAL)
        assert spent < seconds * slower, f"{spent:.2f} s of CPU time, at most {seconds} s; yardstick: {slower:.2f}"


def _yardstick():
    began = time.thread_time()
    for _ in range(TURNS):
        pass
    return time.thread_time() - began
