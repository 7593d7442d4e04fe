"""The start of an engine: it ends in time, it says why it failed, and a failed one leaves no process.

vLLM waits for its core process without a limit, but notices its end. So a start that takes too long ends with its core.
"""

import threading
from types import TracebackType

import psutil

from hermes.engine.processes import kill_trees, title
from hermes.engine.start_log import StartLog
from hermes.errors import EngineFailed, EngineStartFailed

POLL_SECONDS = 1.0  # polls are counted instead of seconds, so a pause of the whole machine does not count

UNEXPLAINED = "none of its processes logged why; one that ended with -9 was killed, mostly for lack of memory"


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
        self._timeout_message: str | None = None  # once it took too long
        self._ended = threading.Event()
        self._polling = threading.Thread(target=self._poll_until_end, name="engine start", daemon=True)
        self._before = self._descendants()
        self._started: set[psutil.Process] = set()

    def __enter__(self) -> None:
        self._polling.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._polling.join()
        if error or self._timeout_message:
            self._kill()
        if self._timeout_message:
            raise EngineStartFailed(self._timeout_message) from error
        if isinstance(error, EngineFailed):
            raise EngineStartFailed(self._log.cause or f"{error.cause} ({UNEXPLAINED})") from error

    def _poll_until_end(self) -> None:
        polls = 0
        while polls < self._timeout:  # a poll is a second
            self._poll()
            if self._ended.wait(POLL_SECONDS):
                return
            polls += 1
        self._poll()
        self._timeout_message = (
            f"it was not ready after {self._timeout:g} s; set HERMES_START_TIMEOUT higher if it only loads slowly; "
            f"{self._last_lines()}"
        )
        self._kill()

    def _poll(self) -> None:
        """Remember what was started: the processes of a core that ends become children of another process."""
        self._started |= self._descendants() - self._before

    def _kill(self) -> None:
        self._poll()
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
