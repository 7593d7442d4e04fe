"""Chooses the members of an archive that are the model: those that `hub.choose` would choose, and all locked ones."""

import logging
import tarfile
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from hermes.errors import WeightsError
from hermes.weights.folder import on_disk
from hermes.weights.hub import MAY_HOLD_CODE, SMALL
from hermes.weights.lock import Lock, leads_out, safe_name
from hermes.weights.remote import Patience
from hermes.weights.safetensors import ENDING, INDEX, chosen_safetensors, indexed, is_adapter, require_heads
from hermes.weights.staging import MARKER

logger = logging.getLogger(__name__)

CONFIG = "config.json"
# With these options, GNU tar stores the targets of links, and holes as zeros.
REPACK = "pack it again, with `python -m hermes weights pack` or `tar -h --hard-dereference -C FOLDER -cf model.tar .`"


class Members:
    """The members of one archive, in the order in which they arrive."""

    def __init__(self, source: object, lock: Lock | None, files: Path):
        """Args:
        source: names the archive in errors.
        lock: the files that the archive must hold; None accepts any model.
        files: the folder of the unpacked files.
        """
        self._source = source
        self._lock = lock
        self._files = files
        self._there: set[str] = set()
        self._index: Mapping[str, set[str]] = {}  # the safetensors and their tensors, once the index is here

    def wanted(self, member: tarfile.TarInfo) -> str | None:
        """The name of a file to unpack; None for a folder and for a file to leave out.

        Raises WeightsError if a model must not have such a member.
        """
        if not (member.isdir() or member.isreg()) or member.issparse():
            raise self.refused(f"its member {member.name!r} is not a plain file but a link, a device or the like")
        if leads_out(member.name):
            raise self.refused(f"its member {member.name!r} leads out of its folder")
        name = str(PurePosixPath(member.name))
        locked = self._is_locked(name)
        if member.isdir() or name in (".", MARKER) or (self._is_left_out(name) and not locked):
            return None
        try:
            safe_name(name)
        except ValueError as error:
            if "/" not in name and any(fnmatchcase(name, pattern) for pattern in (*SMALL, f"*{ENDING}")):
                raise self.refused(str(error)) from error
            logger.info("weights: %s: %s; it is left out", self._source, error)
            return None
        if name in self._there:
            raise self.refused(f"it holds {name!r} twice")
        if self._lock and not locked:
            raise self.refused(f"it holds {name!r}, but weights.lock does not have it")
        return name

    def arrived(self, name: str) -> None:
        """Note that a file is unpacked. An index decides which safetensors are the model.

        Raises WeightsError if the file is an invalid index.
        """
        self._there.add(name)
        if name == INDEX:
            try:
                self._index = indexed([on_disk(self._files / INDEX)])
            except ValueError as error:
                raise WeightsError(self._source, str(error), "pack the model again from its origin") from error

    def model(self) -> set[str]:
        """The names of the unpacked files that are the model.

        Raises WeightsError if the archive does not hold a whole model.
        """
        top = [name for name in self._there if "/" not in name]
        if CONFIG not in self._there and not is_adapter(top):
            folder = next((name[: -len(CONFIG) - 1] for name in self._there if name.endswith(f"/{CONFIG}")), None)
            problem = f"the model is in its folder {folder!r}" if folder else f"there is no {CONFIG} at its top"
            raise self.refused(problem)
        try:
            chosen = chosen_safetensors(top, lambda: self._index)
        except ValueError as error:
            raise WeightsError(self._source, str(error), "pack a whole model, with safetensors") from error
        whole = [on_disk(self._files / name) for name in (*chosen, *self._there & {INDEX})]
        require_heads(self._source, whole, Patience(attempts=1))
        strays = {name for name in top if name.endswith(ENDING) and self._index} - {*chosen}
        return {name for name in self._there if name not in strays or self._is_locked(name)}

    def refused(self, problem: str) -> WeightsError:
        """The error for an archive that must be packed again."""
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
            raise self.refused(f"the model is in its folder {folder!r}")  # before the large files arrive
        return bool(
            folder or name.startswith("adapter_") or self._is_locked(INDEX) or (self._index and name not in self._index)
        )
