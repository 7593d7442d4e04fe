"""A model repository on the Hugging Face hub becomes a local folder, through huggingface_hub.

Only what vLLM reads is fetched: safetensors and the small JSON and tokenizer files; never a pickle.
"""

import logging
from pathlib import Path

from pydantic import SecretStr

from hermes.errors import WeightsError

logger = logging.getLogger(__name__)

WANTED = ["*.safetensors", "*.json", "*.model", "tokenizer*", "*.jinja"]


def fetch(repo: str, revision: str | None, token: SecretStr | None, weights_dir: Path) -> Path:
    """Download what is missing of `repo` at `revision` and return its folder.

    Raises:
        WeightsError: the repository, the network or the disk said no.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    source = f"{repo}@{revision or 'main'}"
    logger.info("weights: fetching %s", source)
    try:
        folder = snapshot_download(
            repo,
            revision=revision,
            token=token.get_secret_value() if token else None,
            cache_dir=weights_dir / "hub",
            allow_patterns=WANTED,
        )
    except GatedRepoError as error:
        raise WeightsError(
            source, "the repository is gated", "accept its licence on the hub and set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsError(source, "there is no such revision", "check HERMES_REVISION") from error
    except RepositoryNotFoundError as error:
        raise WeightsError(
            source, "there is no such repository, or it is private", "check HERMES_MODEL and HF_TOKEN"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise WeightsError(
            source,
            f"the download failed ({type(error).__name__}: {' '.join(str(error).split())})",
            "start again; what is whole is kept",
        ) from error
    return Path(folder)
