"""Speculative decoding: something cheap guesses the next tokens, and one step of the model checks all of them.

Guesses come from the text so far (an n-gram that occurred before), or from a small draft model of the same vocabulary.
https://docs.vllm.ai/en/latest/features/speculative_decoding/
"""

from pathlib import Path
from typing import Any

from hermes.settings import Settings
from hermes.sizing import EngineArguments

NGRAM_TOKENS, SHORTEST_NGRAM, LONGEST_NGRAM = 4, 2, 5
DRAFT_TOKENS = 3
SIZES = "cudagraph_capture_sizes"


def engine_arguments(settings: Settings, draft: Path | str | None) -> dict[str, Any]:
    """The arguments of the engine, with speculation if the settings ask for it, and text as the number it stands for.

    Args:
        settings: completed by `Settings.with_predictor_config`. A speculative_config of theirs stays.
        draft: the folder of the draft model; None guesses by n-grams.

    Raises InvalidConfiguration, which names the argument, if a value cannot be used.
    """
    arguments = dict(settings.engine_args)
    if settings.speculation and not arguments.get("speculative_config"):
        guess = _from_draft(draft) if draft else _from_text(on_gpus=settings.defaults.on_gpus)
        arguments["speculative_config"] = guess
    read = EngineArguments.read(arguments)
    sizes = settings.defaults.engine_args.get(SIZES)
    if arguments.get(SIZES) is not sizes:  # the operator's
        sizes = None
    arguments |= read.explicit
    # The profile's sizes are for one token of each request. With speculation a request has its guesses, too.
    if read.speculative_config and sizes:
        arguments[SIZES] = [size * (read.speculative_config.num_speculative_tokens + 1) for size in sizes]
    return arguments


def _from_text(*, on_gpus: bool) -> dict[str, Any]:
    """Let the GPUs look for n-grams, which leaves the scheduling asynchronous. The CPU has no such kernel."""
    return {
        "method": "ngram_gpu" if on_gpus else "ngram",
        "num_speculative_tokens": NGRAM_TOKENS,
        "prompt_lookup_min": SHORTEST_NGRAM,
        "prompt_lookup_max": LONGEST_NGRAM,
    }


def _from_draft(folder: Path | str) -> dict[str, Any]:
    return {"method": "draft_model", "model": str(folder), "num_speculative_tokens": DRAFT_TOKENS}
