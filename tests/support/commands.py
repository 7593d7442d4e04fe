"""The commands of the tests find these models on a local hub."""

import json

from tests.support.fakes import LLAMA_70B, safetensors

CONFIGS = {"mixtral": json.dumps(LLAMA_70B | {"architectures": ["MixtralForCausalLM"]}), "list": "[]", "cut": '{"a": 1'}
WEIGHTS = safetensors(10_240)
FILES = {"config.json": json.dumps(LLAMA_70B).encode(), "model.safetensors": WEIGHTS, "tokenizer.json": b"{}"}
TOKEN = "hf_aSecretThatOpensIt"
MODEL = "hf://org/model"
