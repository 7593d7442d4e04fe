"""Checks whether the folder of a model is whole: quickly by its marker and sizes, or by reading every byte."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from hermes.errors import WeightsError
from hermes.weights.lock import Lock, LockedFile, write_whole
from hermes.weights.progress import Progress, shown
from hermes.weights.staging import MARKER, Digests, pieces_of


class Marker(BaseModel):
    """The content of .complete.json: the lock that a whole folder was checked with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str  # of the lock
    lock: Lock


def write_marker(folder: Path, lock: Lock) -> None:
    """Mark a folder as whole. Raises OSError."""
    write_whole(folder / MARKER, Marker(digest=lock.digest, lock=lock).model_dump(mode="json"))


def read_marker(folder: Path) -> Lock | None:
    """The lock in the marker of a folder; None without a valid marker."""
    try:
        marker = Marker.model_validate_json((folder / MARKER).read_bytes())
    except (OSError, ValidationError):
        return None
    return marker.lock if marker.digest == marker.lock.digest else None


def locked_in(folder: Path) -> Lock:
    """The lock in the marker of a folder that is marked as whole.

    Raises WeightsError if the marker is no longer there.
    """
    if lock := read_marker(folder):
        return lock
    raise WeightsError(folder, "another process removed it", "let nothing else write there, and start again")


def damaged(folder: Path, lock: Lock) -> Iterator[str]:
    """The names of the files that are missing or have another size."""
    for file in lock.files:
        path = folder / file.name
        if not path.is_file() or path.stat().st_size != file.size:
            yield file.name


def verify(folder: Path, lock: Lock) -> list[str]:
    """Read a model and compare each file with its lock. Returns one line for each wrong file."""
    progress = Progress(total=lock.size, files=len(lock.files))
    with shown(progress, "verifying"), ThreadPoolExecutor(os.cpu_count()) as threads:
        problems = threads.map(partial(_problem, folder, lock, progress), lock.files)
        return [problem for problem in problems if problem]


def _problem(folder: Path, lock: Lock, progress: Progress, file: LockedFile) -> str | None:
    path = folder / file.name
    if not path.is_file():
        return f"{file.name} is not there"
    digests = Digests(file.name, path.stat().st_size)
    try:
        for piece in pieces_of(path):
            digests.update(piece)
            progress.arrived(len(piece))
    except OSError as error:
        return f"{file.name} can't be read ({error.strerror or error})"
    progress.finished_file()
    return lock.problem(digests.locked)
