"""Which weights to serve, and where they are."""

import logging
from pathlib import Path

from hermes.errors import WeightsError
from hermes.settings import BUILT_IN_MODEL, Settings
from hermes.weights import hub, smollm2

logger = logging.getLogger(__name__)


def resolve(settings: Settings, weights: str | None = None) -> Path:
    """A folder that holds the model.

    Args:
        settings: say which model, its revision, the hub token, and where fetched weights are kept.
        weights: what Cog passes to setup(), from COG_WEIGHTS: a local folder, which is used in place.

    Raises:
        WeightsError: they are not there, or could not be fetched.
    """
    if weights:
        folder = _local(weights)
    elif settings.model_name == BUILT_IN_MODEL:
        folder = smollm2.prepare(settings.weights_dir / smollm2.FOLDER)
    else:
        folder = hub.fetch(settings.model_name, settings.revision, settings.hub_token, settings.weights_dir)
    logger.info("weights: profile %s serves %s", settings.profile, folder)
    return folder


def _local(path: str) -> Path:
    folder = Path(path)
    if not (folder / "config.json").is_file():
        problem = "there is no config.json in it" if folder.is_dir() else "there is no such folder"
        raise WeightsError(path, problem, "give COG_WEIGHTS the folder of a model in the Hugging Face layout")
    return folder
