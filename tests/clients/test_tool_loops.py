"""Loops of two turns with a tool, of clients that nobody here wrote, streamed and not, against the real model.

Each script forces one call, sends its result, and prints the answer. What the gateway asks the model is checked: the
second prediction has to begin with all of the first, whether the client sent it again or named what is kept.
"""

import json
import os
import re
import shutil
import subprocess
from itertools import pairwise

import pytest

from tests.clients.conftest import HERE
from tests.support.running import uv

pytestmark = pytest.mark.clients
CALL = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.S)
PYTHON = {
    "openai_chat": ["openai==3.57.0"],
    "openai_responses": ["openai==3.57.0"],
    "openai_agents": ["openai-agents==0.24.0"],
    "langchain_models": ["langchain-openai==1.7.4"],
    "haystack_generators": ["haystack-ai==3.4.1"],
    "llama_index_tools": ["llama-index-llms-openai-like==0.8.1"],
    "semantic_kernel_loop": ["semantic-kernel==1.45.0"],
    "anthropic_messages": ["anthropic==2.14.0"],
}
SMOLAGENTS = ["smolagents[openai]==1.26.0"]
APIS = {
    "openai_responses": ["kept", "stateless"],
    "openai_agents": ["chat", "responses"],
    "langchain_models": ["chat", "responses"],
    "haystack_generators": ["chat", "responses"],
    "ai_sdk": ["kept", "stateless", "chat"],
}
NODE = ["openai_chat", "openai_responses", "ai_sdk", "langchain_models", "anthropic_messages"]


def loops(names):
    """Each name with each of its client's APIs, streamed and not."""
    return [
        pytest.param(name, [mode, api], id=" ".join([name, mode, api]).strip())
        for name in names
        for api in APIS.get(name, [""])
        for mode in ("whole", "stream")
    ]


def run(recorded, command, folder):
    """What a loop printed, and the predictions that it led to."""
    recorded.recorder.taken()
    environment = {**os.environ, "OPENAI_API_KEY": "none", "OTEL_SDK_DISABLED": "true"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), recorded.recorder.taken()


def assert_goes_on(earlier, later):
    """The later prediction has all turns of the earlier one, then what it wrote, then the results of its calls."""
    before, turns = earlier.inputs["messages"], later.inputs["messages"]
    written = [json.loads(call) for call in CALL.findall(earlier.said)]
    assert turns[: len(before)] == before
    answer, *more = turns[len(before) :]
    calls = answer.get("tool_calls", [])
    assert answer["role"] == "assistant"
    assert [function_of(call) for call in calls] == written
    assert (answer["content"] or "").strip() == CALL.sub("", earlier.said).strip()
    results, asked = more[: len(calls)], more[len(calls) :]
    assert [result["tool_call_id"] for result in results] == [call["id"] for call in calls]
    assert all((result["role"], result["content"]) == ("tool", "It rains.") for result in results)
    assert [turn["role"] for turn in asked] == ["user"] * (not calls)


def function_of(call):
    """A call as the model wrote it."""
    arguments = call["function"]["arguments"]
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    return {"name": call["function"]["name"], "arguments": arguments}


def check(said, predictions):
    """The last prediction but one is a call, and what the client printed is the last one's text."""
    for earlier, later in pairwise(predictions):
        assert_goes_on(earlier, later)
    assert CALL.search(predictions[-2].said)
    if not CALL.search(predictions[-1].said):
        assert said == predictions[-1].said.strip()


@pytest.mark.parametrize(("name", "options"), loops(PYTHON))
def test_python(recorded, tmp_path, name, options):
    command = uv(PYTHON[name], "python", str(HERE / "scripts" / f"{name}.py"), recorded.gateway.openai, *options)
    check(*run(recorded, command, tmp_path))


@pytest.mark.skipif(not shutil.which("npm"), reason="needs node and npm")
@pytest.mark.parametrize(("name", "options"), loops(NODE))
def test_javascript(recorded, node_folder, name, options):
    check(*run(recorded, ["node", f"{name}.js", recorded.gateway.openai, *options], node_folder))


@pytest.mark.parametrize("mode", ["whole", "stream"])
def test_smolagents(recorded, tmp_path, mode):
    """It sends calls as texts, and forces one in each turn."""
    script = str(HERE / "scripts" / "smolagents_loop.py")
    _, [first, second, *_] = run(recorded, uv(SMOLAGENTS, "python", script, recorded.gateway.openai, mode), tmp_path)
    before, sent = first.inputs["messages"], second.inputs["messages"]
    assert sent[: len(before)] == before
    told = json.dumps(sent[len(before) :])
    assert all(json.loads(call)["name"] in told for call in CALL.findall(first.said))
