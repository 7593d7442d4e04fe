"""python -m hermes plan."""

import json
from typing import Annotated

import typer

from hermes.cli.sources import SourceArgument, contents
from hermes.engine import engine_arguments
from hermes.errors import WeightsError
from hermes.settings import Settings
from hermes.sizing import (
    KNOWN_SHAPES,
    EngineArguments,
    ModelShape,
    costs,
    describe,
    parse_gpus,
    plan_memory,
)
from hermes.weights.remote import Attempts, Patience, steadily
from hermes.weights.source import HubSource, parse_source


def plan(
    source: SourceArgument = None,
    gpus: Annotated[str, typer.Option(help="how many of which, such as 2xA100-80GB or H100")] = "2xA100-80GB",
    max_model_len: Annotated[int | None, typer.Option(help="tokens; the whole context if not given")] = None,
    quantization: Annotated[str | None, typer.Option(help="fp8_per_block or awq; the profile's if not given")] = None,
    max_num_seqs: Annotated[int | None, typer.Option(help="clients at once; the slots if not given")] = None,
    gpu_memory_utilization: Annotated[float | None, typer.Option(help="share of each GPU for vLLM")] = None,
    draft: Annotated[str | None, typer.Option(metavar="SOURCE", help="a draft model for speculation")] = None,
    price: Annotated[float | None, typer.Option(min=0, help="dollars an hour for all GPUs")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON object")] = False,
) -> None:
    """Print whether a model fits on some GPUs, and what it can do there. Exit code 1 says that it does not, or that
    there is no plan with these arguments.

    The profile (HERMES_PROFILE; production in the place of local) and HERMES_ENGINE_ARGS set what no option does.
    """
    options = {
        "max_model_len": max_model_len,
        "quantization": quantization,
        "max_num_seqs": max_num_seqs,
        "gpu_memory_utilization": gpu_memory_utilization,
    }
    given = {name: value for name, value in options.items() if value is not None}
    settings = _settings(draft)
    try:
        available, gpu = parse_gpus(gpus)
        shape, stored = shape_of(source or settings.source)
        arguments = _arguments(settings, quantised=bool(shape.quantisation))
        if unknown := arguments.not_planned:
            said = json.dumps({"fits": None, "not_planned": unknown})
            print(said if as_json else f"not planned: {', '.join(unknown)}")
            raise typer.Exit(1)
        speculation = arguments.speculative_config
        planned = plan_memory(
            shape,
            gpu,
            _count(settings, arguments.tensor_parallel_size, available),
            draft=shape_of(speculation.draft)[0] if speculation and speculation.draft else None,
            weights_bytes=stored,
            **{**arguments.planned, **given},
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    cost = {} if price is None else {"dollars_per_million_tokens": costs(planned, price)}
    print(json.dumps(planned.as_dict() | cost | {"not_planned": []}) if as_json else describe(planned, price))
    if planned.fits and planned.count != arguments.tensor_parallel_size and not as_json:
        print(f"- a server does this with tensor_parallel_size {planned.count} in HERMES_ENGINE_ARGS")
    if not planned.fits:
        raise typer.Exit(1)


def _settings(draft: str | None) -> Settings:
    """The settings of a server on GPUs, with this draft model if there is one."""
    settings = Settings.load()
    if not settings.defaults.on_gpus:
        settings = settings.model_copy(update={"profile": "production"})
    if draft:
        others = {name: value for name, value in settings.engine_args.items() if name != "speculative_config"}
        settings = settings.model_copy(update={"speculation": draft, "engine_args": others})
    return settings


def _arguments(settings: Settings, *, quantised: bool) -> EngineArguments:
    """What the settings say of any model; the context of the profile is that of its own."""
    whole = settings.arguments({"max_model_len": None}, quantised=quantised)
    return EngineArguments.read(engine_arguments(settings.model_copy(update={"engine_args": whole}), settings.draft))


def _count(settings: Settings, count: int, available: int) -> int:
    """The GPUs to plan for: all that are there, unless HERMES_ENGINE_ARGS has a tensor_parallel_size."""
    if "tensor_parallel_size" not in settings.engine_args:
        return available
    if count > available:
        raise ValueError(f"tensor_parallel_size is {count}; {available} {'are' if available > 1 else 'is'} available")
    return count


def shape_of(text: str) -> tuple[ModelShape, int | None]:
    """A model's shape, and the bytes of its safetensors if they are known. KNOWN_SHAPES needs no network.

    Raises WeightsError if its config.json cannot be read, or is of another kind of model.
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
