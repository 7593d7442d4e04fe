"""Fetches listed files into a staging folder: several at once, hashed as they arrive, resumed where they stopped."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from hermes.errors import WeightsError
from hermes.weights.http import break_off
from hermes.weights.lock import LockedFile
from hermes.weights.remote import Attempts, Patience, RemoteFile, steadily
from hermes.weights.safetensors import check, indexed
from hermes.weights.staging import Digests, Staging, digests_of, pieces_of, write_all

logger = logging.getLogger(__name__)

T = TypeVar("T")

FILES_AT_ONCE = 8


class Fetching:
    """Fetches files of one source into one staging folder."""

    def __init__(self, source: object, staging: Staging, patience: Patience, hang_up: Callable[[], None]):
        """Args:
        source: names the source in errors.
        staging: receives the files.
        patience: limits the attempts at each file.
        hang_up: ends reads that wait for their host.
        """
        self._source = source
        self._staging = staging
        self._patience = patience
        self._hang_up = hang_up
        self._stop = threading.Event()

    def all(self, files: Sequence[RemoteFile]) -> list[LockedFile]:
        """Fetch files, several at once, largest first.

        Raises WeightsError if a file could not be fetched. The other transfers stop; the bytes that arrived are kept.
        """
        return self._at_once(self.one, sorted(files, key=lambda file: file.size, reverse=True))

    def require_heads(self, files: Sequence[RemoteFile]) -> None:
        """Check the first bytes of each file that is not here yet, see `safetensors.check`.

        Raises WeightsError if a file could not be loaded, or cannot be read. The other checks stop.
        """
        index = indexed(files)
        missing = [file for file in files if not self._staging.has(file.name, file.size)]
        self._at_once(lambda file: check(self._source, file, self._attempts(file), index.get(file.name, ())), missing)

    def one(self, file: RemoteFile) -> LockedFile:
        """Fetch one file, or the rest of it.

        Raises:
            WeightsError: the file could not be fetched, or had the wrong checksum in two downloads.
            Stopped: another transfer failed, or the process was interrupted.
        """
        with self._staging.disk_errors():
            if found := self._finished_before(file):
                return found
            found = self._fetch_verified(file)
            self._staging.finish(file.name)
        return found

    def _at_once(self, work: Callable[[RemoteFile], T], files: Sequence[RemoteFile]) -> list[T]:
        with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="weights") as threads:
            futures: list[Future[T]] = []
            try:
                futures.extend(threads.submit(work, file) for file in files)
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                failed = [future for future in done if future.exception()]
            finally:  # also after Ctrl-C
                self._stop.set()
                break_off(futures, self._hang_up)
                self._stop.clear()
        return [future.result() for future in failed or futures]

    def _finished_before(self, file: RemoteFile) -> LockedFile | None:
        if not self._staging.has(file.name, file.size):
            return None
        if file.sha256 and not file.git_sha1:  # the file was verified with it before
            found = LockedFile(name=file.name, size=file.size, sha256=file.sha256)
        else:
            digests = digests_of(file).take_in(pieces_of(self._staging.files / file.name))
            if digests.problem(file):
                return None
            found = digests.locked
        self._staging.progress.was_there(file.size)
        self._staging.progress.finished_file()
        return found

    def _fetch_verified(self, file: RemoteFile) -> LockedFile:
        for chance in (1, 2):
            digests = self._download(file)
            if not (problem := digests.problem(file)):
                return digests.locked
            self._staging.drop_part(file.name)
            if chance == 1:
                logger.warning("weights: %s has the wrong checksum; it is fetched once more", file.name)
        raise WeightsError(
            self._source,
            f"{file.name} had the wrong checksum in two downloads: {problem}",
            "start again later; if it happens again, the host or a proxy changes the file",
        )

    def _download(self, file: RemoteFile) -> Digests:
        with self._staging.part(file.name, file.size) as out:
            digests = digests_of(file).take_in(self._staging.read_part(file.name))
            self._staging.progress.was_there(out.tell())
            for piece in steadily(file.read, out.tell(), file.size, self._attempts(file)):
                write_all(out, piece)
                digests.update(piece)
                self._staging.progress.arrived(len(piece))
        return digests

    def _attempts(self, file: RemoteFile) -> Attempts:
        return Attempts(f"{self._source}: {file.name}", self._patience, self._stop)
