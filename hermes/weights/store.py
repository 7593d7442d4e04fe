"""The folder of fetched weights. Each model is whole in a folder of its own, or is not there.

weights.lock               the files of each source, see lock.py
KEY/                       a whole model, with the marker .complete.json; KEY is made of source and revision
.KEY.STATE.partial/        a model under way, see staging.py; STATE is its commit, or a digest of an archive's version
.KEY.busy                  locked by the process that fetches the model
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import SecretStr

from hermes.errors import WeightsError
from hermes.weights.disk import unwritable
from hermes.weights.folder import files_of
from hermes.weights.http import Session
from hermes.weights.lock import Lock, locked, read_lock_file, write_lock
from hermes.weights.plan import LOCK_ANEW, Admit, AdmitFiles, Planner, require_config
from hermes.weights.progress import Progress, shown
from hermes.weights.remote import Patience, RemoteFile
from hermes.weights.safetensors import require_heads, require_tokenizer
from hermes.weights.source import FetchedSource, HubSource
from hermes.weights.staging import Staging
from hermes.weights.verify import damaged, locked_in, read_marker, verify, write_marker

logger = logging.getLogger(__name__)

FETCH = "run `python -m hermes weights fetch` for it"


@dataclass(frozen=True)
class Weights:
    """The folder of a model, with the bytes and seconds that its fetch took."""

    folder: Path
    fetched_bytes: int = 0
    plan_seconds: float = 0.0
    download_seconds: float = 0.0
    verify_seconds: float = 0.0  # after the last byte; most hashing runs during the download


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
        admit_files: AdmitFiles = require_tokenizer,
    ):
        """Args:
        folder: holds the models.
        lock_file: the path of weights.lock.
        token: for the hub; with None, huggingface_hub looks for one.
        patience: limits the attempts at each request.
        admit: may refuse a model.
        admit_files: may refuse a model for the names of its files.
        """
        self.folder = folder
        self.lock_file = lock_file
        self._planner = Planner(folder, token, patience, admit, admit_files)

    def fetch(self, source: FetchedSource) -> Weights:
        """The model of a source. A model that is here needs no network; any other is fetched.

        Raises WeightsError if the fetch failed, or the model is not the one in weights.lock.
        """
        lock = read_lock_file(self.lock_file).model_for(str(source))
        weights = self._here(source, lock) or self._fetch_alone(source, lock)
        if lock is None:
            self._remember(weights.folder)
        return weights

    def whole(self, source: FetchedSource, lock: Lock | None) -> Lock | None:
        """The lock of a model that is here, whole and as `lock` says. None otherwise."""
        folder = self.folder / source.key
        there = read_marker(folder)
        if there and lock and lock.digest != there.digest:
            logger.warning("weights: %s is here, but its files are not the ones in weights.lock", source)
            return None
        if there and (bad := next(iter(damaged(folder, there)), None)):
            logger.warning("weights: %s is here, but its file %s is missing or has another size", source, bad)
            return None
        return there

    def contents(self, source: FetchedSource) -> list[RemoteFile]:
        """The files of a source. They are read from here if they are here, else from the hub.

        Raises WeightsError if the files cannot be listed.
        """
        lock = read_lock_file(self.lock_file).model_for(str(source))
        if self.whole(source, lock):
            return files_of(self.folder / source.key)
        if isinstance(source, HubSource):
            return list(self._planner.listing(source, lock).files)
        raise WeightsError(source, "what an archive holds is known when it has been fetched", FETCH)

    def lock(self, source: FetchedSource) -> Lock:
        """Write the present files of a source into weights.lock. This reads the small files of a repository.

        Raises WeightsError if the source cannot be listed or fetched, or weights.lock cannot be written.
        """
        if isinstance(source, HubSource):
            listing = self._planner.listing(source, None)
            self._planner.admit_files(source, [file.name for file in listing.files])
            require_heads(source, listing.files, self._planner.patience)
            new = locked(listing.commit, str(source), [self._planner.locked(source, file) for file in listing.files])
        else:
            new = locked_in((self._here(source, None) or self._fetch_alone(source, None)).folder)
        try:
            write_lock(self.lock_file, new)
        except OSError as error:
            raise unwritable(self.lock_file, error, "set HERMES_WEIGHTS_LOCK to another file") from error
        return new

    def verify(self, source: FetchedSource) -> list[str]:
        """Read a model that is here and compare each file with weights.lock. Returns one line for each wrong file.

        Raises WeightsError if the model is not here.
        """
        folder = self.folder / source.key
        lock = read_lock_file(self.lock_file).model_for(str(source)) or read_marker(folder)
        if lock is None or not folder.is_dir():
            raise WeightsError(source, "it has not been fetched", FETCH)
        return verify(folder, lock)

    def models(self) -> Iterator[tuple[Path, Lock]]:
        """The folder and the lock of each model that is here."""
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
            plan = self._planner.plan(source, lock, progress, session)
            planned = time.monotonic()
            with shown(progress, source.key):
                new = locked(plan.commit, str(source), plan.fetch())
        _require_complete(new, lock)
        self._planner.admit_files(source, [file.name for file in new.files])
        self._move_in(self.folder / source.key, plan.staging, new)
        arrived = max(planned, progress.last_arrival)
        logger.info(
            "weights: %s is here, %d files verified; %.1f MB fetched in %.0f s",
            source,
            len(new.files),
            progress.fetched / 1e6,
            arrived - began,
        )
        return Weights(
            self.folder / source.key,
            progress.fetched,
            plan_seconds=planned - began,
            download_seconds=arrived - planned,
            verify_seconds=time.monotonic() - arrived,
        )

    def _move_in(self, folder: Path, staging: Staging, lock: Lock) -> None:
        """Put a staged model in the place of its source's model."""
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
            raise unwritable(source, error, folder=self.folder) from error
        try:
            yield
        finally:
            busy.release()

    def _remember(self, folder: Path) -> None:
        """Lock a model after its first fetch."""
        try:
            write_lock(self.lock_file, locked_in(folder))
        except OSError as error:
            logger.warning("weights: %s can't be written (%s); the next fetch may differ", self.lock_file, error)


def _require_complete(found: Lock, lock: Lock | None) -> None:
    """Raises WeightsError unless the found files are a model and the locked files."""
    require_config(found)
    for file in lock.files if lock else ():
        if found.file(file.name) is None:
            raise WeightsError(found.source, f"{file.name} is not in it, but weights.lock has it", LOCK_ANEW)
    if problem := lock and next(filter(None, map(lock.problem, found.files)), None):
        raise WeightsError(found.source, problem, LOCK_ANEW)
