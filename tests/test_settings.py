import json
from pathlib import Path

import pytest

from hermes.errors import InvalidConfiguration
from hermes.settings import PROFILES, Settings


def test_the_image_serves_hermes_on_two_gpus_by_default():
    settings = Settings.load()
    assert (settings.profile, settings.source) == ("production", "hf://NousResearch/Hermes-2-Theta-Llama-3-70B")
    assert settings.defaults.cuda_devices == 2
    assert settings.defaults.engine_args["tensor_parallel_size"] == 2


def test_the_small_model_is_served_only_when_asked_for(monkeypatch):
    monkeypatch.setenv("HERMES_PROFILE", "local")
    settings = Settings.load()
    assert (settings.source, settings.defaults.cuda_devices) == ("demo", 0)


def test_the_environment_wins_over_the_file_and_the_file_over_the_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("HERMES_ENGINE_ARGS", '{"dtype": "float32"}')
    config = {"prompt_template": "A {prompt}", "engine_args": {"dtype": "float16", "max_model_len": 512}}
    (tmp_path / "predictor_config.json").write_text(json.dumps(config))
    settings = Settings.load().with_predictor_config(tmp_path)
    assert settings.engine_args == {
        **PROFILES["production"].engine_args,
        "dtype": "float32",
        "max_model_len": 512,
    }
    assert settings.prompt_template == "A {prompt}"
    monkeypatch.setenv("HERMES_PROMPT_TEMPLATE", "B {prompt}")
    assert Settings.load().with_predictor_config(tmp_path).prompt_template == "B {prompt}"


def test_without_a_file_the_profile_decides(tmp_path):
    settings = Settings.load().with_predictor_config(tmp_path)
    assert settings.engine_args == dict(PROFILES["production"].engine_args)
    assert settings.prompt_template is None


def test_every_field_is_a_variable(monkeypatch):
    monkeypatch.setenv("HERMES_MODEL", "hf://me/mine@abc")
    monkeypatch.setenv("HERMES_WEIGHTS_DIR", "elsewhere")
    monkeypatch.setenv("HERMES_WEIGHTS_LOCK", "locked.json")
    monkeypatch.setenv("HERMES_HUB_TOKEN", "hf_secret")
    settings = Settings.load()
    assert (settings.source, settings.weights_dir) == ("hf://me/mine@abc", Path("elsewhere"))
    assert settings.weights_lock == Path("locked.json")
    assert "hf_secret" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("HERMES_PROFIL", "local", "E1202 .*HERMES_PROFIL: there is no such setting; there are .*HERMES_PROFILE"),
        ("HERMES_PROFILE", "laptop", "E1202 .*HERMES_PROFILE: .*'production' or 'local'"),
        ("HERMES_ENGINE_ARGS", "{dtype: 1}", "E1202 .*HERMES_ENGINE_ARGS: this is not a JSON object"),
        ("HERMES_ENGINE_ARGS", "[1]", "E1202 .*HERMES_ENGINE_ARGS: .*dict"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidConfiguration, match=message):
        Settings.load()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "predictor_config.json: this is not a JSON file"),
        ('{"engine_arg": {}}', "predictor_config.json.engine_arg: Extra inputs"),
        ('{"engine_args": 3}', "predictor_config.json.engine_args: "),
        ("[]", "predictor_config.json: "),
    ],
)
def test_a_predictor_config_that_cannot_be_used_is_named(tmp_path, text, message):
    (tmp_path / "predictor_config.json").write_text(text)
    with pytest.raises(InvalidConfiguration, match=message):
        Settings.load().with_predictor_config(tmp_path)
