"""The models that commands name."""

from pathlib import Path
from typing import Annotated

import typer

from hermes.errors import WeightsError
from hermes.settings import Settings
from hermes.weights import open_store
from hermes.weights.folder import files_of, in_place
from hermes.weights.remote import RemoteFile
from hermes.weights.source import FetchedSource, FolderSource, parse_source

SourceArgument = Annotated[
    str | None, typer.Argument(metavar="SOURCE", help="hf://owner/repo[@revision], or the URL of an archive")
]


def fetched(text: str | None) -> FetchedSource:
    """The fetched source that `text` names, or else the settings.

    Raises WeightsError if the source is not one that is fetched.
    """
    source = parse_source(text or Settings.load().source)
    if isinstance(source, FetchedSource):
        return source
    if isinstance(source, FolderSource):
        in_place(source.path)  # raises if there is no model, and names the repository that may be meant
    problem = "it is used where it is, and is neither fetched nor locked"
    raise WeightsError(source, problem, "name a repository (hf://owner/repo) or an archive")


def folder_of(text: str) -> Path:
    """The folder of a model on this disk: the one that `text` names, or that of a fetched model, fetched if need be."""
    source = parse_source(text)
    if isinstance(source, FolderSource):
        return in_place(source.path)
    return open_store(Settings.load()).fetch(fetched(text)).folder


def contents(text: str) -> list[RemoteFile]:
    """The files of a model in a folder, a repository, or the store."""
    source = parse_source(text)
    if isinstance(source, FolderSource):
        return files_of(source.path)
    return open_store(Settings.load()).contents(fetched(text))
