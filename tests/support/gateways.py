"""Gateways as people start them: python -m hermes gateway, in a process of its own."""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Literal

import httpx
from pydantic import BaseModel

from hermes.devserver.server import PROJECT, free_port

MODEL = "local/model"


class City(BaseModel):
    """What clients ask for who want an object of a class."""

    name: Literal["Oslo", "Rome"]
    capital: bool


@dataclass
class Gateway:
    """A running gateway."""

    url: str
    process: subprocess.Popen
    log: IO[bytes] | None = None

    @property
    def openai(self):
        """The base URL that OpenAI's clients want."""
        return f"{self.url}/v1"

    def get(self, path, **headers):
        return httpx.get(f"{self.url}{path}", headers=headers, timeout=30)

    def post(self, path, body, **headers):
        return httpx.post(f"{self.url}{path}", json=body, headers=headers, timeout=120)

    @property
    def running(self):
        """How many predictions run at its upstreams."""
        return self.metric("hermes_gateway_upstream_running")

    @property
    def said(self):
        """All that is in its log."""
        return os.pread(self.log.fileno(), 2**30, 0).decode(errors="replace")

    def metric(self, name):
        """A number of /metrics, with its labels as Prometheus writes them."""
        lines = self.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def gateway_before(*upstreams, options=(), **more):
    """A gateway that is ready, before these upstreams. See gateway_of for `more`."""
    named = [word for upstream in upstreams for word in ("--upstream", upstream)]
    return gateway_of("gateway", *options, *named, **more)


@contextmanager
def gateway_of(
    *command,
    environment=None,
    seconds=60,
    python=sys.executable,
    cwd=PROJECT,
    program=("hermes",),
    port=None,
    show_log=True,
):
    """The gateway that this command of `python -m hermes` starts, when it is ready."""
    port = port or free_port()
    command = [python, "-m", *program, *command, "--port", str(port)]
    with tempfile.TemporaryFile() as log:  # a pipe that nobody reads would stop it when it is full
        process = subprocess.Popen(command, cwd=cwd, env={**os.environ, **(environment or {})}, stderr=log)
        gateway = Gateway(f"http://127.0.0.1:{port}", process, log)
        try:
            until_ready(gateway, seconds=seconds)
            yield gateway
        finally:
            process.terminate()
            process.wait(timeout=30)
            sys.stderr.write(gateway.said if show_log else "")  # shown with a test that fails


def until_ready(gateway, status=200, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert gateway.process.poll() is None, "the gateway has ended"
        try:
            if gateway.get("/healthz").status_code == status:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"the gateway did not answer {status} within {seconds} s")
