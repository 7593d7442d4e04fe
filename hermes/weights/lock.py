"""weights.lock: the exact files of each source, as JSON. Commit it and put it into the image.

    {"version": 1, "models": [{"source": "hf://owner/repo@main", "commit": "40 hex digits, or null for an archive",
                               "files": [{"name": "config.json", "size": 654, "sha256": "64 hex digits"}]}]}

Sizes are in bytes; files and models are in the order of their names.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, TypeVar

from filelock import FileLock
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from hermes.errors import WeightsError

T = TypeVar("T")

LONGEST_NAME = 255  # bytes of one part of a path, on most disks

Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


def safe_name(name: str) -> str:
    """The plain form of a relative path. The path does not leave its folder and has no control characters.

    Raises ValueError if the path is absolute, leaves its folder, is not printable, or is too long for a disk.
    """
    path = PurePosixPath(name)
    if not name or leads_out(name) or "\\" in name or not name.isprintable():
        raise ValueError(f"{name!r} is not a safe file name")
    if any(len(part.encode()) > LONGEST_NAME for part in path.parts):
        raise ValueError(f"{name!r} is too long for a file name")
    return str(path)


def leads_out(name: str) -> bool:
    """Whether a path is absolute or leaves its folder, on any system."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts


def _file_name(name: str) -> str:
    if name == "." or safe_name(name) != name:
        raise ValueError(f"{name!r} is not a plain file name")
    return name


def _each_once(name_of: Callable[[T], str]) -> AfterValidator:
    def check(things: tuple[T, ...]) -> tuple[T, ...]:
        if twice := [name for name, count in Counter(map(name_of, things)).items() if count > 1]:
            raise ValueError(f"{twice[0]} occurs more than once")
        return things

    return AfterValidator(check)


class LockedFile(BaseModel):
    """Name, size and checksum of one file of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(_file_name)]
    size: Annotated[int, Field(ge=0)]  # bytes
    sha256: Sha256


class Lock(BaseModel):
    """The exact files of one source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    commit: str | None  # None for an archive
    files: Annotated[tuple[LockedFile, ...], _each_once(lambda file: file.name)]

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 of the whole lock, in hexadecimal."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def file(self, name: str) -> LockedFile | None:
        """The file of this name; None if the lock does not have it."""
        return next((file for file in self.files if file.name == name), None)

    def problem(self, found: LockedFile) -> str | None:
        """How `found` differs from the locked file of its name; None if it does not."""
        expected = self.file(found.name)
        if expected == found:
            return None
        return f"{found.name} is not what weights.lock has: expected {_shown(expected)}, found {_shown(found)}"


class LockFile(BaseModel):
    """The content of weights.lock."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    models: Annotated[tuple[Lock, ...], _each_once(lambda lock: lock.source)] = ()

    def model_for(self, source: str) -> Lock | None:
        """The lock of a source; None if there is none."""
        return next((lock for lock in self.models if lock.source == source), None)


def locked(commit: str | None, source: str, files: list[LockedFile]) -> Lock:
    """A lock with its files in order. Of two files with one name, as a tar may have, the later one counts."""
    by_name = {file.name: file for file in files}
    return Lock(source=source, commit=commit, files=tuple(by_name[name] for name in sorted(by_name)))


def read_lock_file(path: Path) -> LockFile:
    """The locks in a file. A missing file holds no locks.

    Raises WeightsError if the file cannot be read, or is not a valid weights.lock.
    """
    try:
        return LockFile.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return LockFile()
    except OSError as error:
        raise WeightsError(path, f"it can't be read ({error.strerror})", "check the file's permissions") from error
    except ValidationError as error:
        problem = error.errors()[0]
        said = ": ".join(filter(None, (".".join(map(str, problem["loc"])), problem["msg"])))
        raise WeightsError(path, said, "correct it, or delete it; the next fetch writes a new one") from error


def write_lock(path: Path, lock: Lock) -> None:
    """Write a lock into the file. It replaces the lock of the same source.

    Raises:
        WeightsError: the file cannot be read, or is not a valid weights.lock.
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.busy")):
        others = [each for each in read_lock_file(path).models if each.source != lock.source]
        models = sorted([*others, lock], key=lambda each: each.source)
        write_whole(path, LockFile(models=tuple(models)).model_dump(mode="json"))


def write_whole(path: Path, document: object) -> None:
    """Write a JSON document. A reader sees the old document or the new one, never a part. Raises OSError."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _shown(file: LockedFile | None) -> str:
    return f"{file.size} bytes with SHA-256 {file.sha256}" if file else "no such file"
