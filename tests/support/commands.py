"""The models that the commands find on a local hub, and what misuse of a command is."""

import json

from tests.support.fakes import LLAMA_70B, safetensors

CONFIGS = {"mixtral": json.dumps(LLAMA_70B | {"architectures": ["MixtralForCausalLM"]}), "list": "[]", "cut": '{"a": 1'}
WEIGHTS = safetensors(10_240)
FILES = {"config.json": json.dumps(LLAMA_70B).encode(), "model.safetensors": WEIGHTS, "tokenizer.json": b"{}"}
TOKEN = "hf_aSecretThatOpensIt"
MODEL = "hf://org/model"


def assert_misuse(run, arguments, line):
    """The command ends with 2, prints nothing, and says in one line what is wrong."""
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert line in err
