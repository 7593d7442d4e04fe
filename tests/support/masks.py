"""Applies masks of grammars to logits as vLLM does on a CPU, and as its core process here does.

    python -m tests.support.masks

Fails if the logits then differ. Printed is how many times as long vLLM takes: in bfloat16 with nearly all tokens
forbidden and with half of them, and in float32 with nearly all. vLLM changes the logs, the threads and the environment
of its process.
"""

import inspect
import itertools
import time
from types import SimpleNamespace

import numpy
import torch
from vllm.v1.structured_output.utils import apply_grammar_bitmask as vllms

from hermes.engine import core_imports

ours = core_imports.runner["apply_grammar_bitmask"]
generator = numpy.random.default_rng(0)

SIZES = [(64, 2), (70, 3), (70, 4), (100, 3)]  # tokens, words of a mask: as many, a word in part, more of them, fewer
CONSTRAINED = [range(8), [5], [6, 1, 4], [2, 9], []]  # of eight requests; 9 has left the batch
GUESSES = [(0,) * 8, (2, 0, 1, 0, 0, 3, 1, 0), (4,) * 8]


def step(tokens, words, dtype, constrained, guesses, allowed):
    """What vLLM's function is given, as far as it reads it."""
    names = [f"request {number}" for number in range(len(guesses))]
    scheduled = {name: [7] * count for name, count in zip(names, guesses, strict=True) if count}
    scheduled["request 9"] = [7] * guesses[-1]
    chosen = [f"request {number}" for number in constrained]
    bits = generator.random((sum(1 + len(scheduled.get(name, ())) for name in chosen), 32 * words)) < allowed
    grammar = SimpleNamespace(
        grammar_bitmask=numpy.packbits(bits, axis=1, bitorder="little").view(numpy.int32),
        structured_output_request_ids=chosen,
    )
    logits = torch.randn(len(guesses) + sum(guesses), tokens)
    logits[:, :4] = torch.tensor([torch.inf, -torch.inf, torch.nan, -0.0])
    batch = SimpleNamespace(req_ids=names)
    return SimpleNamespace(scheduled_spec_decode_tokens=scheduled), grammar, batch, logits.to(dtype)


def compare():
    dtypes = [torch.bfloat16, torch.float16, torch.float32]
    for (tokens, words), dtype, constrained, guesses, allowed in itertools.product(
        SIZES, dtypes, CONSTRAINED, GUESSES, (0.1, 0.9)
    ):
        *arguments, logits = step(tokens, words, dtype, constrained, guesses, allowed)
        expected = torch.nn.functional.pad(logits, (0, max(0, 32 * words - tokens)))  # or vLLM writes into the next row
        vllms(*arguments, expected)
        alone, part = logits.clone(), torch.cat([logits, logits], dim=1)
        ours(*arguments, alone)
        ours(*arguments, part[:, :tokens])
        assert same(alone, expected[:, :tokens]), (tokens, words, dtype, constrained, allowed)
        assert same(part, torch.cat([alone, logits], dim=1)), (tokens, words, dtype, constrained, allowed)


def same(one, other):
    """Bit by bit, for a NaN equals nothing."""
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


def ratio(dtype, allowed):
    *arguments, logits = step(49152, 1536, dtype, range(32), (0,) * 32, allowed)
    took = {vllms: [], ours: []}
    for _ in range(9):
        for function, seconds in took.items():
            given = logits.clone()
            began = time.thread_time()
            function(*arguments, given)
            seconds.append(time.thread_time() - began)
    return min(took[vllms]) / min(took[ours])


if __name__ == "__main__":
    called = inspect.unwrap(core_imports.runner["GPUModelRunner"].sample_tokens).__code__.co_names
    assert "apply_grammar_bitmask" in called, "vLLM has it in another place"
    torch.set_num_threads(1)
    with torch.inference_mode():  # as in vLLM
        compare()
    print(ratio(torch.bfloat16, 0.001), ratio(torch.bfloat16, 0.5), ratio(torch.float32, 0.001))
