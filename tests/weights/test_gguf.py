"""Files that are small or cut, and refusals. What takes transformers is in tests/integration/weights."""

import os

import gguf as gguf_package
import numpy as np
import psutil
import pytest
from gguf import GGMLQuantizationType, GGUFWriter

from hermes.errors import WeightsError
from hermes.weights import gguf

TRILLION = 10**12
TENSORS = {"token_embd.weight": np.ones((8, 32), np.float32), "output_norm.weight": np.ones(32, np.float32)}


def write(path, *, architecture="llama", tensors=TENSORS, split=1):
    writer = GGUFWriter(path, architecture)
    writer.add_name("a model")
    writer.add_uint16("split.count", split)
    writer.add_token_list(["a", "b", "c"])
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def tiny(tmp_path):
    return write(tmp_path / "tiny.gguf")


def refusal(call, *arguments):
    with pytest.raises(WeightsError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_header_says_what_the_model_is_and_how_many_weights_it_has(tiny):
    header = gguf.read_header(tiny)
    assert (header.architecture, header.weights, header.largest, header.rope_factor) == ("llama", 288, 256, None)
    assert header.fields["general.name"] == "a model"


def test_a_stretched_context_is_known_by_its_largest_factor(tmp_path):
    factors = {"rope_freqs.weight": np.array([1, 1, 3.5, 8], np.float32)}
    assert gguf.read_header(write(tmp_path / "llama-3.1.gguf", tensors=TENSORS | factors)).rope_factor == 8.0


def test_a_file_cut_short_anywhere_is_refused(tiny):
    whole = tiny.stat().st_size
    assert whole % 32 == 0  # no padding at the end, which would not be missed
    for size in reversed(range(4, whole, 5)):
        os.truncate(tiny, size)
        message = refusal(gguf.read_header, tiny)
        assert f"tiny.gguf': it is cut short or damaged, {size} bytes long (" in message
        assert message.endswith("); fetch it again and compare its size with its origin")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "it can't be opened (No such file or directory); check the path"),
        (b"", "this is not a GGUF file: it begins with b''; name a GGUF file"),
        (b"<html>", "this is not a GGUF file: it begins with b'<htm'; name a GGUF file"),
    ],
)
def test_what_is_no_gguf_file_is_refused(tmp_path, content, problem):
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    assert refusal(gguf.dequantised, path, tmp_path / "model") == f"E1000 WeightsError: weights '{path}': {problem}"


def test_one_part_of_a_model_is_refused(tmp_path):
    part = write(tmp_path / "model-00001-of-00003.gguf", split=3)
    assert "this is one part of 3; merge them into one file, with `llama-gguf-split --merge" in refusal(
        gguf.read_header, part
    )


def test_a_model_that_fits_is_not_refused(tiny):
    gguf.check_room(gguf.read_header(tiny), memory=2 * 288 + 4 * 256, disk=2 * 288)


def test_what_does_not_fit_is_refused_with_the_numbers(tmp_path):
    header = gguf.Header(tmp_path / "70b.gguf", "llama", {}, 70_553_706_496, 1_050_673_152, None)
    message = refusal(gguf.check_room, header, 12_300_000_000, TRILLION)
    assert (
        "its 70.6 billion weights takes 145.3 GB of memory, but only 12.3 GB are free; use a machine with more"
        in message
    )
    message = refusal(gguf.check_room, header, TRILLION, 99_000_000_000)
    assert "takes 141.1 GB of disk, but only 99.0 GB are free" in message


def test_a_giant_is_refused_before_its_weights_are_read(tmp_path):
    giant = tmp_path / "giant.gguf"
    writer = GGUFWriter(giant, "llama")
    shape = (TRILLION // 32, 18)  # bytes of Q4_0
    size = shape[0] * shape[1]
    writer.add_tensor_info("token_embd.weight", shape, np.dtype(np.uint8), size, GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(giant, giant.stat().st_size + size + 32)  # holes take no room
    assert psutil.virtual_memory().total < 2 * TRILLION
    message = refusal(gguf.dequantised, giant, tmp_path / "model")
    assert "de-quantising its 1000.0 billion weights takes 6000.0 GB of memory" in message
    assert list(tmp_path.iterdir()) == [giant]


def test_a_converted_model_is_used_again_without_the_file(tmp_path):
    assert gguf.dequantised(tmp_path / "gone.gguf", tmp_path) == tmp_path


def test_a_conversion_that_breaks_leaves_nothing_behind(tiny, tmp_path, monkeypatch):
    def breaks(header, folder):
        (folder / "half").write_text("a model")
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(gguf, "_convert", breaks)
    message = refusal(gguf.dequantised, tiny, tmp_path / "model")
    assert "it could not be converted (OSError: [Errno 5] Input/output error); serve the model's" in message
    assert list(tmp_path.iterdir()) == [tiny]


def test_the_file_is_read_as_an_array_and_not_as_a_memmap_which_is_slow(tiny, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(gguf, "_convert", lambda header, _: read.append(gguf_package.GGUFReader(str(header.file)).data))
    gguf.dequantised(tiny, tmp_path / "model")
    assert [type(data) for data in read] == [np.ndarray]


def test_two_processes_may_convert_at_once(tiny, tmp_path, monkeypatch):
    def slower_than_another(header, folder):
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text("theirs")
        (folder / "config.json").write_text("ours")

    monkeypatch.setattr(gguf, "_convert", slower_than_another)
    assert (gguf.dequantised(tiny, tmp_path / "model") / "config.json").read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "tiny.gguf"]


def test_another_file_in_its_place_gets_another_folder(tiny):
    name = gguf.folder_name(tiny)
    assert name.startswith("tiny-")
    assert name.endswith("-bfloat16")
    assert gguf.folder_name(tiny) == name
    write(tiny, tensors=TENSORS | {"output.weight": np.ones((8, 32), np.float32)})
    assert gguf.folder_name(tiny) != name
