"""What vLLM 0.32 gets wrong on a CPU without Triton, and what it does slowly there."""

from collections.abc import Iterable
from itertools import accumulate
from math import inf
from typing import Any

ALLOWED = 0.75  # of the tokens: from here on, vLLM's own mask is the faster one for float32


def expand(output: Any, values: Any, ends: Any, replace_from: int, replace_to: int, *_: Any) -> None:
    """Repeat each value: [a, b] with the ends [2, 5] fills the output with [a, a, b, b, b]. All are torch tensors.

    In speculative decoding, each request's top_k and top_p are repeated for each guess. vLLM's own version fills a copy
    if the tensors are not of 64-bit integers. Then the sampler reads memory that nobody wrote, and the engine dies.
    """
    counts = ends.diff(prepend=ends.new_zeros(1))
    output.copy_(values.masked_fill(values == replace_from, replace_to).repeat_interleave(counts))


def apply_grammar_bitmask(vllms: Any, scheduled: Any, grammar: Any, batch: Any, logits: Any) -> None:
    """Set the logits of the tokens that a grammar forbids to -inf, as vLLM's function of this name does.

    vLLM sets the forbidden ones one by one, in a copy of all logits in float32. A step of 32 rows and 49,152 tokens
    takes these milliseconds with nearly all tokens forbidden, and with nearly none:

        bfloat16   vLLM 11.3 and 2.8    this 1.2 and 1.7
        float32    vLLM  8.3 and 0.3    this 2.1 and 2.0

    So vLLM's own is used for float32 where little is forbidden, unless the mask is wider than the logits: xgrammar
    0.2.8 then writes on into the next row. tests/engine/test_cpu_kernels.py compares the two.

    Args:
        vllms: the function itself.
        scheduled: vLLM's SchedulerOutput.
        grammar: vLLM's GrammarOutput. A set bit is an allowed token.
        batch: vLLM's InputBatch.
        logits: a row for the next token of each request and one for each guess.
    """
    import numpy as np
    import torch

    masks = grammar.grammar_bitmask.view(np.uint8)
    fits = logits.shape[1] >= 8 * masks.shape[1]
    if fits and logits.dtype == torch.float32 and np.bitwise_count(masks).sum() > ALLOWED * 8 * masks.size:
        vllms(scheduled, grammar, batch, logits)
        return
    integers = torch.int32 if logits.dtype == torch.float32 else torch.int16

    def rows(names: Iterable[str]) -> dict[str, slice]:
        counts = {name: 1 + len(scheduled.scheduled_spec_decode_tokens.get(name, ())) for name in names}
        ends = accumulate(counts.values())
        return {name: slice(end - counts[name], end) for name, end in zip(counts, ends, strict=True)}

    values = logits.view(integers).numpy()[:, : 8 * masks.shape[1]]
    infinity = torch.tensor(-inf, dtype=logits.dtype).view(integers).numpy()
    rows_of = rows(batch.req_ids)
    for name, mask_rows in rows(grammar.structured_output_request_ids).items():
        if name in rows_of:
            of_request = values[rows_of[name]]
            of_request ^= infinity  # which is 0 now
            of_request *= np.unpackbits(masks[mask_rows], axis=1, count=values.shape[1], bitorder="little")
            of_request ^= infinity
