import json
import os
import tarfile
from pathlib import Path

import pytest

from hermes.errors import InvalidConfiguration, WeightsError
from hermes.weights.folder import files_of
from hermes.weights.hub import list_hub
from hermes.weights.pack import pack, predictor_config
from hermes.weights.remote import RemoteFile
from hermes.weights.source import ArchiveSource, HubSource
from tests.support.faults import Corrupt, NoRange, Reset, Status, Truncate
from tests.support.hub_server import HubServer
from tests.support.tiny_models import MODEL, QUICK, WEIGHTS, files_in, refusal, store_in

CONFIG = predictor_config("{prompt}", {"dtype": "auto"})
WRITTEN = b'{\n  "engine_args": {\n    "dtype": "auto"\n  },\n  "prompt_template": "{prompt}"\n}\n'


@pytest.fixture
def server(monkeypatch):
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.add_repo("org/model", MODEL)
        yield server


@pytest.fixture
def files(server):
    return list_hub(HubSource("org/model"), None).files


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in MODEL.items():
        (folder / name).write_bytes(content)
    return folder


def read_tar(path):
    with tarfile.open(path) as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar]


def left_in(folder):
    return [path.name for path in folder.iterdir() if path.is_file()]


IN_ORDER = [
    ("predictor_config.json", WRITTEN),
    *sorted(MODEL.items(), key=lambda each: (each[0] != "config.json", each)),
]


def test_a_tar_has_the_settings_and_then_the_model(tmp_path, folder):
    packed = pack(files_of(folder), CONFIG, tmp_path / "m.tar", QUICK)
    assert read_tar(tmp_path / "m.tar") == IN_ORDER
    assert [(file.name, file.size) for file in packed] == [(name, len(content)) for name, content in IN_ORDER]
    assert left_in(tmp_path) == ["m.tar"]


def test_the_same_model_gives_the_same_bytes_wherever_it_comes_from(tmp_path, files, folder):
    os.utime(folder / "config.json", (1, 1))
    (folder / "config.json").chmod(0o600)
    pack(files_of(folder), CONFIG, tmp_path / "a.tar", QUICK)
    pack(list(reversed(files)), CONFIG, tmp_path / "b.tar", QUICK)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert (tmp_path / "a.tar").stat().st_size % tarfile.RECORDSIZE == 0


def test_it_streams_from_the_hub_through_faults(tmp_path, server, files):
    for fault in (Status(503), Reset(9000), Truncate(9000), NoRange(), Corrupt(7)):
        server.fail("/cdn/", fault)
    pack(files, CONFIG, tmp_path / "m.tar", QUICK)
    assert read_tar(tmp_path / "m.tar") == IN_ORDER


def test_what_was_packed_can_be_fetched(tmp_path, server, files):
    pack(files, CONFIG, tmp_path / "m.tar", QUICK)
    source = ArchiveSource(server.add_file("/m.tar", tmp_path / "m.tar"))
    store = store_in(tmp_path)
    assert files_in(store.fetch(source).folder) == dict(IN_ORDER)
    pack(store.contents(source), CONFIG, tmp_path / "again.tar", QUICK)
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "m.tar").read_bytes()


SETTINGS = {
    "nothing": ((None, {}), {}),
    "a template": (("{prompt}", {}), {"prompt_template": "{prompt}"}),
    "arguments": (
        (None, {"max_model_len": 1, "dtype": "half"}),
        {"engine_args": {"dtype": "half", "max_model_len": 1}},
    ),
}


def test_what_the_server_would_refuse_is_not_packed():
    with pytest.raises(InvalidConfiguration, match=r"E1202 .*engine_args.trust_remote_code: a weights folder may not"):
        predictor_config(None, {"trust_remote_code": True})


@pytest.mark.parametrize(("given", "expected"), SETTINGS.values(), ids=SETTINGS)
def test_the_settings_are_those_that_are_given(given, expected):
    config = predictor_config(*given)
    written = b"".join(config.read(0))
    assert (json.loads(written), len(written)) == (expected, config.size)


def test_a_long_name_is_kept(tmp_path):
    name = "tokenizer." + "ü" * 120 + ".model"  # 256 bytes
    pack([RemoteFile(name[1:], 2, None, None, lambda _: iter([b"{}"]))], CONFIG, tmp_path / "m.tar", QUICK)
    assert read_tar(tmp_path / "m.tar")[1] == (name[1:], b"{}")


@pytest.mark.parametrize("name", ["a\u200b.json", "a\\b.json", "\x1b.json", "x" * 256, "../a.json"])
def test_what_could_not_be_unpacked_is_not_packed(tmp_path, folder, name):
    stray = RemoteFile(name, 2, None, None, lambda _: iter([b"{}"]))
    message = refusal(pack, [*files_of(folder), stray], CONFIG, tmp_path / "m.tar", QUICK)
    assert f"{name!r} is " in message
    assert left_in(tmp_path) == []


def test_a_wrong_checksum_leaves_nothing(tmp_path, server, files):
    server.fail("/cdn/", Corrupt(7), times=None)
    message = refusal(pack, files, CONFIG, tmp_path / "m.tar", QUICK)
    assert "weights 'model.safetensors': it had the wrong checksum in two downloads: expected SHA-256 c13" in message
    assert left_in(tmp_path) == []


def test_a_fault_that_stays_leaves_nothing_and_what_was_there_before(tmp_path, server, files):
    (tmp_path / "m.tar").write_bytes(b"before")
    server.fail("/cdn/", Status(503), times=None)
    assert "the download failed 3 times in a row (HTTP 503" in refusal(pack, files, CONFIG, tmp_path / "m.tar", QUICK)
    assert (left_in(tmp_path), (tmp_path / "m.tar").read_bytes()) == (["m.tar"], b"before")


def test_a_disk_that_is_full_leaves_nothing(tmp_path, folder):
    (tmp_path / f".m.tar.{os.getpid()}.partial").symlink_to("/dev/full")
    message = refusal(pack, files_of(folder), CONFIG, tmp_path / "m.tar", QUICK)
    assert message.endswith(
        "m.tar': it can't be written (No space left on device); free space there, or choose another path"
    )
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [("folder", "no tar can be written there"), ("none/m.tar", "it can't be written (No such file or directory)")],
)
def test_a_place_that_can_not_be_written_is_said(tmp_path, folder, name, problem):
    assert problem in refusal(pack, files_of(folder), CONFIG, tmp_path / name, QUICK)


def test_ctrl_c_leaves_nothing(tmp_path):
    def interrupted(_):
        yield WEIGHTS[:100]
        raise KeyboardInterrupt

    file = RemoteFile("tokenizer.json", 200, None, None, interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack([file], CONFIG, tmp_path / "m.tar", QUICK)
    assert left_in(tmp_path) == []


def test_what_a_link_leads_to_is_replaced_and_nothing_but_a_file(tmp_path):
    target, link, pipe = tmp_path / "target.tar", tmp_path / "link.tar", tmp_path / "pipe.tar"
    target.write_bytes(b"old")
    link.symlink_to(target)
    os.mkfifo(pipe)
    files = [RemoteFile("config.json", 2, None, None, lambda _: iter([b"{}"]))]
    pack(files, CONFIG, link, QUICK)
    assert link.is_symlink()
    with tarfile.open(target) as tar:
        assert tar.getnames() == ["predictor_config.json", "config.json"]
    for place in (pipe, tmp_path, Path("/dev/stdout"), Path("/dev/null")):
        with pytest.raises(WeightsError, match=r"no tar can be written there; name a file that ends with \.tar"):
            pack(files, CONFIG, place, QUICK)
    assert pipe.is_fifo()
