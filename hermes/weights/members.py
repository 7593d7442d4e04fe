"""Which members of an archive are the model: those that would be fetched of a repository, and whatever is locked."""

import tarfile
from pathlib import Path

from hermes.errors import WeightsError
from hermes.weights.folder import on_disk
from hermes.weights.hub import MAY_HOLD_CODE
from hermes.weights.lock import Lock, safe_name
from hermes.weights.safetensors import ENDING, INDEX, chosen_safetensors, indexed
from hermes.weights.staging import MARKER

CONFIG = "config.json"
# GNU tar stores what links lead to with these, and holes as zeros.
REPACK = "pack it again, with `python -m hermes weights pack` or `tar -h --hard-dereference -C FOLDER -cf model.tar .`"


class Members:
    """The members of one archive, as they come."""

    def __init__(self, source: object, lock: Lock | None, files: Path):
        """Args:
        source: names the archive in errors.
        lock: what it has to hold; None takes what it holds.
        files: where those are that have been unpacked.
        """
        self._source = source
        self._lock = lock
        self._files = files
        self._there: set[str] = set()
        self._indexed: frozenset[str] = frozenset()  # the safetensors of the model, once its index is there

    def wanted(self, member: tarfile.TarInfo) -> str | None:
        """The name of a file to unpack; None for a folder, and for what is left out.

        Raises:
            WeightsError: no model has such a member.
        """
        if not (member.isdir() or member.isreg()) or member.issparse():
            raise self.refused(f"{member.name!r} in it is a link, a device or otherwise no plain file")
        try:
            name = safe_name(member.name)
        except ValueError as error:
            raise self.refused(str(error)) from error
        if member.isdir() or name == MARKER:
            return None
        if name in self._there:
            raise self.refused(f"it holds {name!r} twice")
        if self._is_locked(name):
            return name
        if self._is_left_out(name):
            return None
        if self._lock:
            raise self.refused(f"it holds {name!r}, which weights.lock does not have")
        return name

    def arrived(self, name: str) -> None:
        """A file is there.

        Raises:
            WeightsError: it is an index that makes no sense.
        """
        self._there.add(name)
        if name == INDEX:
            try:
                self._indexed = indexed(on_disk(self._files / INDEX))
            except ValueError as error:
                raise WeightsError(self._source, str(error), "fetch the model again from where it came") from error

    def model(self) -> set[str]:
        """The files of the model, of all that have arrived.

        Raises:
            WeightsError: there is no model, or not all of one.
        """
        if CONFIG not in self._there:
            folder = next((name[: -len(CONFIG) - 1] for name in self._there if name.endswith(f"/{CONFIG}")), None)
            raise self.refused(f"the model is in {folder!r} in it" if folder else "there is no config.json at its top")
        top = [name for name in self._there if "/" not in name]
        try:
            chosen = chosen_safetensors(top, lambda: self._indexed)
        except ValueError as error:
            raise WeightsError(self._source, str(error), "pack a whole model, with safetensors") from error
        strays = {name for name in top if name.endswith(ENDING) and self._indexed} - {*chosen}
        return {name for name in self._there if name not in strays or self._is_locked(name)}

    def refused(self, problem: str) -> WeightsError:
        """The error of an archive that has to be packed again."""
        return WeightsError(self._source, problem, REPACK)

    def _is_locked(self, name: str) -> bool:
        return bool(self._lock and self._lock.file(name))

    def _is_left_out(self, name: str) -> bool:
        if name.endswith(MAY_HOLD_CODE):
            return True
        if not name.endswith(ENDING):
            return False
        folder = name.rpartition("/")[0]
        if folder and CONFIG not in self._there and f"{folder}/{CONFIG}" in self._there:
            raise self.refused(f"the model is in {folder!r} in it")  # before the bulk has come
        return bool(folder or self._is_locked(INDEX) or (self._indexed and name not in self._indexed))
