"""Notices an engine that is dead, stopped or stuck, and ends every wait for it.

vLLM itself notices when a process of the engine ends. It does not notice a process that hangs: one that a signal or a
debugger has stopped, or one that waits for a GPU that no longer answers.

The watch counts polls instead of seconds, so a pause of the whole machine or container does not count.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

import psutil

from hermes.engine.breaker import Breaker
from hermes.engine.processes import kill_trees
from hermes.errors import EngineFailed

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
STOPPED_POLLS = 4  # in a row: a debugger that attaches holds a process for less
FIRST_STEP = 10  # times the stall timeout, for the first step allocates and may compile


class EngineWatch:
    """Watches the engine from `start` to `stop`."""

    def __init__(
        self,
        processes: Sequence[psutil.Process],
        *,
        stall_timeout: float,
        unfinished: Callable[[], int],
        steps: Callable[[], int],
    ):
        """Prepare the watch; `start` begins it.

        Args:
            processes: of the engine. It is dead if one of them ends.
            stall_timeout: seconds that may pass without a sign of the engine while it has requests.
            unfinished: how many requests it has.
            steps: how many steps it has reported.
        """
        self.breaker = Breaker()
        self.died = asyncio.Event()
        self._processes = list(processes)
        self._stall_timeout = stall_timeout
        self._unfinished = unfinished
        self._steps = steps

    def fail(self, reason: str) -> None:
        """Declare the engine dead: end every wait for it, and refuse later ones.

        This kills its processes: a stuck one holds memory and might come back.
        """
        if self.breaker.tripped:
            return
        logger.error("engine: %s", reason)
        self.breaker.trip(lambda: EngineFailed(reason))
        self.died.set()
        self.kill()

    def kill(self) -> None:
        """Kill what is left of the engine."""
        kill_trees(self._processes)

    def start(self) -> None:
        """Begin to watch, in the running event loop."""
        self._running = asyncio.create_task(self._run())

    def stop(self) -> None:
        """Stop watching: the engine is about to be ended. Any thread may call this."""
        self.breaker.trip(lambda: EngineFailed("the engine has been stopped"))

    async def _run(self) -> None:
        stopped_polls = silent_polls = 0  # in a row
        before = self._steps()
        while not self.breaker.tripped:
            await asyncio.sleep(POLL_SECONDS)
            states = {process.pid: _state(process) for process in self._processes}
            ended = [pid for pid, state in states.items() if state == "ended"]
            stopped = [pid for pid, state in states.items() if state == "stopped"]
            steps = self._steps()
            stopped_polls = stopped_polls + 1 if stopped else 0
            silent_polls = silent_polls + 1 if self._unfinished() and steps == before else 0
            before, silent = steps, silent_polls * POLL_SECONDS
            if ended:
                self.fail(f"the engine has died (its process {ended[0]} is gone)")
            elif stopped_polls >= STOPPED_POLLS:
                self.fail(f"the engine hangs (its process {stopped[0]} is stopped)")
            elif silent > self._stall_timeout * (1 if steps else FIRST_STEP):
                self.fail(f"the engine hangs (nothing came from it for {silent:.0f} s)")


def _state(process: psutil.Process) -> str:
    """ended, stopped, or what the system calls it."""
    try:
        status = str(process.status())
    except psutil.NoSuchProcess:
        return "ended"
    if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
        return "ended"
    return "stopped" if status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP) else status
