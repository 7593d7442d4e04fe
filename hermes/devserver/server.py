"""Cog's own HTTP server on this machine, without Docker: the one in every Cog image.

It is `python -m cog.server.http` with what an image has around it: the OpenAPI document on disk, and the predictor's
name and number of slots in the environment. This Python must be first on PATH: coglet starts its worker by name.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, cast

import httpx
import psutil

from hermes.client.cog import READY
from hermes.devserver.openapi import Json
from hermes.devserver.predictor import PredictorSource
from hermes.errors import find_error
from hermes.serving.guard import is_alive, kill, wait_for_end
from hermes.serving.malloc import MALLOC

# coglet 0.23.1 takes a slot with try_lock, so two requests that arrive at the same moment on two threads can get a 409
# with slots free. On one thread they cannot meet; cog.yaml sets the same for the image.
COGLET_ENVIRONMENT = {"TOKIO_WORKER_THREADS": "1", **MALLOC}

PROJECT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 15.0
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - to listen on it is the user's choice

STARTING = {"UNKNOWN", "STARTING"}  # of the states in /health-check, as READY

OnLog = Callable[[str], None]


class ServerFailed(Exception):
    """The server could not get ready."""


class LocalServer:
    """A Cog server in its own process, from `start` to `stop`. As a context manager it does both."""

    def __init__(
        self,
        folder: Path = PROJECT,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        on_log: OnLog | None = None,
    ):
        """Prepare a server. `start` starts it.

        Args:
            folder: where predict.py is.
            host: the address to listen on.
            port: None takes a free one.
            environment: added to this process's environment. If it has PATH, `python3` there must be this Python.
            on_log: gets each message of the server's log, in another thread.
        """
        self.folder = folder
        self.host = host
        self.port = port or free_port()
        self.log: deque[str] = deque(maxlen=10_000)  # the messages so far
        self._environment = dict(environment or {})
        self._on_log = on_log
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._family: set[psutil.Process] = set()
        self._http = httpx.Client(timeout=30, trust_env=False)

    @property
    def url(self) -> str:
        """The address for clients on this machine."""
        return f"http://{'127.0.0.1' if self.host == EVERY_ADDRESS else self.host}:{self.port}"

    def start(self) -> None:
        """Start the server. It is not ready yet."""
        source = PredictorSource(self.folder / "predict.py")
        source.write_openapi()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cog.server.http", "--host", self.host],
            cwd=self.folder,
            env=self._full_environment(source.max_concurrency()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for us; we stop the server in order
        )
        log = cast(IO[str], self._process.stderr)
        self._reader = threading.Thread(target=self._read_log, args=(log,), daemon=True)
        self._reader.start()

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Return when the server takes predictions.

        Raises ServerFailed if setup() failed, the server ended, or `timeout` seconds went by.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (health := self.health())["status"] not in READY:
            if health["status"] not in STARTING:
                raise ServerFailed(self._why_it_failed(health))
            if deadline and time.monotonic() > deadline:
                raise ServerFailed(
                    f"the server was not ready after {timeout:.0f} s; its last words: {self._last_words()}"
                )
            time.sleep(0.25)

    def health(self) -> Json:
        """The body of /health-check. The status is STARTING before the server listens, and STOPPED after its end."""
        if self._process is None or self.exit_status is not None:
            return {"status": "STOPPED"}
        try:
            answer: Json = self._http.get(f"{self.url}/health-check").json()
        except httpx.TransportError:
            answer = {"status": "STARTING"}
        self.processes()
        return answer

    @property
    def exit_status(self) -> int | None:
        """The exit status of the server: None while it runs, -N if signal N ended it."""
        return self._process.poll() if self._process else None

    def processes(self) -> list[psutil.Process]:
        """The server and all its descendants that are still alive."""
        if self._process:
            try:
                server = psutil.Process(self._process.pid)
                self._family.update([server, *server.children(recursive=True)])
            except psutil.NoSuchProcess:
                pass  # it has ended; those it started are known from before
        return [each for each in self._family if is_alive(each)]

    def stop(self) -> None:
        """End the server and its descendants: in order if possible, by force after 15 s."""
        if self._process is None:
            return
        family = self.processes()
        self._process.terminate()
        alive = wait_for_end(family, STOP_SECONDS)
        kill(alive)
        wait_for_end(alive, STOP_SECONDS)
        self._process.wait()
        self._http.close()
        if self._reader and self._reader.is_alive():
            self._reader.join(timeout=5)

    def __enter__(self) -> "LocalServer":
        try:
            self.start()
        except BaseException:  # a Ctrl-C comes at any moment
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _full_environment(self, slots: int) -> dict[str, str]:
        return {
            "COG_MAX_CONCURRENCY": str(slots),
            **os.environ,
            **COGLET_ENVIRONMENT,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            **self._environment,
            "PORT": str(self.port),
            "COG_PREDICT_TYPE_STUB": "predict.py:Predictor",
        }

    def _read_log(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                message = _message(line)
                self.log.append(message)
                if self._on_log:
                    self._on_log(message)

    def _why_it_failed(self, health: Json) -> str:
        setup_log = health.get("setup", {}).get("logs", "")
        return find_error(setup_log) or f"the server did not get ready; its last words: {self._last_words()}"

    def _last_words(self) -> str:
        return " | ".join(list(self.log)[-5:])


def free_port() -> int:
    """A TCP port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _message(line: str) -> str:
    """The message in a line of coglet's log, which is JSON; the line itself if it is from elsewhere."""
    try:
        return str(json.loads(line)["fields"]["message"])
    except (ValueError, KeyError, TypeError):
        return line.rstrip("\n")
