"""Finds or makes the folder of the model that a source names."""

import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from hermes.errors import WeightsError
from hermes.settings import Settings
from hermes.weights import smollm2
from hermes.weights.folder import files_of, in_place, require_one_model
from hermes.weights.gguf import ORIGINAL, dequantised, folder_name
from hermes.weights.plan import Admit
from hermes.weights.safetensors import require_tokenizer
from hermes.weights.source import DemoSource, FolderSource, GgufSource, Source, parse_source
from hermes.weights.store import Store, Weights

LOADS_SAFETENSORS = ("safetensors", "runai_streamer")  # of vLLM's load_format

logger = logging.getLogger(__name__)


def resolve(
    settings: Settings, weights: str | None = None, admit: Admit = lambda _: None, *, role: str = "serves"
) -> Weights:
    """The folder of the model to serve. A missing model is fetched or converted first.

    Args:
        settings: name the source and the folder of weights.
        weights: a source that replaces that of the settings. Cog passes COG_WEIGHTS to setup().
        admit: gets the path of config.json before the large files are fetched; raises to refuse the model.
        role: what the server does with the model, for the log.

    Raises:
        WeightsError: the model is missing, cannot be fetched or converted, or is damaged.
        InvalidConfiguration: the predictor_config.json of a folder sets an argument that it may not set.
    """
    source = parse_source(weights or settings.source)
    if isinstance(source, DemoSource):
        found = Weights(smollm2.prepare(settings.weights_dir / smollm2.FOLDER))
    elif isinstance(source, FolderSource):
        found = Weights(in_place(source.path))
        admit(found.folder / "config.json")
        if settings.with_predictor_config(found.folder).engine_args.get("load_format") in LOADS_SAFETENSORS:
            files = files_of(found.folder)  # raises WeightsError if vLLM could not load the files
            require_own_tokenizer(settings, source, [file.name for file in files])
    elif isinstance(source, GgufSource):
        found = Weights(_gguf(source.path, settings))
    else:
        found = open_store(settings, admit).fetch(source)
    require_one_model(found.folder)
    logger.info("weights: profile %s %s %s from %s", settings.profile, role, source, found.folder)
    return found


def is_converted(settings: Settings, weights: str | None) -> bool:
    """Whether `resolve` may convert the model, for which it imports transformers."""
    return isinstance(parse_source(weights or settings.source), DemoSource | GgufSource)


def open_store(settings: Settings, admit: Admit = lambda _: None) -> Store:
    """The store in the folder of weights that the settings name."""
    own = partial(require_own_tokenizer, settings)
    return Store(settings.weights_dir, settings.weights_lock, token=settings.hub_token, admit=admit, admit_files=own)


def require_own_tokenizer(settings: Settings, source: Source, names: Iterable[str]) -> None:
    """Raises WeightsError if none of the files is a tokenizer, and the model needs its own. A draft does without."""
    is_draft = settings.draft is not None and source == parse_source(settings.draft)
    if not is_draft and "tokenizer" not in settings.engine_args:
        require_tokenizer(source, names)


def _gguf(file: Path, settings: Settings) -> Path:
    if settings.defaults.on_gpus:
        problem = f"a GGUF file is served on the CPU only, but the profile {settings.profile} serves on GPUs"
        raise WeightsError(file, problem, f"{ORIGINAL}, or serve this file on a CPU with the image of cog.local.yaml")
    if not file.is_file():
        raise WeightsError(file, "there is no such file", "check the path")
    return dequantised(file, settings.weights_dir / folder_name(file))
