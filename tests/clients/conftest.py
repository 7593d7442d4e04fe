"""A gateway for clients that nobody here wrote, before the real model, with a recorder between the two."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from hermes.devserver.server import LocalServer
from tests.support.gateways import Gateway, gateway_before
from tests.support.recording import Recorder, recording
from tests.support.servers import ENGINE_ARGS, LOCAL

CONTEXT = 8192  # tokens: smolagents alone begins with some thousand
HERE = Path(__file__).parent


@dataclass
class Recorded:
    """A gateway, and what it asks the model."""

    gateway: Gateway
    recorder: Recorder


@pytest.fixture(scope="session")
def recorded(small_model):
    engine_args = json.dumps({**ENGINE_ARGS, "max_model_len": CONTEXT})
    with LocalServer(environment={**LOCAL, "HERMES_ENGINE_ARGS": engine_args}) as server:
        server.wait_until_ready(timeout=300)
        with recording(server.url) as recorder, gateway_before(recorder.url) as gateway:
            yield Recorded(gateway, recorder)


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory):
    """npm's clients, and the scripts that use them."""
    folder = tmp_path_factory.mktemp("npm")
    shutil.copy(HERE / "npm" / "package.json", folder)
    command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    for script in (HERE / "scripts").glob("*.js"):
        shutil.copy(script, folder)
    return folder
