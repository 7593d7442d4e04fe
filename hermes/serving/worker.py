"""The process with the engine in it: its log, its guard, and its end when the engine or the server ends."""

import asyncio
import atexit
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

import psutil

from hermes.errors import ServerStopping
from hermes.logs import log_to_stderr
from hermes.serving import guard, malloc
from hermes.serving.service import ChatService
from hermes.settings import Settings, death_grace

logger = logging.getLogger(__name__)

GUARD_PAUSE_SECONDS = 0.5  # before a new one, should they end as soon as they start


class CogWorker:
    """The process around the predictor. setup() makes it first."""

    def __init__(self) -> None:
        """Show the log, start the guard and read the settings. Raises what Settings.load raises."""
        log_to_stderr()
        malloc.not_for_children()
        self._on_stopping: Callable[[], object] = lambda: None
        self._tasks: list[asyncio.Task[None]] = []
        self._server = psutil.Process(os.getppid())
        start_guard(self._server.pid, death_grace(), lambda: self._on_stopping())
        self.settings = Settings.load()
        atexit.register(os._exit, 0)  # the last of its kind: to take vLLM's modules apart takes Python seconds

    def look_after(self, chat: ChatService) -> None:
        """From now on, end the server when the engine dies, and end responses when the server is told to stop."""
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        self._on_stopping = lambda: loop.call_soon_threadsafe(stopping.set)
        self._tasks = [
            loop.create_task(self._end_after_death(chat)),
            loop.create_task(self._stop_replies(chat, stopping)),
        ]

    async def _end_after_death(self, chat: ChatService) -> None:
        await chat.engine.died.wait()
        grace = self.settings.engine_death_grace
        if grace == "off":
            return
        logger.error("worker: the engine is dead; the server ends in %g s, to be started again", grace)
        await asyncio.sleep(grace)
        # In a thread that this process does not wait for when the server's end ends it.
        threading.Thread(target=guard.end_server, args=(self._server,), daemon=True).start()

    async def _stop_replies(self, chat: ChatService, stopping: asyncio.Event) -> None:
        await stopping.wait()
        grace = self.settings.shutdown_grace
        logger.info("worker: the server stops; %d predictions have %g s to finish", chat.running, grace)
        await asyncio.sleep(grace)
        chat.stop(lambda: ServerStopping(grace))


def start_guard(server_pid: int, grace: float | str = "off", on_stopping: Callable[[], object] = lambda: None) -> None:
    """Keep a guard beside this process: it ends what this process has started and leaves behind.

    Args:
        server_pid: of the process whose end is the end of this one, too; it may be this one.
        grace: seconds from the end of this process to that of the server, or "off".
        on_stopping: is called, in a thread, when the server no longer listens.
    """
    command = [sys.executable, "-P", str(Path(guard.__file__)), str(server_pid), str(os.getpid()), str(grace)]
    first = _guard(command)  # now, for a start may fail before a thread has begun
    threading.Thread(target=_keep_guard, args=(first, command, on_stopping), name="guard", daemon=True).start()


def _keep_guard(process: subprocess.Popen[str], command: list[str], on_stopping: Callable[[], object]) -> None:
    """Listen to the guard, and start another if it ends: it must outlive this process."""
    while True:
        for _ in cast(IO[str], process.stdout):
            on_stopping()
        process.wait()
        time.sleep(GUARD_PAUSE_SECONDS)
        process = _guard(command)


def _guard(command: list[str]) -> subprocess.Popen[str]:
    """Start it. A Ctrl-C in a terminal is not for it."""
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, process_group=0)
