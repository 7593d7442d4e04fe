"""Speculative decoding: something cheap guesses the next tokens, and one step of the model checks all of them.

Guesses come from the text so far (an n-gram that occurred before), or from a small draft model of the same vocabulary.
https://docs.vllm.ai/en/latest/features/speculative_decoding/
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

NGRAM_TOKENS, SHORTEST_NGRAM, LONGEST_NGRAM = 4, 2, 5
DRAFT_TOKENS = 3


def speculative(engine_args: Mapping[str, Any], draft: Path | None, *, on_gpus: bool) -> dict[str, Any]:
    """Engine arguments with speculation. A speculative_config among them stays.

    Args:
        engine_args: without speculation.
        draft: the folder of the draft model; None guesses by n-grams.
        on_gpus: whether the GPUs look for n-grams, which leaves the scheduling as it is. The CPU has no such kernel.
    """
    guessing = _from_draft(draft) if draft else _from_text(on_gpus)
    config = engine_args.get("speculative_config") or guessing
    arguments = {**engine_args, "speculative_config": config}
    if sizes := engine_args.get("cudagraph_capture_sizes"):  # each stream then has its guesses and a token in a batch
        arguments["cudagraph_capture_sizes"] = [size * (config["num_speculative_tokens"] + 1) for size in sizes]
    return arguments


def _from_text(on_gpus: bool) -> dict[str, Any]:
    return {
        "method": "ngram_gpu" if on_gpus else "ngram",
        "num_speculative_tokens": NGRAM_TOKENS,
        "prompt_lookup_min": SHORTEST_NGRAM,
        "prompt_lookup_max": LONGEST_NGRAM,
    }


def _from_draft(folder: Path) -> dict[str, Any]:
    return {"method": "draft_model", "model": str(folder), "num_speculative_tokens": DRAFT_TOKENS}
