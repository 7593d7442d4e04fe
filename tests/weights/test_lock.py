"""weights.lock: what it refuses, and that nothing in it is lost."""

import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from hermes.devserver.server import PROJECT
from hermes.errors import WeightsError
from hermes.weights.lock import Lock, LockedFile, LockFile, locked, read_lock_file, safe_name, write_lock, write_whole

DIGEST = "0123456789abcdef" * 4
CONFIG = LockedFile(name="config.json", size=8, sha256=DIGEST)
MODEL = LockedFile(name="model.safetensors", size=100, sha256=DIGEST[::-1])
COMMIT = "c" * 40


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.lock"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("config.json", "config.json"),
        ("sub/folder/a b.json", "sub/folder/a b.json"),
        ("a//b", "a/b"),
        ("./a/./b/", "a/b"),
        (".", "."),
        ("...", "..."),
        ("a..b", "a..b"),
        ("~", "~"),
        ("CON", "CON"),
        ("模型 é.json", "模型 é.json"),
    ],
)
def test_a_name_that_stays_in_its_folder_is_safe(name, safe, tmp_path):
    assert safe_name(name) == safe
    assert (tmp_path / safe).resolve().is_relative_to(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="nothing"),
        "/etc/passwd",
        "//etc/passwd",
        "..",
        "../a",
        "a/..",
        "a/../../b",
        "..\\a",
        "C:\\a",
        "a\\..\\b",
        pytest.param("a\0b", id="a null byte"),
        pytest.param("a\nb", id="a line break"),
        pytest.param("a\x1b[2J", id="an escape sequence"),
        pytest.param("a\u202egnp.json", id="text from right to left"),
        pytest.param("a\u200bb", id="a space without width"),
        pytest.param("a\u00a0b", id="a space that does not break"),
        pytest.param("a\udcff", id="half a character"),
    ],
)
def test_a_name_that_leads_out_or_deceives_the_eye_is_refused(name):
    with pytest.raises(ValueError, match=r"^'.*' is not a safe file name$") as raised:
        safe_name(name)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("name", ["x" * 256, "ü" * 128, "sub/" + "x" * 251 + ".json", "x" * 300 + "/a.json"])
def test_a_name_that_no_disk_takes_is_refused(name):
    assert safe_name(f"{'x' * 255}/{'ü' * 127}.")
    with pytest.raises(ValueError, match=r"^'.*' is too long for a file name$"):
        safe_name(name)


@pytest.mark.parametrize("name", [".", "a//b", "./a", "a/", "a/./b"])
def test_in_a_lock_a_file_has_one_name_only(name):
    with pytest.raises(ValidationError, match="is not a plain file name"):
        LockedFile(name=name, size=1, sha256=DIGEST)


def test_what_is_written_is_documented_and_read_again(path):
    lock = locked(COMMIT, "hf://owner/repo@main", [MODEL, CONFIG])
    write_lock(path, lock)
    assert json.loads(path.read_text()) == {
        "version": 1,
        "models": [
            {
                "source": "hf://owner/repo@main",
                "commit": COMMIT,
                "files": [
                    {"name": "config.json", "size": 8, "sha256": DIGEST},
                    {"name": "model.safetensors", "size": 100, "sha256": DIGEST[::-1]},
                ],
            }
        ],
    }
    assert read_lock_file(path) == LockFile(models=(lock,))
    assert lock.size == 108


def test_a_lock_replaces_the_one_of_the_same_source_and_no_other(path):
    for lock in (locked(None, "b", [CONFIG]), locked(None, "a", [CONFIG]), locked(COMMIT, "b", [MODEL])):
        write_lock(path, lock)
    found = read_lock_file(path)
    assert found.models == (locked(None, "a", [CONFIG]), locked(COMMIT, "b", [MODEL]))
    assert (found.model_for("b"), found.model_for("c")) == (found.models[1], None)


def test_the_file_is_the_same_however_the_locks_came_into_it(path):
    locks = [locked(None, name, [CONFIG, MODEL]) for name in "abc"]
    for lock in locks:
        write_lock(path, lock)
    written = path.read_bytes()
    path.unlink()
    for lock in reversed(locks):
        write_lock(path, lock)
    assert path.read_bytes() == written


def test_of_two_files_with_one_name_the_later_counts():
    later = CONFIG.model_copy(update={"size": 9})
    assert locked(None, "s", [CONFIG, MODEL, later]).files == (later, MODEL)


def test_any_change_changes_the_digest():
    lock = locked(COMMIT, "s", [CONFIG, MODEL])
    others = [
        locked(None, "s", [CONFIG, MODEL]),
        locked(COMMIT, "t", [CONFIG, MODEL]),
        locked(COMMIT, "s", [CONFIG]),
        locked(COMMIT, "s", [CONFIG.model_copy(update={"size": 9}), MODEL]),
        locked(COMMIT, "s", [CONFIG.model_copy(update={"sha256": "0" * 64}), MODEL]),
    ]
    assert len({each.digest for each in [lock, *others]}) == 6
    assert locked(COMMIT, "s", [MODEL, CONFIG]).digest == lock.digest


def test_a_file_that_differs_is_named_with_what_was_expected_and_found():
    lock = Lock(source="s", commit=None, files=(CONFIG,))
    start = "is not what weights.lock has: expected"
    cut = CONFIG.model_copy(update={"size": 7})
    assert lock.problem(CONFIG) is None
    assert lock.problem(cut) == (
        f"config.json {start} 8 bytes with SHA-256 {DIGEST}, found 7 bytes with SHA-256 {DIGEST}"
    )
    assert lock.problem(MODEL) == (
        f"model.safetensors {start} no such file, found 100 bytes with SHA-256 {DIGEST[::-1]}"
    )


def test_no_file_is_no_lock(path):
    assert read_lock_file(path) == LockFile()


def with_files(*files):
    return {"models": [{"source": "s", "commit": None, "files": list(files)}]}


FILE = {"name": "a", "size": 1, "sha256": DIGEST}
BAD_LOCKS = {
    "empty": ("", "Invalid JSON: EOF while parsing a value at line 1 column 0"),
    "cut": ('{"version": 1, "models": [{"sour', "Invalid JSON: EOF while parsing a string at line 1 column 32"),
    "with a conflict": ("<<<<<<< HEAD\n{}", "Invalid JSON: expected value at line 1 column 1"),
    "a list": ("[]", "Input should be an object"),
    "of another version": ({"version": 2, "locks": {}}, "version: Input should be 1"),
    "with an unknown key": ({"model": []}, "model: Extra inputs are not permitted"),
    "without a commit": ({"models": [{"source": "s", "files": []}]}, "models.0.commit: Field required"),
    "name leads out": (with_files(FILE | {"name": "../x"}), "models.0.files.0.name: Value error, '../x' is not a safe"),
    "negative size": (with_files(FILE | {"size": -1}), "models.0.files.0.size: Input should be greater than or equal"),
    "digest cut": (with_files(FILE | {"sha256": DIGEST[1:]}), "models.0.files.0.sha256: String should match pattern"),
    "file twice": (with_files(FILE, FILE | {"size": 2}), "models.0.files: Value error, a occurs more than once"),
    "model twice": ({"models": with_files()["models"] * 2}, "models: Value error, s occurs more than once"),
}


@pytest.mark.parametrize(("text", "problem"), BAD_LOCKS.values(), ids=BAD_LOCKS)
def test_a_lock_file_that_cannot_be_used_says_where_and_is_left_alone(path, text, problem):
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    before = path.read_bytes()
    for use in (read_lock_file, lambda path: write_lock(path, locked(None, "s", [CONFIG]))):
        with pytest.raises(WeightsError) as raised:
            use(path)
        message = str(raised.value)
        assert message.startswith(f"E1000 WeightsError: weights '{path}': {problem}")
        assert message.endswith("; correct it, or delete it; the next fetch writes a new one")
    assert path.read_bytes() == before


def test_what_is_no_file_cannot_be_read(tmp_path):
    with pytest.raises(WeightsError, match=r"it can't be read \(Is a directory\)"):
        read_lock_file(tmp_path)


def test_what_cannot_be_put_in_place_leaves_nothing_behind(path):
    path.mkdir()
    with pytest.raises(OSError):
        write_whole(path, {})
    assert list(path.parent.iterdir()) == [path]


def test_processes_that_write_at_once_lose_nothing(path):
    code = (
        "import sys; from pathlib import Path; from hermes.weights.lock import locked, write_lock\n"
        "for number in range(20): write_lock(Path(sys.argv[1]), locked(None, f'{sys.argv[2]}-{number}', []))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, path, name], cwd=PROJECT) for name in "abc"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    expected = sorted(f"{name}-{number}" for name in "abc" for number in range(20))
    assert [lock.source for lock in read_lock_file(path).models] == expected
