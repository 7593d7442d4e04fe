"""A source of weights becomes a folder on this disk."""

import logging
from collections.abc import Callable
from pathlib import Path

from hermes.errors import WeightsError
from hermes.settings import Settings
from hermes.weights import smollm2
from hermes.weights.folder import files_of, in_place, require_one_model
from hermes.weights.gguf import ORIGINAL, dequantised, folder_name
from hermes.weights.source import DemoSource, FolderSource, GgufSource, parse_source
from hermes.weights.store import Admit, Store, Weights

logger = logging.getLogger(__name__)


def resolve(
    settings: Settings,
    weights: str | None = None,
    admit: Admit = lambda _: None,
    before_converting: Callable[[], object] = lambda: None,
) -> Weights:
    """The folder of the model that is to be served, fetched or prepared if it is not there.

    Args:
        settings: name the source, unless `weights` does, and say where fetched weights are kept.
        weights: what Cog passes to setup(), from COG_WEIGHTS: a source.
        admit: gets the path of config.json before the bulk is fetched, and may refuse the model by raising.
        before_converting: is called before transformers is imported to convert a GGUF file: a thread that imports it
            while another one imports vLLM can see half of it.

    Raises:
        WeightsError: it is not there, could not be fetched, or is not what it seems.
    """
    source = parse_source(weights or settings.source)
    if isinstance(source, DemoSource):
        found = Weights(smollm2.prepare(settings.weights_dir / smollm2.FOLDER, before_converting))
    elif isinstance(source, FolderSource):
        found = Weights(in_place(source.path))
        admit(found.folder / "config.json")
        if settings.with_predictor_config(found.folder).engine_args.get("load_format") == "safetensors":
            files_of(found.folder)  # refuses what can't be loaded
    elif isinstance(source, GgufSource):
        found = Weights(_gguf(source.path, settings, before_converting))
    else:
        found = open_store(settings, admit).fetch(source)
    require_one_model(found.folder)
    logger.info("weights: profile %s serves %s from %s", settings.profile, source, found.folder)
    return found


def open_store(settings: Settings, admit: Admit = lambda _: None) -> Store:
    """The store of fetched weights that the settings name."""
    return Store(settings.weights_dir, settings.weights_lock, token=settings.hub_token, admit=admit)


def _gguf(file: Path, settings: Settings, before_converting: Callable[[], object]) -> Path:
    if settings.defaults.cuda_devices:
        problem = f"a GGUF file is served on the CPU only, and the profile {settings.profile} serves on GPUs"
        raise WeightsError(file, problem, f"{ORIGINAL}, or set HERMES_PROFILE=local")
    if not file.is_file():
        raise WeightsError(file, "there is no such file", "check the path")
    return dequantised(file, settings.weights_dir / folder_name(file), before_converting)
