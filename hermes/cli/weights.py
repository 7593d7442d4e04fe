"""python -m hermes weights fetch | lock | verify | list | quantize | pack."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from hermes.chat.template import check
from hermes.cli.inputs import json_object
from hermes.cli.sources import SourceArgument, contents, fetched, folder_of
from hermes.errors import WeightsError
from hermes.logs import log_to_stderr
from hermes.settings import Settings
from hermes.weights import compiled, open_store
from hermes.weights.folder import files_of
from hermes.weights.lock import Lock
from hermes.weights.pack import pack as pack_files
from hermes.weights.pack import predictor_config
from hermes.weights.quantise import quantise
from hermes.weights.remote import Patience
from hermes.weights.resolve import require_own_tokenizer
from hermes.weights.safetensors import require_heads
from hermes.weights.source import parse_source

app = typer.Typer(no_args_is_help=True, help="Fetch, lock and check weights.")


@app.callback()
def show_log() -> None:
    """Show this package's log on standard error."""
    log_to_stderr("%(message)s")


@app.command()
def fetch(source: SourceArgument = None) -> None:
    """Fetch a model unless it is there, and print its folder."""
    found = open_store(Settings.load()).fetch(fetched(source))
    print(found.folder)


@app.command()
def lock(source: SourceArgument = None) -> None:
    """Write what a source holds now into weights.lock. A repository's large files are not fetched for that."""
    print(summary(open_store(Settings.load()).lock(fetched(source))))


@app.command()
def verify(source: SourceArgument = None) -> None:
    """Read a fetched model and compare every file with weights.lock."""
    wanted = fetched(source)
    problems = open_store(Settings.load()).verify(wanted)
    for problem in problems:
        print(problem)
    if problems:
        raise WeightsError(wanted, f"{len(problems)} of its files are wrong", "delete them, and fetch it again")
    print("every file is as locked")


@app.command("list")
def list_models() -> None:
    """Print the models that are here."""
    for folder, model in open_store(Settings.load()).models():
        print(f"{summary(model)}  {folder}")


@app.command()
def quantize(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="a folder, hf://owner/repo[@revision], or an archive")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="the new folder")],
) -> None:
    """Write a model in 16 bits with its linear layers in fp8, for half the bytes. A run that was killed goes on."""
    folder = folder_of(source)
    require_own_tokenizer(Settings.load(), parse_source(source), [file.name for file in files_of(folder)])
    sizes = [path.stat().st_size for path in quantise(folder, out).iterdir()]
    print(f"{out}: {counted(len(sizes), sum(sizes))}")


@app.command()
def pack(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="hf://owner/repo[@revision], or a folder")],
    out: Annotated[Path, typer.Option("--output", "-o", help="the tar to write")],
    prompt_template: Annotated[str | None, typer.Option(help="for requests that bring none")] = None,
    engine_args: Annotated[str, typer.Option(help="arguments for vLLM, a JSON object")] = "{}",
    with_cache: Annotated[bool, typer.Option("--with-cache", help="with what vLLM has compiled here")] = False,
) -> None:
    """Write a model and predictor_config.json into a tar that this package and replicate/cog-vllm read."""
    if prompt_template:
        check(prompt_template, prompt="any")
    config = predictor_config(prompt_template, json_object("--engine-args", engine_args))
    files = [file for file in contents(source) if file.name != compiled.PACKED]
    require_own_tokenizer(Settings.load(), parse_source(source), [file.name for file in files])
    require_heads(source, files, Patience())
    with tempfile.TemporaryDirectory() as temporary:
        if with_cache:
            files.append(compiled.packed(Settings.load().weights_dir, Path(temporary) / compiled.PACKED))
        packed = pack_files(files, config, out, Patience())
    print(f"{out}: {counted(len(packed), out.stat().st_size)}")


def counted(files: int, size: int) -> str:
    """A number of files and their bytes together."""
    return f"{files} files, {size / 1e9:.1f} GB"


def summary(model: Lock) -> str:
    """One line about a model."""
    commit = f"  commit {model.commit[:12]}" if model.commit else ""
    return f"{model.source}{commit}  {counted(len(model.files), model.size)}"
