"""Ray is not in the local environment: tests that need it are marked `cluster` and import it when they run."""

import importlib
import sys
import tarfile
import warnings
from contextlib import suppress
from dataclasses import dataclass

import psutil
import pytest

from hermes.devserver.server import PROJECT
from tests.support.file_server import FileServer
from tests.support.gateways import Gateway, gateway_of

REPLICAS, SLOTS = 2, 32
START_SECONDS = 240  # of two engines at once on two cores that others use, too


@pytest.fixture(scope="session")
def ray_installed():
    """Ray, for the process of the tests."""
    sys.path.append(str(PROJECT / ".cluster"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, of pydantic's older ways
        importlib.import_module("ray.serve.schema")


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


@pytest.fixture(scope="module")
def cluster(small_model, tmp_path_factory):
    """Two replicas of SmolLM2, on weights that each node has to fetch."""
    folder = tmp_path_factory.mktemp("cluster")
    with tarfile.open(folder / "model.tar", "w") as tar:
        for path in sorted(small_model.iterdir()):
            tar.add(path, path.name)
    with FileServer() as files:
        environment = {
            "HERMES_MODEL": files.add_file("/model.tar", folder / "model.tar"),
            "HERMES_WEIGHTS_DIR": str(folder / "weights"),
            "HERMES_WEIGHTS_LOCK": str(folder / "weights.lock"),
        }
        with cluster_of("--replicas", str(REPLICAS), **environment) as gateway:
            yield Cluster(gateway, fetched=files.bytes_sent / (folder / "model.tar").stat().st_size)
