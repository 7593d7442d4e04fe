import logging

import pytest

from hermes.errors import WeightsError
from hermes.settings import Settings
from hermes.weights import hub, resolve, smollm2


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_a_local_folder_is_used_in_place(model):
    assert resolve(Settings(), str(model)) == model


def test_the_log_says_which_profile_serves_what(model, caplog):
    caplog.set_level(logging.INFO, "hermes")
    resolve(Settings(profile="local"), str(model))
    assert caplog.messages == [f"weights: profile local serves {model}"]


@pytest.mark.parametrize(
    ("name", "problem"), [("empty", "there is no config.json in it"), ("missing", "there is no such folder")]
)
def test_a_folder_without_a_model_is_refused(tmp_path, name, problem):
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=rf"E1000 WeightsError: weights '.*{name}': {problem}; give COG_WEIGHTS"):
        resolve(Settings(), str(tmp_path / name))


def test_the_local_profile_prepares_the_built_in_model(monkeypatch, model, tmp_path):
    asked = []
    monkeypatch.setattr(smollm2, "prepare", lambda folder: asked.append(folder) or model)
    assert resolve(Settings(profile="local", weights_dir=tmp_path)) == model
    assert asked == [tmp_path / "smollm2-135m-instruct"]


def test_the_production_profile_fetches_the_repository_of_the_settings(monkeypatch, model, tmp_path):
    asked = []
    monkeypatch.setattr(hub, "fetch", lambda *arguments: asked.append(arguments) or model)
    settings = Settings(revision="abc", hub_token="hf_secret", weights_dir=tmp_path)
    assert resolve(settings) == model
    assert asked == [("NousResearch/Hermes-2-Theta-Llama-3-70B", "abc", settings.hub_token, tmp_path)]
