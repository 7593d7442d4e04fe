"""A weights folder full of traps: whatever it holds, nothing of it is run."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hermes.client.cog import stream_prediction
from hermes.devserver.server import LocalServer
from tests.support.asking import refusal
from tests.support.servers import LOCAL

CODE = "from pathlib import Path\nPath({canary!r}).touch()\n\n\nclass Evil:\n    pass\n"
AUTO_MAP = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM"), "evil.Evil")
ENDLESS = "{% for _ in range(99999) %}" * 4 + "{% endfor %}" * 4  # as a template: whoever renders it is busy for years


class Pickle:
    """What touches a file when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


@pytest.fixture
def canary(tmp_path):
    return tmp_path / "canary"


@pytest.fixture
def trapped(tiny_model, tmp_path, canary):
    """The tiny model, with a trap in every place that may hold code."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    for name in ("evil.py", "config.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(CODE.format(canary=str(canary)))
    for name in ("pytorch_model.bin", "consolidated.00.pth", "model.pt", "tokenizer.pkl"):
        (folder / name).write_bytes(pickle.dumps(Pickle(canary)))
    change(folder / "config.json", auto_map=AUTO_MAP)
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    change(folder / "generation_config.json", custom_generate="custom_generate", trust_remote_code=True)
    (folder / "chat_template.jinja").write_text(ENDLESS)
    return folder


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_traps_do_spring(trapped, canary):
    for code in (
        f"exec(open({str(trapped / 'evil.py')!r}).read())",
        "import pickle, sys; pickle.load(sys.stdin.buffer)",
    ):
        with (trapped / "pytorch_model.bin").open("rb") as pickled:
            subprocess.run([sys.executable, "-c", code], stdin=pickled, check=True, timeout=30)
        canary.unlink()


def test_a_model_among_traps_is_served_and_no_trap_springs(trapped, canary):
    with LocalServer(environment={**LOCAL, "COG_WEIGHTS": str(trapped)}) as server:
        server.wait_until_ready(timeout=300)
        *_, (_, completed) = stream_prediction(server.url, {"prompt": "Hi", "max_tokens": 5, "seed": 1})
        log = "\n".join(server.log)
    assert (completed["status"], completed["metrics"]["output_token_count"]) == ("succeeded", 5)
    assert "trust_remote_code=False" in log
    assert "load_format=safetensors" in log
    assert not canary.exists()


def test_a_model_that_is_only_a_pickle_is_refused_and_not_unpickled(trapped, canary):
    (trapped / "model.safetensors").unlink()
    error, _, _, _ = refusal({"COG_WEIGHTS": str(trapped)})
    assert error.startswith("E1000 WeightsError: ")
    assert "there are no safetensors among its files, and nothing else is loaded" in error
    assert not canary.exists()


def test_a_model_that_needs_its_own_code_is_refused(trapped, canary):
    change(trapped / "config.json", model_type="evil", architectures=["Evil"])
    error, _, _, _ = refusal({"COG_WEIGHTS": str(trapped)})
    assert error.startswith(("E1200 EngineStartFailed: ", "E1202 InvalidConfiguration: engine_args: "))
    assert not canary.exists()


def test_a_folder_can_not_ask_for_its_code_to_be_trusted(trapped, canary):
    (trapped / "predictor_config.json").write_text(json.dumps({"engine_args": {"trust_remote_code": True}}))
    error, _, _, _ = refusal({"COG_WEIGHTS": str(trapped)})
    assert error.startswith(
        "E1202 InvalidConfiguration: predictor_config.json.engine_args.trust_remote_code: a weights folder may not set"
    )
    assert not canary.exists()
