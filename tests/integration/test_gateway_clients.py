"""Each snippet of docs/clients.md, as it is written but for the gateway's address, against the real model.

A snippet that begins with a comment names a client that is not in the lock: `make test-clients` runs it in an
environment that uv makes of the client's newest release then known to work.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from hermes.devserver.server import PROJECT
from tests.support.running import uv

WRITTEN = "http://127.0.0.1:8000"
BLOCKS = re.findall(r"^```(python|js|sh|yaml)\n(.*?)^```$", (PROJECT / "docs/clients.md").read_text(), re.M | re.S)
PYTHON = [code for language, code in BLOCKS if language == "python"]
INSTALLED = [code for code in PYTHON if not code.startswith("# ")]
PINNED = {
    "replicate 2": ["replicate==2.0.0b4"],
    "anthropic": ["anthropic==2.14.0"],
    "langchain-openai": ["langchain-openai==1.7.4"],
    "pydantic-ai": ["pydantic-ai-slim[openai]==2.68.0"],
    "instructor": ["instructor==1.17.0"],
    "litellm": ["litellm==1.110.2"],
}
OTHERS = {code.partition("\n")[0].removeprefix("# "): code for code in PYTHON if code.startswith("# ")}
SAID = {
    "replicate 2": "Paris",
    "anthropic": "Paris",
    "langchain-openai": "get_weather {'city': 'Oslo'}",
    "pydantic-ai": "name=",
    "instructor": "name=",
    "litellm": "Paris",
}


def block(language, containing):
    [code] = [code for each, code in BLOCKS if each == language and containing in code]
    return code


def run(command, gateway, cwd, **environment):
    """What a command printed."""
    environment = {"REPLICATE_API_TOKEN": "none", "REPLICATE_BASE_URL": gateway.url, **environment}
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def script(code, gateway, folder, name="snippet.py"):
    path = folder / name
    path.write_text(code.replace(WRITTEN, gateway.url))
    return path


@pytest.mark.parametrize("code", INSTALLED, ids=["replicate", "openai", "openai, responses"])
def test_python(gateway, tmp_path, code):
    assert "Paris" in run([sys.executable, script(code, gateway, tmp_path)], gateway, tmp_path)


def test_curl(gateway, tmp_path):
    code = block("sh", "curl -s")
    prediction = json.loads(run(["bash", script(code, gateway, tmp_path)], gateway, tmp_path))
    assert "Paris" in "".join(prediction["output"])  # a busy machine gives several tokens in one piece


@pytest.mark.skipif(not shutil.which("npm"), reason="needs node and npm")
def test_javascript(gateway, npm_folder):
    path = script(block("js", "new Replicate"), gateway, npm_folder, "snippet.js")
    assert "Paris" in run(["node", path], gateway, npm_folder)


def test_every_other_client_is_tested():
    assert OTHERS.keys() == PINNED.keys() == SAID.keys()


@pytest.mark.clients
@pytest.mark.parametrize("name", OTHERS)
def test_clients_that_are_not_in_the_lock(gateway, tmp_path, name):
    command = uv(PINNED[name], "python", str(script(OTHERS[name], gateway, tmp_path)))
    versioned = {"REPLICATE_BASE_URL": gateway.openai} if name == "replicate 2" else {}
    assert SAID[name] in run(command, gateway, tmp_path, **versioned)


@pytest.mark.clients
def test_llm(gateway, tmp_path):
    (tmp_path / "extra-openai-models.yaml").write_text(block("yaml", "model_id").replace(WRITTEN, gateway.url))
    path = script(block("sh", "llm -m"), gateway, tmp_path, "snippet.sh")
    assert "Paris" in run(uv(["llm==0.36"], "bash", str(path)), gateway, tmp_path, LLM_USER_PATH=str(tmp_path))
