"""What of a repository is fetched; more of it is in integration/weights/test_hub.py."""

import pytest

from hermes.weights.hub import MAY_HOLD_CODE, choose

MODEL = ["config.json", "model.safetensors", "tokenizer.json"]
CODE = ["modeling_evil.py", "tokenizer.py", "tokenizer.pkl", "tokenizer.bin", "custom_generate/generate.py", "evil.so"]


def test_code_and_pickles_beside_safetensors_are_left():
    assert choose([*MODEL, *CODE, "pytorch_model.bin", "original/model.pt"]) == MODEL


@pytest.mark.parametrize("ending", MAY_HOLD_CODE)
def test_what_may_hold_code_is_refused_also_when_it_is_asked_for(ending):
    name = f"tokenizer{ending}"
    with pytest.raises(ValueError, match=rf"{name} may hold code; only safetensors are loaded"):
        choose([*MODEL, name], ["*"])
