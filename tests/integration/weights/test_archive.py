import gzip
import hashlib
import re
import subprocess
import tarfile
import tracemalloc

import pytest

from hermes.errors import WeightsError
from hermes.weights import http, reader
from hermes.weights.archive import Unpacking
from hermes.weights.lock import LockedFile, locked
from hermes.weights.progress import Progress
from hermes.weights.source import ArchiveSource
from hermes.weights.staging import Staging
from tests.support.fakes import safetensors
from tests.support.faults import Corrupt, Reset, Status
from tests.support.file_server import FileServer
from tests.support.tiny_models import MODEL, PACKERS, files_in, refusal, store_in, tar_of

TAR = tar_of(MODEL)
END = len(TAR.rstrip(b"\0")) // 512 * 512 + 512  # of the last file; the end mark comes next
LOCK = locked(
    None,
    "http://host/model.tar",
    [LockedFile(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in MODEL.items()],
)


def bytes_of(*archives):
    """Gives the bytes of an archive from an offset on; of the next one when it is asked anew, and the last for ever."""
    rest = list(archives)

    def pieces_from(offset):
        data = rest.pop(0) if len(rest) > 1 else rest[0]
        while piece := data[offset : offset + 7000]:
            yield piece
            offset += len(piece)

    return pieces_from


def unpack(folder, *archives, name="model.tar", lock=None, admit=lambda config: None):
    """Unpack an archive, and see what is in the folder."""
    staging = Staging(folder / "staging", "the archive", Progress(total=len(archives[0])))
    staging.prepare()
    found = Unpacking(ArchiveSource(f"http://host/{name}"), bytes_of(*archives), staging, lock, admit).run()
    assert {file.name: file.size for file in found} == {key: len(data) for key, data in files_in(staging.files).items()}
    return files_in(staging.files)


LONG = "a" * 70 + "/" + "b" * 120 + ".txt"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("suffix", PACKERS)
def test_an_archive_of_any_kind_is_unpacked(tmp_path, suffix, form):
    files = MODEL if form == tarfile.USTAR_FORMAT else {**MODEL, LONG: b"long", "ü.txt": b"umlaut", "empty.txt": b""}
    assert unpack(tmp_path, PACKERS[suffix](tar_of(files, form)), name=f"model{suffix}") == files


def test_folders_in_it_are_as_tar_writes_them(tmp_path):
    folder = tarfile.TarInfo("./sub/")
    folder.type = tarfile.DIRTYPE
    files = {"./": folder, "./sub/": folder, **{f"./{name}": data for name, data in MODEL.items()}, "./sub/a.txt": b"a"}
    assert unpack(tmp_path, tar_of(files)) == {**MODEL, "sub/a.txt": b"a"}


def test_the_mark_of_a_folder_of_ours_is_left_out(tmp_path):
    assert unpack(tmp_path, tar_of({"./.complete.json": b"{}", **MODEL})) == MODEL


def member(name, kind=tarfile.REGTYPE, **values):
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in values.items():
        setattr(info, key, value)
    return info


SHARD_1, SHARD_2, SHARD_3 = (safetensors(2_000 + n, n) for n in range(3))
INDEX = b'{"weight_map": {"a": "model-00000-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"}}'
SHARDED = {  # numbered from zero
    "config.json": b"{}",
    "model-00000-of-00002.safetensors": SHARD_1,
    "model-00001-of-00002.safetensors": SHARD_2,
    "model.safetensors.index.json": INDEX,
}
STRAY = {"model-00002-of-00002.safetensors": SHARD_3}
LEFT_OUT = {
    "the original weights, before": ({"original/model.safetensors": b"x", **MODEL}, MODEL),
    "the original weights, after": ({**MODEL, "original/consolidated.00.safetensors": b"x"}, MODEL),
    "pickles": (
        {"pytorch_model.bin": b"x", **MODEL, "optimizer.pt": b"x", "original/consolidated.00.pth": b"x"},
        MODEL,
    ),
    "code": ({**MODEL, "modeling_evil.py": b"x"}, MODEL),
    "a stray shard behind the index": ({**SHARDED, **STRAY}, SHARDED),
    "a stray shard before the index": ({**STRAY, **SHARDED}, SHARDED),
    "the whole beside its shards": ({**SHARDED, "model.safetensors": SHARD_3}, SHARDED),
}


@pytest.mark.parametrize(("packed", "model"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_would_not_be_fetched_of_a_repository_is_left_out(server, store, packed, model):
    source = ArchiveSource(server.add_file("/model.tar", tar_of(packed)))
    folder = store.fetch(source).folder
    assert files_in(folder) == model
    (folder / "config.json").unlink()
    assert files_in(store.fetch(source).folder) == model, "also when it is held to the lock"


PARTS = {
    "no weights": ({"config.json": b"{}"}, "there are no safetensors among its files, and nothing else is loaded"),
    "only pickles": ({"config.json": b"{}", "pytorch_model.bin": b"x"}, "there are no safetensors among its files"),
    "a shard is missing": (
        {name: data for name, data in SHARDED.items() if "00001" not in name},
        "its model.safetensors.index.json names model-00001-of-00002.safetensors, which is not there",
    ),
    "an index of another model": (
        {"config.json": b"{}", "model.safetensors": SHARD_1, "model.safetensors.index.json": INDEX},
        "its model.safetensors.index.json names model-00000-of-00002.safetensors and 1 more, which is not there",
    ),
    "shards without an index": ({"config.json": b"{}", **STRAY}, "there are 1 of 2 shards of its safetensors, and no"),
    "an index that is none": (
        {**SHARDED, "model.safetensors.index.json": b"[]"},
        "its model.safetensors.index.json is no",
    ),
    "a model in a folder": (
        {f"model/{name}": data for name, data in MODEL.items()},
        "the model is in its folder 'model'; pack it again",
    ),
    "a model in a folder, its config last": (
        {f"a/b/{name}": MODEL[name] for name in reversed(MODEL)},
        "the model is in its folder 'a/b'; pack it again",
    ),
    "a pointer of git-lfs": (
        {"config.json": b"{}", "model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"},
        "model.safetensors is a pointer of git-lfs and not the file itself; run `git lfs pull` in its clone",
    ),
    "a page for a model": (
        {"config.json": b"{}", "model.safetensors": b"<!DOCTYPE html>" * 9},
        "model.safetensors does not begin as safetensors do; fetch it again from its origin",
    ),
    "an empty model": ({"config.json": b"{}", "model.safetensors": b""}, "model.safetensors does not begin as"),
}


@pytest.mark.parametrize(("packed", "problem"), PARTS.values(), ids=PARTS)
def test_what_could_not_be_loaded_is_refused(tmp_path, packed, problem):
    assert f": {problem}" in refusal(unpack, tmp_path, tar_of(packed))


def test_what_is_in_the_wrong_place_or_no_weights_is_refused_before_the_bulk(server, store):
    bulk = safetensors(40 << 20)
    for name in ("model/a.safetensors", "a.safetensors"):
        broken = bulk if "/" in name else bytes(len(bulk))
        folder = name.rpartition("a.")[0]
        source = ArchiveSource(server.add_file("/model.tar", tar_of({f"{folder}config.json": b"{}", name: broken})))
        server.clear()
        refusal(store.fetch, source)
        assert server.bytes_sent < len(bulk) / 2


def test_the_advice_makes_an_archive_that_can_be_unpacked(tmp_path):
    """As in the hub's own cache, where the files of a model are links to blobs; and with holes."""
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    folder.mkdir()
    for number, (name, data) in enumerate(MODEL.items()):
        (blobs / str(number)).write_bytes(data)
        (folder / name).symlink_to(blobs / str(number))
    (folder / "again.json").hardlink_to(blobs / "0")
    (folder / "twice.json").hardlink_to(blobs / "0")
    with (folder / "holes.txt").open("wb") as file:
        file.truncate(1 << 20)
    model = {
        **MODEL,
        "again.json": MODEL["config.json"],
        "twice.json": MODEL["config.json"],
        "holes.txt": bytes(1 << 20),
    }
    archive = tmp_path / "model.tar"
    subprocess.run(["tar", "-S", "-C", str(folder), "-cf", str(archive), "."], check=True)
    message = refusal(unpack, tmp_path / "1", archive.read_bytes())
    advised = re.search(r"`(tar [^`]+)`", message)[1].replace("FOLDER", str(folder)).replace("model.tar", str(archive))
    subprocess.run(advised.split(), check=True)
    assert unpack(tmp_path / "2", archive.read_bytes()) == model


NOT_PLAIN = "its member 'evil' is not a plain file but a link, a device or the like"
UNWANTED = {
    "a way out": (member("../evil"), "'../evil' is not a safe file name"),
    "a longer way out": (member("sub/../../evil"), "'sub/../../evil' is not a safe file name"),
    "a folder outside": (member("../evil", tarfile.DIRTYPE), "'../evil' is not a safe file name"),
    "another place": (member("/tmp/evil"), "'/tmp/evil' is not a safe file name"),
    "another system's": (member("..\\evil"), r"'..\\evil' is not a safe file name"),
    "what a terminal would act on": (member("\x1b[2J.txt"), r"'\x1b[2J.txt' is not a safe file name"),
    "no name": (member(""), "'' is not a safe file name"),
    "a symbolic link": (member("evil", tarfile.SYMTYPE, linkname="/etc"), NOT_PLAIN),
    "a hard link": (member("evil", tarfile.LNKTYPE, linkname="/etc/passwd"), NOT_PLAIN),
    "a device": (member("evil", tarfile.CHRTYPE, devmajor=1), NOT_PLAIN),
    "a disk": (member("evil", tarfile.BLKTYPE, devmajor=8), NOT_PLAIN),
    "a pipe": (member("evil", tarfile.FIFOTYPE), NOT_PLAIN),
    "holes": (member("evil", tarfile.GNUTYPE_SPARSE), NOT_PLAIN),
    "holes as PAX has them": (
        member("evil", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "1"}),
        NOT_PLAIN,
    ),
    "an unknown kind": (member("evil", b"Z"), NOT_PLAIN),
    "a file twice": (member("config.json"), "it holds 'config.json' twice"),
}


@pytest.mark.parametrize(("unwanted", "problem"), UNWANTED.values(), ids=UNWANTED)
def test_what_no_model_has_is_refused_and_nothing_is_written_outside(tmp_path, unwanted, problem):
    message = refusal(unpack, tmp_path / "in", tar_of({**MODEL, "unwanted": unwanted}))
    assert message.startswith(f"E1000 WeightsError: weights 'http://host/model.tar': {problem}")
    assert "; pack it again, with `python -m hermes weights pack` or `tar " in message
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert sorted(files_in(tmp_path / "in/staging/files")) == sorted(MODEL)


@pytest.mark.parametrize("size", [*range(0, END, 700), END - 1, END, END + 511])
def test_an_archive_cut_short_anywhere_is_refused(tmp_path, size):
    assert "the archive was damaged in two downloads (" in refusal(unpack, tmp_path, TAR[:size])


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.zst"])
def test_a_compressed_archive_cut_short_anywhere_is_refused(tmp_path, suffix):
    data = PACKERS[suffix](TAR)
    for size in (0, 1, 9, 10, len(data) // 2, len(data) - 9, len(data) - 5):
        assert "was damaged in two downloads" in refusal(unpack, tmp_path, data[:size], name=f"model{suffix}")


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.zst"])
def test_a_compressed_archive_with_another_byte_anywhere_is_refused(tmp_path, suffix):
    data = PACKERS[suffix](TAR)
    for at in (0, len(data) // 2, len(data) - 2):
        other = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
        assert "was damaged in two downloads" in refusal(unpack, tmp_path, other, name=f"model{suffix}")


def header(size=b"00000000000", kind=b"0", name=b"a"):
    """A header that tarfile would not write."""
    block = bytearray(
        name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size.ljust(12, b"\0") + b"0" * 11 + b"\0"
    )
    block += b" " * 8 + kind + bytes(100) + b"ustar\x0000" + bytes(247)
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


MINUS_512 = b"\xff" * 10 + b"\xfe\x00"
DAMAGED = {
    "nothing": b"",
    "a page": b"<!DOCTYPE html><html><body>Please log in.</body></html>\n" * 20,
    "no end mark": TAR[:END] + b"\1" * 1024,
    "something after the end mark": TAR + TAR,
    "a header of nothing in the middle": TAR[:1024] + bytes(512) + TAR[1536:],
    "a size below nothing": header(MINUS_512) + bytes(1024),
    "a long name of a size below nothing": header(MINUS_512, b"L") + bytes(1024),
    "a PAX header of a size below nothing": header(MINUS_512, b"x") + bytes(1024),
    "a long name of 8 GB": header(b"77777777777", b"L") + bytes(1024),
    "PAX headers within each other for ever": header(kind=b"x") * 2000,
    "a PAX header that makes no sense": tar_of({"a": member("a", pax_headers={"GNU.sparse.map": "soon"})}),
    "PAX holes that never end": tar_of(
        {"a": member("a", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})}
    ),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_what_makes_no_sense_is_refused(tmp_path, data):
    assert "the archive was damaged in two downloads (" in refusal(unpack, tmp_path, data)


def test_an_archive_with_another_byte_is_never_an_error_of_python(tmp_path):
    archive = tar_of({LONG: b"{}", "config.json": b"{}"})[:5120]
    for at in range(0, len(archive), 41):
        data = bytearray(archive)
        data[at] ^= 0xFF
        try:
            unpack(tmp_path / str(at), bytes(data))
        except WeightsError:
            continue


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_damaged_archive_is_fetched_once_more(tmp_path, suffix, caplog):
    good = PACKERS[suffix](TAR)
    assert unpack(tmp_path, good[: len(good) // 2], good, name=f"model{suffix}") == MODEL
    assert caplog.messages[0].startswith(f"weights: http://host/model{suffix} is damaged (")


def test_a_bomb_takes_no_more_memory_than_its_pieces(tmp_path):
    bomb = gzip.compress(tar_of({**MODEL, "model.safetensors": safetensors(100) + bytes(24 << 20)}), compresslevel=1)
    assert len(bomb) < 1 << 20
    tracemalloc.start()
    unpack_only(tmp_path, bomb)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 << 20


def unpack_only(folder, data):
    staging = Staging(folder, "the archive", Progress())
    staging.prepare()
    Unpacking(ArchiveSource("http://host/model.tar.gz"), bytes_of(data), staging, None, lambda config: None).run()


def test_what_is_locked_is_unpacked(tmp_path):
    assert unpack(tmp_path, TAR, lock=LOCK) == MODEL


def test_a_file_that_is_not_as_locked_is_fetched_once_more(tmp_path):
    assert (
        unpack(tmp_path, tar_of({**MODEL, "model.safetensors": safetensors(30_000, seed=9)}), TAR, lock=LOCK) == MODEL
    )


def test_a_file_that_is_not_locked_is_refused(tmp_path):
    message = refusal(unpack, tmp_path, tar_of({**MODEL, "more.txt": b""}), lock=LOCK)
    assert "it holds 'more.txt', but weights.lock does not have it" in message


def test_the_config_is_admitted_before_what_comes_after_it(tmp_path):
    seen = []
    unpack(tmp_path, TAR, admit=lambda config: seen.append((config.read_bytes(), sorted(files_in(config.parent)))))
    assert seen == [(MODEL["config.json"], ["config.json"])]


def test_the_config_of_an_interrupted_archive_is_admitted_again(server, tmp_path):
    source = ArchiveSource(server.add_file("/model.tar", TAR))
    cut_off(server, 20_000)
    refusal(store_in(tmp_path).fetch, source)
    server.clear()
    seen = []
    store_in(tmp_path, admit=lambda config: seen.append(config.read_bytes())).fetch(source)
    assert seen == [MODEL["config.json"]]


def test_a_disk_that_is_full_is_an_error(tmp_path):
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging/unpacked.jsonl").symlink_to("/dev/full")
    assert f"{tmp_path} can't be written (No space left on device); make room" in refusal(unpack, tmp_path, TAR)


def test_a_file_where_a_folder_should_be_is_an_error(tmp_path):
    assert "can't be written (" in refusal(unpack, tmp_path, tar_of({**MODEL, "config.json/a": b"a"}))


@pytest.fixture
def server():
    with FileServer() as server:
        yield server


@pytest.fixture
def store(tmp_path):
    return store_in(tmp_path)


def cut_off(server, after):
    """The archive comes to that byte, and no further; its first byte is asked for once more, and alone."""

    def strike():
        server.fail("/model.tar", Status(404))
        server._server.hang_up()

    server.clear()
    server.on_bytes(1 + after, strike)


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("suffix", PACKERS)
def test_an_archive_comes_from_any_host(server, store, suffix, ranges):
    data = PACKERS[suffix](TAR)
    source = ArchiveSource(server.add_file(f"/model{suffix}", data, ranges=ranges))
    assert files_in(store.fetch(source).folder) == MODEL
    assert len(data) <= server.bytes_sent <= len(data) * (1 + (not ranges)) + 1


@pytest.mark.parametrize("after", [100, 5000, 20_000, 31_744, END])
def test_an_interrupted_archive_goes_on_in_the_middle_of_a_file(server, store, monkeypatch, after):
    for name, value in {"SKIPPED": 600, "LITTLE": 600}.items():
        monkeypatch.setattr(reader, name, value)
    monkeypatch.setattr(http, "PIECE", 1000)
    source = ArchiveSource(server.add_file("/model.tar", TAR))
    cut_off(server, after)
    assert "there is nothing (HTTP 404 Not Found)" in refusal(store.fetch, source)
    found = store.fetch(source)
    assert files_in(found.folder) == MODEL
    assert found.fetched_bytes <= len(TAR) - after + 3000  # a header before it, and what comes with that


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_without_ranges_or_in_a_compressed_archive_all_of_it_is_fetched_again(server, store, suffix):
    source = ArchiveSource(server.add_file(f"/model{suffix}", data := PACKERS[suffix](TAR), ranges=False))
    server.fail("/model.tar", Reset(20_000), times=2)
    server.fail("/model.tar", Status(404))
    refusal(store.fetch, source)
    server.clear()
    assert files_in(store.fetch(source).folder) == MODEL
    assert len(data) <= server.bytes_sent <= 2 * len(data)


def test_an_archive_that_changes_on_the_way_is_not_mixed(server, store):
    source = ArchiveSource(server.add_file("/model.tar", TAR))
    new = {**MODEL, "model.safetensors": safetensors(30_000, seed=9)}
    server.fail("/model.tar", Reset(20_000), skip=1)  # the first byte is asked for alone
    server.on_bytes(20_001, lambda: server.add_file("/model.tar", tar_of(new)))
    assert "it changed during the download; start again" in refusal(store.fetch, source)
    assert files_in(store.fetch(source).folder) == new
    assert list(store.folder.glob(".*.partial")) == []


class Plain(FileServer):
    """Says nothing of what a file was when."""

    def reply_to(self, call):
        reply = super().reply_to(call)
        reply.headers.pop("ETag", None)
        return reply


def test_what_can_not_be_told_from_another_archive_is_not_gone_on_with(store):
    with Plain() as server:
        source = ArchiveSource(server.add_file("/model.tar", TAR))
        cut_off(server, 20_000)
        refusal(store.fetch, source)
        new = {**MODEL, "model.safetensors": safetensors(30_000, seed=9)}
        server.add_file("/model.tar", tar_of(new))
        assert files_in(store.fetch(source).folder) == new


def test_a_corrupt_byte_in_a_locked_archive_costs_one_file(server, store):
    source = ArchiveSource(server.add_file("/model.tar", TAR))
    folder = store.fetch(source).folder
    (folder / "config.json").unlink()
    server.clear()
    server.fail("/model.tar", Corrupt(at=9000))
    assert files_in(store.fetch(source).folder) == MODEL


def test_no_model_is_no_model(server, store):
    source = ArchiveSource(server.add_file("/model.tar", tar_of({"a.txt": b"a"})))
    assert "there is no config.json at its top; pack it again" in refusal(store.fetch, source)
    assert not (store.folder / source.key).exists()
