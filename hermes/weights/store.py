"""The folder where fetched weights are kept: each model whole in a folder of its own, or not there at all.

weights.lock               what each source holds, see lock.py
KEY/                       a whole model, with the marker .complete.json; KEY is made of source and revision
.KEY.STATE.partial/        one on its way, see staging.py; STATE is the commit, or what an archive's host says of it
.KEY.busy                  locked by the process that fetches it
"""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from pydantic import SecretStr

from hermes.errors import WeightsError
from hermes.weights.archive import Unpacking
from hermes.weights.fetch import Fetching
from hermes.weights.folder import files_of
from hermes.weights.http import HttpFile, Session
from hermes.weights.hub import list_hub
from hermes.weights.lock import Lock, LockedFile, locked, read_lock_file, write_lock
from hermes.weights.progress import Progress, duration, shown
from hermes.weights.reader import Download
from hermes.weights.remote import Attempts, Interrupted, Listing, Patience, RemoteFile, steadily
from hermes.weights.source import FetchedSource, HubSource
from hermes.weights.staging import Digests, Staging
from hermes.weights.verify import damaged, locked_in, read_marker, verify, write_marker

logger = logging.getLogger(__name__)

T = TypeVar("T")

FETCH = "run `python -m hermes weights fetch` for it"
LOCK_ANEW = "if the change is meant, run `python -m hermes weights lock` for the source"

Admit = Callable[[Path], None]  # gets config.json before the bulk is fetched; may refuse the model by raising


@dataclass(frozen=True)
class Weights:
    """A model in a folder, and what it took to get it there."""

    folder: Path
    fetched_bytes: int = 0
    plan_seconds: float = 0.0
    download_seconds: float = 0.0
    verify_seconds: float = 0.0  # after the last byte had come; nearly all hashing goes on beside the download


class Store:
    """Fetched weights in one folder."""

    def __init__(
        self,
        folder: Path,
        lock_file: Path,
        *,
        token: SecretStr | None = None,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        admit: Admit = lambda _: None,
    ):
        """Args:
        folder: where models are kept.
        lock_file: weights.lock.
        token: for the hub; None leaves it to huggingface_hub.
        patience: with faults.
        admit: may refuse a model.
        """
        self.folder = folder
        self.lock_file = lock_file
        self._token = token
        self._patience = patience
        self._admit = admit

    def fetch(self, source: FetchedSource) -> Weights:
        """The model of a source, fetched unless it is there already. With the model there, no network is needed.

        Raises:
            WeightsError: it could not be fetched, or is not what weights.lock has.
        """
        lock = read_lock_file(self.lock_file).model_for(str(source))
        weights = self._here(source, lock) or self._fetch_alone(source, lock)
        if lock is None:
            self._remember(weights.folder)
        return weights

    def whole(self, source: FetchedSource, lock: Lock | None) -> Lock | None:
        """What a source holds if it is there, whole, and as locked."""
        folder = self.folder / source.key
        there = read_marker(folder)
        if there and lock and lock.digest != there.digest:
            logger.warning("weights: %s is here in another state than weights.lock has", source)
            return None
        if there and (bad := next(iter(damaged(folder, there)), None)):
            logger.warning("weights: %s is here, but %s in it is not whole", source, bad)
            return None
        return there

    def contents(self, source: FetchedSource) -> list[RemoteFile]:
        """The files of a source: here if it has been fetched, else in its repository.

        Raises:
            WeightsError: it can't be listed.
        """
        lock = read_lock_file(self.lock_file).model_for(str(source))
        if self.whole(source, lock):
            return files_of(self.folder / source.key)
        if isinstance(source, HubSource):
            return list(self._listing(source, lock).files)
        raise WeightsError(source, "what an archive holds is known when it has been fetched", FETCH)

    def lock(self, source: FetchedSource) -> Lock:
        """Write what a source holds now into weights.lock. Of a repository, only the small files are fetched for that.

        Raises:
            WeightsError: it can't be listed or fetched.
        """
        if isinstance(source, HubSource):
            listing = self._listing(source, None)
            new = locked(listing.commit, str(source), [self._locked(source, file) for file in listing.files])
        else:
            new = locked_in((self._here(source, None) or self._fetch_alone(source, None)).folder)
        try:
            write_lock(self.lock_file, new)
        except OSError as error:
            problem = f"it can't be written ({error.strerror or error})"
            raise WeightsError(self.lock_file, problem, "give permission there, or set HERMES_WEIGHTS_LOCK") from error
        return new

    def verify(self, source: FetchedSource) -> list[str]:
        """Read a model that is there and compare each file with weights.lock. Returns what is wrong, a line a file.

        Raises:
            WeightsError: the model is not there.
        """
        folder = self.folder / source.key
        lock = read_lock_file(self.lock_file).model_for(str(source)) or read_marker(folder)
        if lock is None or not folder.is_dir():
            raise WeightsError(source, "it has not been fetched", FETCH)
        return verify(folder, lock)

    def models(self) -> Iterator[tuple[Path, Lock]]:
        """The models that are here, each with its folder."""
        for folder in sorted(self.folder.glob("*/")):
            if lock := read_marker(folder):
                yield folder, lock

    def _here(self, source: FetchedSource, lock: Lock | None) -> Weights | None:
        return Weights(self.folder / source.key) if self.whole(source, lock) else None

    def _fetch_alone(self, source: FetchedSource, lock: Lock | None) -> Weights:
        with self._alone(source):  # another process may have fetched it meanwhile
            return self._here(source, lock) or self._fetch(source, lock)

    def _fetch(self, source: FetchedSource, lock: Lock | None) -> Weights:
        began, progress = time.monotonic(), Progress()
        with Session() as session:
            commit, staging, get = self._plan(source, lock, progress, session)
            planned = time.monotonic()
            with shown(progress, source.key):
                new = locked(commit, str(source), get())
        _require_complete(new, lock)
        self._move_in(self.folder / source.key, staging, new)
        arrived = max(planned, progress.last_arrival)
        logger.info(
            "weights: %s is here, %d files verified; %.1f MB fetched in %s",
            source,
            len(new.files),
            progress.fetched / 1e6,
            duration(arrived - began),
        )
        return Weights(
            self.folder / source.key,
            progress.fetched,
            plan_seconds=planned - began,
            download_seconds=arrived - planned,
            verify_seconds=time.monotonic() - arrived,
        )

    def _plan(
        self, source: FetchedSource, lock: Lock | None, progress: Progress, session: Session
    ) -> tuple[str | None, Staging, Callable[[], list[LockedFile]]]:
        """Ask the host what there is. Returns the commit, where it is to go, and what gets it there."""
        if isinstance(source, HubSource):
            listing = self._listing(source, lock, session)
            staging = self._staging(source, listing.commit, progress)
            return listing.commit, staging, partial(self._fetch_listed, source, listing, staging, session.hang_up)
        file = HttpFile(session, source.url, source)
        ranges = self._patiently(source, file.probe)
        progress.total = file.size
        state = hashlib.sha256(f"{file.version} {file.size}".encode()).hexdigest()
        staging = self._staging(source, state, progress)
        if not (file.version or lock):  # nothing would tell what is here from another archive of the same size
            staging.clear()
        download = Download(file, ranges, source, progress, self._patience)
        return None, staging, Unpacking(source, download.pieces, staging, lock, self._admit).run

    def _listing(self, source: HubSource, lock: Lock | None, session: Session | None = None) -> Listing:
        """What the hub has of a source; with a lock, at its commit and with its checksums."""
        if lock is None:
            return self._patiently(source, partial(list_hub, source, self._token, session=session))
        _require_config(lock)
        pinned = replace(source, revision=lock.commit or source.revision)
        names = [file.name for file in lock.files]
        listing = self._patiently(source, partial(list_hub, pinned, self._token, names, session))
        return replace(listing, files=tuple(_as_locked(file, lock) for file in listing.files))

    def _fetch_listed(
        self, source: HubSource, listing: Listing, staging: Staging, hang_up: Callable[[], None]
    ) -> list[LockedFile]:
        staging.progress.files = len(listing.files)
        staging.progress.total = sum(file.size for file in listing.files)
        staging.require_room(sum(file.size - staging.arrived_bytes(file.name, file.size) for file in listing.files))
        fetching = Fetching(source, staging, self._patience, hang_up)
        config = next(file for file in listing.files if file.name == "config.json")
        found = fetching.one(config)
        self._admit(staging.files / config.name)
        fetching.require_heads(listing.files)
        return [found, *fetching.all([file for file in listing.files if file is not config])]

    def _locked(self, source: HubSource, file: RemoteFile) -> LockedFile:
        """A file of a listing; hashed if the hub does not publish its SHA-256, which it does of all large ones."""
        if file.sha256:
            return LockedFile(name=file.name, size=file.size, sha256=file.sha256)
        attempts = Attempts(source, self._patience)
        return Digests(file.name, file.size).take_in(steadily(file.read, 0, file.size, attempts)).locked

    def _staging(self, source: FetchedSource, state: str, progress: Progress) -> Staging:
        staging = Staging(self.folder / f".{source.key}.{state[:12]}.partial", source, progress)
        with staging.disk_errors():
            for other in self.folder.glob(f".{source.key}.*.partial"):
                if other != staging.folder:
                    shutil.rmtree(other)
            self._take_back(source, state, staging)
            staging.prepare()
        return staging

    def _take_back(self, source: FetchedSource, state: str, staging: Staging) -> None:
        """What was whole once, and lost a file, only needs that file."""
        folder = self.folder / source.key
        there = read_marker(folder)
        if there and there.commit == state and not staging.files.exists():
            staging.folder.mkdir(exist_ok=True)
            os.replace(folder, staging.files)

    def _move_in(self, folder: Path, staging: Staging, lock: Lock) -> None:
        """Make a staged model the model of its source."""
        names = {file.name for file in lock.files}
        with staging.disk_errors():
            for path in list(staging.files.rglob("*")):
                if path.is_file() and path.relative_to(staging.files).as_posix() not in names:
                    path.unlink()
            write_marker(staging.files, lock)
            if folder.exists():
                os.replace(folder, staging.folder / "old")
                shutil.rmtree(staging.folder / "old")  # first: a process that is killed here leaves no second model
            os.replace(staging.files, folder)
            shutil.rmtree(staging.folder)

    @contextmanager
    def _alone(self, source: FetchedSource) -> Iterator[None]:
        """Only one process at a time fetches a source."""
        busy = FileLock(self.folder / f".{source.key}.busy")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            busy.acquire(blocking=False)
        except Timeout:
            logger.info("weights: another process is fetching %s; waiting for it", source)
            busy.acquire()
        except OSError as error:
            problem = f"{self.folder} can't be written ({error.strerror or error})"
            raise WeightsError(source, problem, "give permission there, or set HERMES_WEIGHTS_DIR") from error
        try:
            yield
        finally:
            busy.release()

    def _remember(self, folder: Path) -> None:
        """Lock what was fetched for the first time."""
        try:
            write_lock(self.lock_file, locked_in(folder))
        except OSError as error:
            logger.warning("weights: %s can't be written (%s); the next fetch is not held to it", self.lock_file, error)

    def _patiently(self, source: FetchedSource, ask: Callable[[], T]) -> T:
        attempts = Attempts(source, self._patience)
        while True:
            try:
                return ask()
            except Interrupted as fault:
                attempts.failed(fault)


def _as_locked(file: RemoteFile, lock: Lock) -> RemoteFile:
    """A listed file with the checksum that it has to have."""
    expected = next(each for each in lock.files if each.name == file.name)
    if problem := lock.problem(
        expected.model_copy(update={"size": file.size, "sha256": file.sha256 or expected.sha256})
    ):
        raise WeightsError(lock.source, problem, LOCK_ANEW)
    return replace(file, sha256=expected.sha256)


def _require_config(lock: Lock) -> None:
    """Raises WeightsError unless it is of a model."""
    if lock.file("config.json") is None:
        raise WeightsError(lock.source, "there is no config.json at its top", "give a model, or mend weights.lock")


def _require_complete(found: Lock, lock: Lock | None) -> None:
    """Raises WeightsError unless it is a model, and as locked."""
    _require_config(found)
    for file in lock.files if lock else ():
        if found.file(file.name) is None:
            raise WeightsError(found.source, f"{file.name} is not in it, which weights.lock has", LOCK_ANEW)
    if problem := lock and next(filter(None, map(lock.problem, found.files)), None):
        raise WeightsError(found.source, problem, LOCK_ANEW)
