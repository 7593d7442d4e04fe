"""Tests unpack archives from memory."""

from hermes.weights.archive import Unpacking
from hermes.weights.progress import Progress
from hermes.weights.source import ArchiveSource
from hermes.weights.staging import Staging
from tests.support.tiny_models import files_in


def bytes_of(*archives):
    """Gives the bytes of an archive from an offset on; of the next one when it is asked anew, and the last for ever."""
    rest = list(archives)

    def pieces_from(offset):
        data = rest.pop(0) if len(rest) > 1 else rest[0]
        while piece := data[offset : offset + 7000]:
            yield piece
            offset += len(piece)

    return pieces_from


def unpack(folder, *archives, name="model.tar", lock=None, admit=lambda config: None):
    """Unpack an archive, and see what is in the folder."""
    staging = Staging(folder / "staging", "the archive", Progress(total=len(archives[0])))
    staging.prepare()
    found = Unpacking(ArchiveSource(f"http://host/{name}"), bytes_of(*archives), staging, lock, admit).run()
    assert {file.name: file.size for file in found} == {key: len(data) for key, data in files_in(staging.files).items()}
    return files_in(staging.files)
