import logging
import re

import pytest

from hermes.errors import WeightsError
from hermes.settings import Settings
from hermes.weights import Store, Weights, is_converted, resolve, smollm2
from tests.support.fakes import safetensors


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors(100))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_a_local_folder_is_used_in_place(model):
    assert resolve(Settings(), str(model)) == Weights(model)
    assert resolve(Settings(model=model.as_uri())) == Weights(model)


def test_the_log_says_which_profile_serves_what(model, caplog):
    caplog.set_level(logging.INFO, "hermes")
    resolve(Settings(profile="local"), str(model))
    assert caplog.messages == [f"weights: profile local serves {model} from {model}"]


@pytest.mark.parametrize("profile", ["local", "production"])
def test_a_folder_with_weights_that_can_not_be_loaded_is_refused_before_the_engine(model, profile):
    (model / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(
        WeightsError, match=r"model.safetensors is a pointer of git-lfs .* run `git lfs pull` in its clone"
    ):
        resolve(Settings(profile=profile), str(model))
    (model / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="there are no safetensors among its files, and nothing else is loaded"):
        resolve(Settings(profile=profile), str(model))


@pytest.mark.parametrize("left", [[], ["tokenizer_config.json"], ["special_tokens_map.json", "chat_template.jinja"]])
def test_a_model_without_a_tokenizer_is_refused_before_the_engine(model, left):
    (model / "tokenizer.json").unlink()
    for name in left:
        (model / name).write_text("{}")
    with pytest.raises(WeightsError, match=r"there is no tokenizer among its files; add its tokenizer.json"):
        resolve(Settings(), str(model))


def test_a_draft_model_or_another_tokenizer_needs_none(model):
    (model / "tokenizer.json").unlink()
    assert resolve(Settings(speculation=str(model)), str(model), role="guesses with") == Weights(model)
    assert resolve(Settings(engine_args={"tokenizer": "/tokenizer"}), str(model)) == Weights(model)


def test_weights_in_another_format_are_the_engines_to_judge(model):
    (model / "model.safetensors").unlink()
    assert resolve(Settings(engine_args={"load_format": "dummy"}), str(model)) == Weights(model)


def test_a_model_that_is_not_admitted_is_not_served(model):
    def refuse(config):
        raise WeightsError(config.parent, "it is too large", "take a smaller one")

    with pytest.raises(WeightsError, match="it is too large"):
        resolve(Settings(), str(model), refuse)


@pytest.mark.parametrize(
    ("name", "problem"), [("empty", "there is no config.json in it"), ("missing", "there is no such folder")]
)
def test_a_folder_without_a_model_is_refused(tmp_path, name, problem):
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=rf"E1000 WeightsError: weights '.*{name}': {problem}; name the folder"):
        resolve(Settings(), str(tmp_path / name))


def test_who_writes_a_repository_as_a_path_is_told_how():
    with pytest.raises(WeightsError, match="there is no such folder; hf://owner/repo is the repository on the hub"):
        resolve(Settings(model="owner/repo"))


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (
            '{"speculators_config": {"verifier": {"name_or_path": "other/model"}}}',
            "its speculators_config points to other files",
        ),
        (
            '{"configuration_files": ["config.5.0.0.json"]}',
            "its configuration_files points to other files; name a",
        ),
        ("[]x", "config.json is not a JSON object (Extra data"),
        ("3", "config.json is not a JSON object ('int' object is not iterable); fetch it again"),
    ],
)
def test_a_config_that_leads_to_another_model_is_refused(model, config, problem):
    (model / "config.json").write_text(config)
    with pytest.raises(WeightsError, match=rf"model(/config.json)?': {re.escape(problem)}"):
        resolve(Settings(), str(model))


def test_a_gguf_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"missing.gguf': there is no such file"):
        resolve(Settings(profile="local"), str(tmp_path / "missing.gguf"))


def test_a_gguf_file_is_refused_on_gpus_with_the_next_step(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(WeightsError) as caught:
        resolve(Settings(weights_dir=tmp_path / "weights"), str(tmp_path / "model.gguf"))
    assert str(caught.value) == (
        f"E1000 WeightsError: weights '{tmp_path}/model.gguf': a GGUF file is served on the CPU only, but the profile "
        "production serves on GPUs; serve the model's safetensors instead, from its original repository, "
        "or serve this file on a CPU with the image of cog.local.yaml"
    )
    assert not (tmp_path / "weights").exists()


def test_the_local_profile_prepares_the_built_in_model(monkeypatch, model, tmp_path):
    asked = []
    monkeypatch.setattr(smollm2, "prepare", lambda folder: asked.append(folder) or model)
    assert resolve(Settings(profile="local", weights_dir=tmp_path)) == Weights(model)
    assert asked == [tmp_path / "smollm2-135m-instruct"]


def test_the_production_profile_fetches_the_70b(monkeypatch, model):
    asked = []
    monkeypatch.setattr(
        Store, "fetch", lambda _, source: asked.append(str(source)) or Weights(model, 141, 1.0, 2.0, 3.0)
    )
    assert resolve(Settings()).fetched_bytes == 141
    assert asked == ["hf://NousResearch/Hermes-2-Theta-Llama-3-70B@main"]


@pytest.mark.parametrize(
    ("weights", "converted"),
    [
        (None, True),
        ("demo", True),
        ("m.gguf", True),
        ("hf://o/r", False),
        ("https://h/m.tar", False),
        ("folder", False),
    ],
)
def test_a_demo_and_a_gguf_file_are_converted(weights, converted):
    assert is_converted(Settings(profile="local"), weights) == converted
