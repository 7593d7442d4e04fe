import pytest

from hermes.errors import WeightsError
from hermes.weights import smollm2


def test_a_prepared_folder_is_used_again(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "PACKAGE", "no-such-package")
    assert smollm2.prepare(tmp_path) == tmp_path


def test_without_its_package_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "PACKAGE", "no-such-package")
    with pytest.raises(WeightsError, match=r"E1000 .*not installed; run `make install`"):
        smollm2.prepare(tmp_path / "model")


def test_a_conversion_that_breaks_leaves_nothing_behind(tmp_path, monkeypatch):
    def breaks(gguf, folder):
        (folder / "half").write_text("a model")
        raise OSError("the disk is full")

    monkeypatch.setattr(smollm2, "_convert", breaks)
    with pytest.raises(OSError, match="full"):
        smollm2.prepare(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_two_processes_may_prepare_at_once(tmp_path, monkeypatch):
    def slower_than_another(gguf, folder):
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text("theirs")
        (folder / "config.json").write_text("ours")

    monkeypatch.setattr(smollm2, "_convert", slower_than_another)
    assert (smollm2.prepare(tmp_path / "model") / "config.json").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
