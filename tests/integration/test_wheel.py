"""What `pip install .` gives a client: the package, few dependencies, and answers from a server."""

import json
import subprocess
import sys

import pytest

from hermes.devserver import PROJECT
from tests.support.asking import QUESTION
from tests.support.gateways import gateway_of

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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, PROJECT, cwd=PROJECT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def environment_with(what, folder):
    """The Python of a new environment, and the names of all packages that pip put there."""
    run(sys.executable, "-m", "venv", folder / "empty", cwd=folder)
    python = folder / "empty" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", what, cwd=folder)
    return python, {each["name"] for each in json.loads(run(python, "-m", "pip", "list", "--format=json", cwd=folder))}


def test_the_wheel_installs_by_itself_and_its_client_asks_the_server(server, wheel, tmp_path):
    python, installed = environment_with(wheel, tmp_path)
    assert installed >= {"hermes-cog", "httpx", "pydantic", "docstring_parser"}
    assert not installed & A_SERVERS
    assert [*(tmp_path / "empty" / "lib").glob("*/site-packages/hermes/py.typed")], "its types are for its clients, too"
    answer = json.loads(run(python, "-c", ASK, server.url, QUESTION, cwd=tmp_path))
    assert answer.pop("file").startswith(str(tmp_path)), "not the installed package"
    assert answer == {"text": "The capital of France is Paris.", "finish_reason": "stop"}


@pytest.mark.long
def test_the_wheel_with_its_gateway_serves_all_three_of_its_faces(server, wheel, tmp_path):
    """tests/gateway/test_installed.py is the smaller sibling."""
    python, installed = environment_with(f"{wheel}[gateway]", tmp_path)
    assert not installed & (A_SERVERS - {"jsonschema", "typer"} | {"pydantic-settings", "ray"})
    named = ("gateway", "--upstream", server.url)
    with gateway_of(*named, python=python, cwd=tmp_path) as gateway:
        inputs = {"prompt": QUESTION, "temperature": 0}
        replicate = gateway.post("/v1/models/local/model/predictions", {"input": inputs}, Prefer="wait").json()
        openai = gateway.post("/v1/responses", {"model": "local/model", "input": QUESTION, "temperature": 0}).json()
        page = gateway.get("/").text
    assert (
        "".join(replicate["output"]) == openai["output"][0]["content"][0]["text"] == "The capital of France is Paris."
    )
    assert "<html" in page
