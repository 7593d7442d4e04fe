"""Plans the fetch of one source: which files its host has, which staging folder takes them, what fetches them."""

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import SecretStr

from hermes.errors import WeightsError
from hermes.weights.archive import Unpacking
from hermes.weights.fetch import Fetching
from hermes.weights.http import HttpFile, Session
from hermes.weights.hub import list_hub
from hermes.weights.lock import Lock, LockedFile
from hermes.weights.progress import Progress
from hermes.weights.reader import Download
from hermes.weights.remote import Attempts, Interrupted, Listing, Patience, RemoteFile, steadily
from hermes.weights.source import ArchiveSource, FetchedSource, HubSource
from hermes.weights.staging import Digests, Staging
from hermes.weights.verify import read_marker

T = TypeVar("T")

LOCK_ANEW = "if the change is meant, run `python -m hermes weights lock` for the source"

Admit = Callable[[Path], None]  # gets the path of config.json before the large files come; raises to refuse the model

AdmitFiles = Callable[[FetchedSource, Sequence[str]], None]  # gets the names of the files; raises to refuse the model


@dataclass(frozen=True)
class Plan:
    """How one source comes here."""

    commit: str | None  # None for an archive
    staging: Staging
    fetch: Callable[[], list[LockedFile]]  # raises WeightsError


@dataclass(frozen=True)
class Planner:
    """Asks the hosts of sources and plans fetches into one folder."""

    folder: Path  # holds the models and their staging folders
    token: SecretStr | None  # for the hub; with None, huggingface_hub looks for one
    patience: Patience  # limits the attempts at each request
    admit: Admit
    admit_files: AdmitFiles

    def plan(self, source: FetchedSource, lock: Lock | None, progress: Progress, session: Session) -> Plan:
        """Ask the host of a source what it has, and prepare the staging folder.

        Raises WeightsError if the host refuses or fails, its files are not the locked ones, or the disk fails.
        """
        if isinstance(source, HubSource):
            listing = self.listing(source, lock, session)
            staging = self._staging(source, listing.commit, progress)
            fetch = partial(self._fetch_listed, source, listing, staging, session.hang_up)
            return Plan(listing.commit, staging, fetch)
        return self._plan_archive(source, lock, progress, session)

    def listing(self, source: HubSource, lock: Lock | None, session: Session | None = None) -> Listing:
        """The files of a repository. A lock sets their commit, names and checksums.

        Raises WeightsError if the hub refuses or fails, or its files are not the locked ones.
        """
        if lock is None:
            return self._patiently(source, partial(list_hub, source, self.token, session=session))
        require_config(lock)
        pinned = replace(source, revision=lock.commit or source.revision)
        names = [file.name for file in lock.files]
        listing = self._patiently(source, partial(list_hub, pinned, self.token, names, session))
        return replace(listing, files=tuple(_as_locked(file, lock) for file in listing.files))

    def locked(self, source: HubSource, file: RemoteFile) -> LockedFile:
        """A listed file with its SHA-256. The hub publishes that of large files; a small file is read for it.

        Raises WeightsError if the hub refuses or fails.
        """
        if file.sha256:
            return LockedFile(name=file.name, size=file.size, sha256=file.sha256)
        attempts = Attempts(source, self.patience)
        return Digests(file.name, file.size).take_in(steadily(file.read, 0, file.size, attempts)).locked

    def _plan_archive(self, source: ArchiveSource, lock: Lock | None, progress: Progress, session: Session) -> Plan:
        file = HttpFile(session, source.url, source)
        ranges = self._patiently(source, file.probe)
        progress.total = file.size
        state = hashlib.sha256(f"{file.version} {file.size}".encode()).hexdigest()
        staging = self._staging(source, state, progress)
        if not (file.version or lock):  # the files here may come from another archive of the same size
            staging.clear()
        download = Download(file, ranges, source, progress, self.patience)
        return Plan(None, staging, Unpacking(source, download.pieces, staging, lock, self.admit).run)

    def _fetch_listed(
        self, source: HubSource, listing: Listing, staging: Staging, hang_up: Callable[[], None]
    ) -> list[LockedFile]:
        self.admit_files(source, [file.name for file in listing.files])
        staging.progress.files = len(listing.files)
        staging.progress.total = sum(file.size for file in listing.files)
        staging.require_room(sum(file.size - staging.arrived_bytes(file.name, file.size) for file in listing.files))
        fetching = Fetching(source, staging, self.patience, hang_up)
        config = next(file for file in listing.files if file.name == "config.json")
        found = fetching.one(config)
        self.admit(staging.files / config.name)
        fetching.require_heads(listing.files)
        return [found, *fetching.all([file for file in listing.files if file is not config])]

    def _staging(self, source: FetchedSource, state: str, progress: Progress) -> Staging:
        staging = Staging(self.folder / f".{source.key}.{state[:12]}.partial", source, progress)
        with staging.disk_errors():
            for other in self.folder.glob(f".{source.key}.*.partial"):
                if other != staging.folder:
                    shutil.rmtree(other)
            self._take_back(self.folder / source.key, state, staging)
            staging.prepare()
        return staging

    def _take_back(self, folder: Path, state: str, staging: Staging) -> None:
        """Move a damaged model of the same state back to staging. Then the fetch gets only its missing files."""
        there = read_marker(folder)
        if there and there.commit == state and not staging.files.exists():
            staging.folder.mkdir(exist_ok=True)
            os.replace(folder, staging.files)

    def _patiently(self, source: FetchedSource, ask: Callable[[], T]) -> T:
        attempts = Attempts(source, self.patience)
        while True:
            try:
                return ask()
            except Interrupted as fault:
                attempts.failed(fault)


def require_config(lock: Lock) -> None:
    """Raises WeightsError unless a lock has a config.json."""
    if lock.file("config.json") is None:
        raise WeightsError(lock.source, "there is no config.json at its top", "name a model, or correct weights.lock")


def _as_locked(file: RemoteFile, lock: Lock) -> RemoteFile:
    """A listed file with its locked checksum. Raises WeightsError if the listing contradicts the lock."""
    expected = next(each for each in lock.files if each.name == file.name)
    listed = expected.model_copy(update={"size": file.size, "sha256": file.sha256 or expected.sha256})
    if problem := lock.problem(listed):
        raise WeightsError(lock.source, problem, LOCK_ANEW)
    return replace(file, sha256=expected.sha256)
