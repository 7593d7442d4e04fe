"""A model in a folder on this disk, in the Hugging Face layout."""

import re
from collections.abc import Iterator
from pathlib import Path

from hermes.errors import WeightsError
from hermes.weights.hub import choose
from hermes.weights.remote import Piece, RemoteFile
from hermes.weights.staging import pieces_of


def in_place(folder: Path) -> Path:
    """The folder, if there is a model in it.

    Raises:
        WeightsError: there is none.
    """
    if (folder / "config.json").is_file():
        return folder
    problem = "there is no config.json in it" if folder.is_dir() else "there is no such folder"
    meant = re.fullmatch(r"[\w.-]+/[\w.-]+", str(folder))
    step = f"hf://{folder} is the repository on the hub" if meant else "name the folder of a model"
    raise WeightsError(folder, problem, step)


def files_of(folder: Path) -> list[RemoteFile]:
    """The files of a model, chosen as those of a repository are.

    Raises:
        WeightsError: there is no model, or not all of one.
    """
    names = [path.name for path in in_place(folder).iterdir() if path.is_file()]
    try:
        return [_on_disk(folder / name) for name in choose(names)]
    except ValueError as error:
        raise WeightsError(folder, str(error), "name the folder of a model with safetensors") from error


def _on_disk(path: Path) -> RemoteFile:
    def read(_: int) -> Iterator[Piece]:  # only ever from the beginning: a disk has no faults to go on after
        return pieces_of(path)

    return RemoteFile(path.name, path.stat().st_size, None, None, read)
