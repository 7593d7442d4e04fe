"""weights.lock: what exactly each source holds. JSON, meant to be committed and to be in the image.

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

Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


def safe_name(name: str) -> str:
    """A relative path with no way out of its folder, and nothing in it that a terminal would act on.

    Raises:
        ValueError: it is none.
    """
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or not name.isprintable():
        raise ValueError(f"{name!r} is no safe name of a file")
    return str(path)


def _file_name(name: str) -> str:
    if name == "." or safe_name(name) != name:
        raise ValueError(f"{name!r} is not the plain name of a file")
    return name


def _each_once(name_of: Callable[[T], str]) -> AfterValidator:
    def check(things: tuple[T, ...]) -> tuple[T, ...]:
        if twice := [name for name, count in Counter(map(name_of, things)).items() if count > 1]:
            raise ValueError(f"{twice[0]} is there more than once")
        return things

    return AfterValidator(check)


class LockedFile(BaseModel):
    """One file of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(_file_name)]
    size: Annotated[int, Field(ge=0)]  # bytes
    sha256: Sha256


class Lock(BaseModel):
    """What one source holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    commit: str | None  # None for an archive
    files: Annotated[tuple[LockedFile, ...], _each_once(lambda file: file.name)]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 over everything that is locked."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def file(self, name: str) -> LockedFile | None:
        return next((file for file in self.files if file.name == name), None)

    def problem(self, found: LockedFile) -> str | None:
        """How a file differs from the locked one."""
        expected = self.file(found.name)
        if expected == found:
            return None
        return f"{found.name} is not what weights.lock has: expected {_shown(expected)}, found {_shown(found)}"


class LockFile(BaseModel):
    """weights.lock."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    models: Annotated[tuple[Lock, ...], _each_once(lambda lock: lock.source)] = ()

    def model_for(self, source: str) -> Lock | None:
        return next((lock for lock in self.models if lock.source == source), None)


def locked(commit: str | None, source: str, files: list[LockedFile]) -> Lock:
    """A lock, its files in order. Of two with the same name, as a tar may have them, the later is what is there."""
    by_name = {file.name: file for file in files}
    return Lock(source=source, commit=commit, files=tuple(by_name[name] for name in sorted(by_name)))


def read_lock_file(path: Path) -> LockFile:
    """The locks in a file; none when it is not there.

    Raises:
        WeightsError: it can't be read.
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
        raise WeightsError(path, said, "mend it, or delete it to have it made again") from error


def write_lock(path: Path, lock: Lock) -> None:
    """Put a lock into the file, in place of the one for the same source.

    Raises:
        WeightsError, OSError: the file can't be read, or not written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.busy")):
        others = [each for each in read_lock_file(path).models if each.source != lock.source]
        models = sorted([*others, lock], key=lambda each: each.source)
        write_whole(path, LockFile(models=tuple(models)).model_dump(mode="json"))


def write_whole(path: Path, document: object) -> None:
    """Write a JSON document so that a reader sees the old one or the new one, and never half of it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _shown(file: LockedFile | None) -> str:
    return f"{file.size} bytes with SHA-256 {file.sha256}" if file else "no such file"
