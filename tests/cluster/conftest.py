"""Ray is not in the local environment: tests that need it are marked `cluster` and import it when they run."""

import importlib
import sys
import tarfile
import warnings

import pytest

from hermes.devserver.server import PROJECT
from tests.support.clusters import Cluster, cluster_of
from tests.support.file_server import FileServer

REPLICAS = 2


@pytest.fixture(scope="session")
def ray_installed():
    """Ray, for the process of the tests."""
    sys.path.append(str(PROJECT / ".cluster"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, of pydantic's older ways
        importlib.import_module("ray.serve.schema")


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
