"""An archive of any kind is unpacked. A damaged or dangerous one is refused, and writes nothing outside its folder."""

import gzip
import hashlib
import tarfile
import tracemalloc

import pytest
import zstandard

from hermes.errors import WeightsError
from hermes.weights import archive
from hermes.weights.archive import Unpacking
from hermes.weights.lock import LockedFile, locked
from hermes.weights.progress import Progress
from hermes.weights.source import ArchiveSource
from hermes.weights.staging import Staging
from tests.support.archives import bytes_of, unpack
from tests.support.fakes import safetensors, tensors_header
from tests.support.tiny_models import MODEL, PACKERS, files_in, refusal, tar_of

TAR = tar_of(MODEL)
END = len(TAR.rstrip(b"\0")) // 512 * 512 + 512  # of the last file; the end mark comes next
LOCK = locked(
    None,
    "http://host/model.tar",
    [LockedFile(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in MODEL.items()],
)

LONG = "a" * 70 + "/" + "b" * 120 + ".txt"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("suffix", PACKERS)
def test_an_archive_of_any_kind_is_unpacked(tmp_path, suffix, form):
    files = MODEL if form == tarfile.USTAR_FORMAT else {**MODEL, LONG: b"long", "ü.txt": b"umlaut", "empty.txt": b""}
    assert unpack(tmp_path, PACKERS[suffix](tar_of(files, form)), name=f"model{suffix}") == files


def long_packed(window_log):
    """As `zstd --long=N` writes it from a pipe, without its size."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=window_log, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = packer.compress(tar_of(MODEL)) + packer.flush()
    assert zstandard.get_frame_parameters(packed).window_size == 1 << window_log
    return packed


@pytest.mark.parametrize("window_log", [27, 28, 30, 31])
def test_an_archive_with_a_long_window_is_unpacked(tmp_path, window_log):
    assert unpack(tmp_path, long_packed(window_log), name="model.tar.zst") == MODEL


def test_a_window_that_does_not_fit_is_named_at_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(archive, "WINDOW", 1 << 27)
    said = refusal(unpack, tmp_path, long_packed(30), name="model.tar.zst")
    assert "unpacking it takes more memory than there is, or than 128 MiB (zstd decompress error: Frame" in said
    assert said.endswith("write it again with `zstd --long=27` or without --long")
    assert caplog.messages == []


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


NOT_PLAIN = "its member 'evil' is not a plain file but a link, a device or the like"
UNWANTED = {
    "a way out": (member("../evil"), "its member '../evil' leads out of its folder"),
    "a longer way out": (member("sub/../../evil"), "its member 'sub/../../evil' leads out of its folder"),
    "a folder outside": (member("../evil", tarfile.DIRTYPE), "its member '../evil' leads out of its folder"),
    "a pickle outside": (member("../evil.bin"), "its member '../evil.bin' leads out of its folder"),
    "another place": (member("/tmp/evil"), "its member '/tmp/evil' leads out of its folder"),
    "another system's": (member("..\\evil"), r"its member '..\\evil' leads out of its folder"),
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
    bomb = gzip.compress(tar_of({**MODEL, "model.safetensors": zeros(24 << 20)}), compresslevel=1)
    assert len(bomb) < 1 << 20
    tracemalloc.start()
    unpack_only(tmp_path, bomb)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 << 20


def zeros(size):
    header = tensors_header({"zeros": size})
    return len(header).to_bytes(8, "little") + header + bytes(size)


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


def test_a_disk_that_is_full_is_an_error(tmp_path):
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging/unpacked.jsonl").symlink_to("/dev/full")
    assert f"{tmp_path} can't be written (No space left on device); free space" in refusal(unpack, tmp_path, TAR)


def test_a_file_where_a_folder_should_be_is_an_error(tmp_path):
    assert "can't be written (" in refusal(unpack, tmp_path, tar_of({**MODEL, "config.json/a": b"a"}))
