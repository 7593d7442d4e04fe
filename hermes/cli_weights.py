"""python -m hermes weights lock | fetch | verify | list | pack, and python -m hermes plan."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hermes.errors import WeightsError
from hermes.serving.worker import log_to_stderr
from hermes.settings import Settings
from hermes.sizing import KNOWN_SHAPES, ModelShape, describe, parse_gpus, plan_memory
from hermes.weights import open_store
from hermes.weights.folder import files_of
from hermes.weights.lock import Lock
from hermes.weights.pack import pack as pack_files
from hermes.weights.pack import predictor_config
from hermes.weights.remote import Attempts, Patience, RemoteFile, steadily
from hermes.weights.safetensors import require_heads
from hermes.weights.source import ArchiveSource, FetchedSource, FolderSource, HubSource, parse_source

weights = typer.Typer(no_args_is_help=True, help="Fetch, lock and check weights.")

SourceArgument = Annotated[
    str | None, typer.Argument(metavar="SOURCE", help="hf://owner/repo[@revision], or the URL of an archive")
]


@weights.callback()
def show_log() -> None:
    log_to_stderr("%(message)s")


@weights.command()
def fetch(source: SourceArgument = None) -> None:
    """Fetch a model unless it is there, and print its folder."""
    found = open_store(Settings.load()).fetch(fetched(source))
    print(found.folder)


@weights.command()
def lock(source: SourceArgument = None) -> None:
    """Write what a source holds now into weights.lock; of a repository without fetching the large files."""
    print(summary(open_store(Settings.load()).lock(fetched(source))))


@weights.command()
def verify(source: SourceArgument = None) -> None:
    """Read a fetched model and compare every file with weights.lock."""
    wanted = fetched(source)
    problems = open_store(Settings.load()).verify(wanted)
    for problem in problems:
        print(problem)
    if problems:
        raise WeightsError(wanted, f"{len(problems)} of its files are wrong", "delete them, and fetch it again")
    print("every file is as locked")


@weights.command("list")
def list_models() -> None:
    """Print the models that are here."""
    for folder, held in open_store(Settings.load()).models():
        print(f"{summary(held)}  {folder}")


@weights.command()
def pack(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="hf://owner/repo[@revision], or a folder")],
    out: Annotated[Path, typer.Option("--output", "-o", help="the tar to write")],
    prompt_template: Annotated[str | None, typer.Option(help="for requests that bring none")] = None,
    engine_args: Annotated[str, typer.Option(help="arguments for vLLM, a JSON object")] = "{}",
) -> None:
    """Write a model and predictor_config.json into a tar that this package and replicate/cog-vllm read."""
    config = predictor_config(prompt_template, json_object(engine_args))
    files = contents(source)
    require_heads(source, files, Patience())
    packed = pack_files(files, config, out, Patience())
    print(f"{out}: {len(packed)} files, {out.stat().st_size / 1e9:.1f} GB")


def plan(
    source: SourceArgument = None,
    gpus: Annotated[str, typer.Option(help="how many of which, such as 2xA100-80GB or H100")] = "2xA100-80GB",
    max_model_len: Annotated[int | None, typer.Option(help="tokens; the whole context if not given")] = None,
    quantization: Annotated[str | None, typer.Option(help="fp8 or awq")] = None,
    max_num_seqs: Annotated[int, typer.Option(help="callers at once")] = 32,
    gpu_memory_utilization: Annotated[float, typer.Option(help="share of each GPU for vLLM")] = 0.95,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON object")] = False,
) -> None:
    """Print whether a model fits on some GPUs, and what it can do there. Exit code 1 says that it does not fit."""
    try:
        count, gpu = parse_gpus(gpus)
        shape, stored = shape_of(source or Settings.load().source)
        planned = plan_memory(
            shape,
            gpu,
            count,
            max_model_len=max_model_len,
            gpu_memory_utilization=gpu_memory_utilization,
            max_num_seqs=max_num_seqs,
            quantization=quantization,  # type: ignore[arg-type] # checked there
            weights_bytes=stored,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    print(json.dumps(planned.as_dict()) if as_json else describe(planned))
    if not planned.fits:
        raise typer.Exit(1)


def fetched(text: str | None) -> FetchedSource:
    """A source that is fetched; without one, that of the settings.

    Raises:
        WeightsError: it names none.
    """
    source = parse_source(text or Settings.load().source)
    if isinstance(source, HubSource | ArchiveSource):
        return source
    raise WeightsError(source, "it is used where it is", "name a repository (hf://owner/repo) or an archive")


def contents(text: str) -> list[RemoteFile]:
    """The files of a model in a folder, a repository, or the store."""
    source = parse_source(text)
    return (
        files_of(source.path)
        if isinstance(source, FolderSource)
        else open_store(Settings.load()).contents(fetched(text))
    )


def shape_of(text: str) -> tuple[ModelShape, int | None]:
    """A model's shape and the bytes of its safetensors, where they are known; what we know by heart is not asked for.

    Raises:
        WeightsError: its config.json can't be had, or is of another kind of model.
    """
    source = parse_source(text)
    if isinstance(source, HubSource) and source == HubSource(source.repo) and source.repo in KNOWN_SHAPES:
        return KNOWN_SHAPES[source.repo], None
    files = contents(text)
    config = next(file for file in files if file.name == "config.json")
    stored = sum(file.size for file in files if file.name.endswith(".safetensors"))
    content = b"".join(map(bytes, steadily(config.read, 0, config.size, Attempts(source, Patience()))))
    try:
        return ModelShape.from_config(dict(json.loads(content))), stored
    except (ValueError, TypeError) as error:
        problem = str(error) if "config.json" in str(error) else f"config.json: {error}"
        raise WeightsError(source, problem, "there is no plan for it") from error


def summary(held: Lock) -> str:
    """One line about a model."""
    commit = f"  commit {held.commit[:12]}" if held.commit else ""
    return f"{held.source}{commit}  {len(held.files)} files, {held.size / 1e9:.1f} GB"


def json_object(text: str) -> dict[str, Any]:
    """Raises typer.BadParameter if the text is no JSON object."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not JSON") from error
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{text!r} is no JSON object")
    return value
