"""A test of this folder has a hub with one model, an archive of it, and an empty store."""

import pytest

from hermes.weights.source import ArchiveSource
from tests.support.hub_server import HubServer
from tests.support.tiny_models import MODEL, store_in, tar_of


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A hub with one model, for huggingface_hub and hf_xet."""
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))  # of hf_xet's logs
        server.add_repo("org/model", MODEL, tags=("v1",))
        yield server


@pytest.fixture
def store(tmp_path):
    return store_in(tmp_path)


@pytest.fixture
def archive(server):
    return ArchiveSource(server.add_file("/model.tar", tar_of(MODEL)))
