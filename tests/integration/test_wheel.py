"""What `pip install .` gives a client: the package, few dependencies, and answers from a server."""

import json
import subprocess
import sys

import pytest

from hermes.devserver import PROJECT
from tests.support.asking import QUESTION

pytestmark = pytest.mark.xdist_group("hostile")  # the shorter of the two queues for a server

ASK = """
import json, sys
import hermes
from hermes import CogServer

response = CogServer(sys.argv[1]).ask({"prompt": sys.argv[2], "temperature": 0, "seed": 1})
print(json.dumps({"file": hermes.__file__, "text": response.text, "finish_reason": response.finish_reason}))
"""
A_SERVERS = {"cog", "jsonschema", "tokenizers", "torch", "transformers", "typer", "vllm"}


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_installs_by_itself_and_its_client_asks_the_server(server, tmp_path):
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, PROJECT, cwd=PROJECT)
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "empty", cwd=tmp_path)
    python = tmp_path / "empty" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)

    installed = {each["name"] for each in json.loads(run(python, "-m", "pip", "list", "--format=json", cwd=tmp_path))}
    assert installed >= {"hermes-cog", "httpx", "pydantic", "docstring_parser"}
    assert not installed & A_SERVERS
    assert [*(tmp_path / "empty" / "lib").glob("*/site-packages/hermes/py.typed")], "its types are for its clients, too"
    answer = json.loads(run(python, "-c", ASK, server.url, QUESTION, cwd=tmp_path))
    assert answer.pop("file").startswith(str(tmp_path)), "not the installed package"
    assert answer == {"text": "The capital of France is Paris.", "finish_reason": "stop"}
