"""Clusters as people start them, python -m hermes cluster, and those who ask them."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil
from openai import APIError, OpenAI

from tests.support.gateways import MODEL, Gateway, gateway_of

SLOTS = 32
START_SECONDS = 240  # of two engines at once on two cores that others use, too
REPLICA_SECONDS = 120  # for Ray to start a new replica


@dataclass
class Cluster:
    """A running cluster."""

    gateway: Gateway
    fetched: float | None = None  # how often the bytes of its weights were sent

    @property
    def slots(self):
        """Of the replicas that run."""
        return self.gateway.metric("hermes_gateway_upstream_slots")

    def processes(self, name):
        """Those of the cluster with this in their names, the oldest first."""
        return [each for each in family_of(self.gateway.process.pid) if name in called(each)]

    def engines(self):
        return self.processes("VLLM::EngineCore")

    def replicas(self):
        return self.processes("ray::ServeReplica:hermes:Replica")


def family_of(pid):
    """The processes that a process has started, also through others."""
    return psutil.Process(pid).children(recursive=True)


def called(process):
    """The name that a process gave itself; nothing if it has ended."""
    with suppress(psutil.NoSuchProcess):  # a zombie, too
        return " ".join(process.cmdline())
    return ""


def cluster_of(*options, **environment):
    environment = {"HERMES_PROFILE": "local", "HERMES_SHUTDOWN_GRACE": "1.5", **environment}
    return gateway_of("cluster", *options, environment=environment, seconds=START_SECONDS)


@dataclass
class Told:
    """What a caller was told."""

    pieces: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)  # of the pieces, in s since the request
    problem: str | None = None
    tokens: int = 0

    @property
    def text(self):
        return "".join(self.pieces)


def caller(gateway):
    return OpenAI(base_url=gateway.openai, api_key="none", max_retries=0, timeout=300)


def ask(client, number, tokens):
    """A text of exactly so many tokens, streamed."""
    told, started = Told(), time.monotonic()
    asked = {"seed": number, "max_tokens": tokens, "extra_body": {"min_tokens": tokens}}
    asked["stream_options"] = {"include_usage": True}
    try:
        for chunk in client.completions.create(model=MODEL, prompt=f"Story {number}", stream=True, **asked):
            told.tokens = chunk.usage.completion_tokens if chunk.usage else 0
            if chunk.choices and chunk.choices[0].text:
                told.pieces.append(chunk.choices[0].text)
                told.times.append(time.monotonic() - started)
    except APIError as error:
        told.problem = error.message
    return told


@contextmanager
def callers(gateway, number, tokens):
    """So many callers at once; gives what they will have been told."""
    client = caller(gateway)
    with ThreadPoolExecutor(number) as threads:
        yield [threads.submit(ask, client, each, tokens) for each in range(number)]
    client.close()
