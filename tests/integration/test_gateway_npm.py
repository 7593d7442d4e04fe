"""npm's official client, unmodified, against the gateway and the real model."""

import json
import shutil
import subprocess

import pytest

from tests.support.gateways import MODEL

pytestmark = pytest.mark.skipif(not shutil.which("npm"), reason="needs node and npm")


def test_npms_client_runs_streams_cancels_and_reports(quick_gateway, npm_folder):
    command = ["node", "answers.js", quick_gateway.openai, MODEL]
    done = subprocess.run(command, cwd=npm_folder, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    seen = json.loads(done.stdout)
    assert len(seen["streamed"]) > 60
    assert seen["streamed"] == seen["ran"] == seen["waited"]
    assert seen["atFirst"] == "processing", "the first piece comes before the end"
    assert seen["canceled"] == "canceled"
    assert "E1003 BadPromptTemplate" in seen["failed"]
    assert seen["listed"]
    assert len(seen["version"]) == 64
