"""Folders on this disk: checks a model in the Hugging Face layout, and makes a folder that appears whole."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from hermes.errors import WeightsError
from hermes.weights.http import PIECE
from hermes.weights.hub import choose
from hermes.weights.remote import Patience, Piece, RemoteFile
from hermes.weights.safetensors import AGAIN, INDEX, LOADED, MERGE, indexed, is_adapter, require_heads
from hermes.weights.source import hub_form


def in_place(folder: Path) -> Path:
    """The folder, if there is a model in it. Raises WeightsError if there is none, or the folder cannot be read."""
    with _disk_errors(folder):
        if os.path.lexists(folder / "config.json"):
            return _plain(folder / "config.json").parent
        problem = "there is no config.json in it" if folder.is_dir() else "there is no such folder"
        if folder.is_dir() and is_adapter(os.listdir(folder)):
            problem = MERGE
    repository = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@[\w.-]+)?", str(folder), re.ASCII)
    meant = f"hf://{folder}" if repository else hub_form(str(folder))
    step = f"{meant} is the repository on the hub" if meant else "name the folder of a model"
    raise WeightsError(folder, problem, step)


def require_one_model(folder: Path) -> dict[str, Any]:
    """The config.json of a model. Raises WeightsError if it leads to another model or to another config.json.

    vLLM serves the "verifier" that speculators_config names, from the hub. transformers follows configuration_files.
    """
    path = folder / "config.json"
    config = _json_object(path)
    for key in ("speculators_config", "configuration_files"):
        if key in config:
            raise WeightsError(path, f"its {key} points to other files", f"name a model without {key}")
    return config


def _json_object(path: Path) -> dict[str, Any]:
    with _disk_errors(path):
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise WeightsError(path.parent, f"{path.name} is not a JSON object ({error})", AGAIN) from error


def files_of(folder: Path) -> list[RemoteFile]:
    """The files of a model, chosen by the same rules as those of a repository.

    Raises WeightsError if there is no whole model, or its weights are not safetensors.
    """
    with _disk_errors(folder):
        names = [path.name for path in in_place(folder).iterdir() if not path.is_dir()]
        try:
            chosen = choose(names, read_shards=cache(lambda: indexed([on_disk(folder / INDEX)])))
            there = [path for path in map(folder.joinpath, chosen) if LOADED.fullmatch(path.name) or path.is_file()]
            files = [on_disk(_plain(path)) for path in there]
        except ValueError as error:
            raise WeightsError(folder, str(error), "name the folder of a model with safetensors") from error
    require_heads(folder, files, Patience(attempts=1))
    for path in there:
        if path.suffix == ".json" and path.name != INDEX and LOADED.fullmatch(path.name):  # the index has been read
            _json_object(path)
    return files


def _plain(path: Path) -> Path:
    """The path. Raises WeightsError if it is not a file, nor a link to one."""
    if path.is_file():
        return path
    problem = f"a link to {os.readlink(path)}, which is not there" if path.is_symlink() else "not a file"
    raise WeightsError(path.parent, f"{path.name} is {problem}", AGAIN)


def on_disk(path: Path) -> RemoteFile:
    """A file on this disk, as a RemoteFile. Its `read` raises WeightsError if the disk fails."""

    def read(offset: int) -> Iterator[Piece]:
        with _disk_errors(path), path.open("rb") as file:
            file.seek(offset)
            while piece := file.read(PIECE):
                yield piece

    return RemoteFile(path.name, path.stat().st_size, None, None, read)


@contextmanager
def appearing_whole(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill. One rename makes it `folder` at the end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".{folder.name}-{uuid4().hex}"
    unfinished.mkdir()  # and not tempfile's, which only its owner can read
    try:
        yield unfinished
        for path in unfinished.rglob("*"):
            let_others_read(path)
        _move_whole(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def let_others_read(path: Path) -> None:
    """Let those read a file who can read its folder: safetensors writes files that only their owner can read.

    Containers with different users share a folder of weights.
    """
    if path.is_file():
        with suppress(OSError):  # some network disks have no permissions
            path.chmod(path.parent.stat().st_mode & 0o644)


def _move_whole(unfinished: Path, folder: Path) -> None:
    try:
        os.replace(unfinished, folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        problem = f"it can't be read ({error.strerror or error})"
        raise WeightsError(path, problem, "check the path and its permissions") from error
