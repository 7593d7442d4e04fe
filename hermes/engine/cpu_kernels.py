"""What vLLM 0.32 gets wrong on a CPU without Triton."""

from typing import Any


def expand(output: Any, values: Any, ends: Any, replace_from: int, replace_to: int, *_: Any) -> None:
    """Repeat each value: [a, b] with the ends [2, 5] fills the output with [a, a, b, b, b]. All are torch tensors.

    In speculative decoding, each request's top_k and top_p are repeated for each guess. vLLM's own version fills a copy
    if the tensors are not of 64-bit integers. Then the sampler reads memory that nobody wrote, and the engine dies.
    """
    counts = ends.diff(prepend=ends.new_zeros(1))
    output.copy_(values.masked_fill(values == replace_from, replace_to).repeat_interleave(counts))
