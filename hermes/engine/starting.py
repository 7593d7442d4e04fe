"""The start of an engine: it ends in time, it says why it failed, and a failed one leaves no process.

vLLM waits for its core process without a limit, but notices its end. So a start that takes too long ends with its core.
"""

import threading
from math import ceil
from types import TracebackType

import psutil

from hermes.engine.processes import kill_trees, title
from hermes.engine.root_cause import StartLog
from hermes.errors import EngineFailed, EngineStartFailed

LOOK_SECONDS = 1.0  # looks are counted, and not time, for the whole machine may be paused meanwhile

UNEXPLAINED = "none of its processes logged why; one that ended with -9 was killed, mostly for want of memory"


class EngineStart:
    """A context for the start of an engine. If it raises or takes too long, vLLM's processes are killed.

    What raises EngineFailed inside, such as a first request, raises EngineStartFailed instead.
    """

    def __init__(self, timeout: float, log: StartLog):
        """Args:
        timeout: seconds.
        log: of the start.
        """
        self._timeout = timeout
        self._log = log
        self._late: str | None = None  # what to say of a start that took too long
        self._ended = threading.Event()
        self._looking = threading.Thread(target=self._look_on, name="engine start", daemon=True)
        self._before = self._descendants()
        self._started: set[psutil.Process] = set()

    def __enter__(self) -> None:
        self._looking.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._looking.join()
        if error or self._late:
            self._kill()
        if self._late:
            raise EngineStartFailed(self._late) from error
        if isinstance(error, EngineFailed):
            raise EngineStartFailed(self._log.cause or f"{error.cause} ({UNEXPLAINED})") from error

    def _look_on(self) -> None:
        for _ in range(ceil(self._timeout / LOOK_SECONDS)):
            self._look()
            if self._ended.wait(LOOK_SECONDS):
                return
        self._look()
        self._late = f"it was not ready after {self._timeout:g} s (HERMES_START_TIMEOUT); {self._last_lines()}"
        self._kill()

    def _look(self) -> None:
        """Remember what was started: the processes of a core that ends become children of another process."""
        self._started |= self._descendants() - self._before

    def _kill(self) -> None:
        self._look()
        kill_trees(self._started)

    def _last_lines(self) -> str:
        said = []
        for process in sorted(self._started, key=lambda each: each.pid):
            line = self._log.last_line(process.pid)
            if line or "::" in title(process) or "spawn_main" in title(process):  # vLLM's, and no helper
                said.append(line or f"process {process.pid}: nothing")
        return f"its processes logged last: {'; '.join(said) or 'nothing'}"

    @staticmethod
    def _descendants() -> set[psutil.Process]:
        return set(psutil.Process().children(recursive=True))
