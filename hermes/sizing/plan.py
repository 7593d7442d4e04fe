"""The memory plan: whether a model fits on some GPUs, and how much it can serve there.

The plan is arithmetic: it needs no GPU, no network and no vLLM. What vLLM takes besides weights and KV cache is an
estimate. Its constants are from logs of vLLM 0.19 on H100s, among them a Llama 70B on two and on four GPUs.
tests/sizing/test_plan.py compares the plan with these logs. They are in
https://github.com/llm-d-incubation/llm-d-planner/pull/205 (Llama 70B: accuracy/results/v0.19.0/logs/fp8dyn-llama-*).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hermes.sizing.gpus import GIB, Gpu, gib
from hermes.sizing.shape import ModelShape, Quantisation

QUANTISATIONS = {  # by vLLM's names; fp8 is made while loading, and awq needs a checkpoint
    "fp8_per_block": Quantisation("fp8_per_block", 8, in_blocks=True),
    "fp8_per_channel": Quantisation("fp8_per_channel", 8),
    "fp8_per_tensor": Quantisation("fp8_per_tensor", 8),
    "awq": Quantisation("awq", 4, group=128),
}
BLOCK_TOKENS = 16  # in a block of the KV cache
BATCHED_TOKENS = 2048  # vLLM 0.32's max_num_batched_tokens as hermes.engine starts it, on any GPU
MOST_CAPTURED = 512  # tokens of a batch with a CUDA graph, unless the arguments name sizes
HIDDEN_COPIES = 4  # of the hidden state while one layer runs
LOGIT_BYTES = 16  # for each logit in sampling: float32, a sorted copy, and the 64-bit order
GRAPH_BYTES = 2**19  # of CUDA graphs, for each captured batch size and each layer
ONE_GPU_BYTES, SEVERAL_GPUS_BYTES = (
    GIB // 4,
    21 * GIB // 10,
)  # on each GPU: CUDA libraries; with several GPUs also NCCL's buffers
OUTSIDE_BYTES = 3 * GIB // 2  # on each of several GPUs: the CUDA context and NCCL's start, which vLLM does not count
SHORT_TOKENS = 1_400  # a conversation of everyday length
MOST_GPUS = 8  # in one machine


@dataclass(frozen=True)
class MemoryPlan:
    """A model on some GPUs, tensor parallel over all of them. `plan_memory` makes it. Bytes are those of each GPU."""

    shape: ModelShape  # quantised as it will be served
    gpu: Gpu
    count: int
    max_model_len: int
    gpu_memory_utilization: float
    max_num_seqs: int
    max_num_batched_tokens: int
    cache_bytes: int  # of one number in the KV cache
    capture_sizes: tuple[int, ...]  # the tokens of each batch with a CUDA graph
    num_speculative_tokens: int  # guesses that a step checks for each request; 0 without speculation
    draft: ModelShape | None  # the model that guesses; None also if they come from the text
    stored_bytes: int | None  # of all safetensors, if known and served as stored

    @property
    def budget_bytes(self) -> int:
        """The memory that vLLM may use."""
        return math.ceil(self.gpu.memory_bytes * self.gpu_memory_utilization)

    @property
    def weights_bytes(self) -> int:
        """The weights on each GPU."""
        here = self.shape.weights_bytes(self.count)
        return here if self.stored_bytes is None else round(self.stored_bytes * here / self.shape.weights_bytes())

    @property
    def draft_bytes(self) -> int:
        """The weights of the draft model on each GPU."""
        if not self.draft:
            return 0
        return self.draft.weights_bytes(self.count) + self.draft.scale_bytes(self.count, has_fp8=self.gpu.has_fp8)

    @property
    def scale_bytes(self) -> int:
        """What vLLM adds to fp8 blocks for Marlin."""
        return self.shape.scale_bytes(self.count, has_fp8=self.gpu.has_fp8)

    @property
    def models_bytes(self) -> int:
        """All that is loaded: the weights, their scales, and the draft model."""
        return self.weights_bytes + self.scale_bytes + self.draft_bytes

    @property
    def activation_bytes(self) -> int:
        """The peak of a step: a full batch in one layer's MLP (gate, up, product), or the logits of all sequences."""
        columns = 3 * self.shape.intermediate // self.count + HIDDEN_COPIES * self.shape.hidden
        layer = self.step_tokens * columns * self.shape.dtype_bytes
        return max(layer, self.max_num_seqs * self.shape.vocab * LOGIT_BYTES)

    @property
    def step_tokens(self) -> int:
        """The tokens of a full step. A draft has a place in it for one more token of each request."""
        return self.max_num_batched_tokens - (self.max_num_seqs if self.draft else 0)

    @property
    def graph_bytes(self) -> int:
        """The CUDA graphs. vLLM 0.32 captures none of a draft model."""
        return len(self.capture_sizes) * self.shape.layers * GRAPH_BYTES

    @property
    def runtime_bytes(self) -> int:
        """The CUDA libraries, and NCCL's buffers if there are several GPUs."""
        return ONE_GPU_BYTES if self.count == 1 else SEVERAL_GPUS_BYTES

    @property
    def kv_bytes(self) -> int:
        """The room for the KV cache. A negative number is missing memory."""
        return self.budget_bytes - self.models_bytes - self.activation_bytes - self.graph_bytes - self.runtime_bytes

    @property
    def kv_bytes_per_token(self) -> int:
        """The keys and values of one token, those of the draft model included."""
        return self.shape.kv_bytes_per_token(self.count, self.cache_bytes) + self.draft_kv_bytes

    @property
    def draft_kv_bytes(self) -> int:
        """The keys and values of one token in the draft model."""
        return self.draft.kv_bytes_per_token(self.count, self.cache_bytes) if self.draft else 0

    @property
    def kv_tokens(self) -> int:
        """The tokens that fit into the KV cache. Each GPU keeps its own heads of every token."""
        if self.kv_bytes < 0 or self.split_problem:
            return 0
        return self.kv_bytes // self.kv_bytes_per_token // BLOCK_TOKENS * BLOCK_TOKENS

    @property
    def full_conversations(self) -> float:
        """The number of conversations as long as the context that fit at once."""
        return self.kv_tokens / self.max_model_len

    @property
    def needed_bytes(self) -> int:
        """The memory with room for one full conversation, and for a block that vLLM keeps empty. It needs no less."""
        blocks = -(-self.max_model_len // BLOCK_TOKENS) + 1
        return self.budget_bytes - self.kv_bytes + blocks * BLOCK_TOKENS * self.kv_bytes_per_token

    @property
    def split_problem(self) -> str | None:
        """Why the GPUs can't share the model or its draft; None if they can."""
        draft = self.draft.split_problem(self.count) if self.draft else None
        return self.shape.split_problem(self.count) or (draft and f"the draft model: {draft}")

    @property
    def problem(self) -> str | None:
        """Why the model does not fit; None if it fits."""
        if self.split_problem:
            return self.split_problem
        if self.needed_bytes > self.budget_bytes:
            return f"needs {gib(self.needed_bytes)} GiB, has {gib(self.budget_bytes)} GiB"
        return None

    @property
    def fits(self) -> bool:
        """Whether the model can be served."""
        return self.problem is None

    @property
    def pass_bytes(self) -> int:
        """What one pass reads of the models: the weights, and those of the draft once for each guess."""
        draft = self.draft_bytes - self.draft.embedding_table_bytes(self.count) if self.draft else 0
        target = self.weights_bytes + self.scale_bytes - self.shape.embedding_table_bytes(self.count)
        return target + self.num_speculative_tokens * draft

    @property
    def decode_tokens_per_second(self) -> float:
        """An upper limit for one stream. With speculation, every draft token would have to be accepted."""
        return (1 + self.num_speculative_tokens) * self.gpu.bandwidth_bytes_per_s / self.pass_bytes

    @property
    def full_tokens_per_second(self) -> float:
        """An upper limit for all slots together, with SHORT_TOKENS each: a pass reads the weights and all their KV."""
        streams = self.clients(SHORT_TOKENS)
        tokens = streams * (1 + self.num_speculative_tokens)
        kv = self.shape.kv_bytes_per_token(self.count, self.cache_bytes)
        cache = streams * SHORT_TOKENS * (kv + self.num_speculative_tokens * self.draft_kv_bytes)
        return tokens * self.gpu.bandwidth_bytes_per_s / (self.pass_bytes + cache)

    @property
    def gains(self) -> str:
        """What the plan leaves for conversations, in a few words."""
        full = f"{self.full_conversations:.1f} x {self.max_model_len:,}"
        speed = f" and at most {self.decode_tokens_per_second:.0f} tokens/s" if self.gpu.bandwidth_bytes_per_s else ""
        guessed = " if every draft token is accepted" if speed and self.num_speculative_tokens else ""
        return f"{self.kv_tokens:,} tokens of KV cache ({full}){speed}{guessed}"

    @property
    def suggestions(self) -> tuple[str, ...]:
        """Settings that fit, or that leave more room."""
        return tuple(_suggestions(self))

    def clients(self, tokens: int) -> int:
        """The number of conversations with this many tokens that fit at once."""
        return min(self.max_num_seqs, self.kv_tokens // tokens)

    def as_dict(self) -> dict[str, Any]:
        """Write the plan as JSON values."""
        given = [
            *("count", "max_model_len", "gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens"),
            "num_speculative_tokens",
        ]
        parts = ("budget", "weights", "scale", "draft", "activation", "graph", "runtime", "kv", "needed")
        return {
            "gpu": self.gpu.name,
            **{name: getattr(self, name) for name in given},
            "parameters": self.shape.parameters,
            "quantization": self.shape.quantisation.method if self.shape.quantisation else None,
            "bytes_per_gpu": {name: getattr(self, f"{name}_bytes") for name in parts},
            "capture_sizes": list(self.capture_sizes),
            "kv_bytes_per_token_per_gpu": self.kv_bytes_per_token,
            "kv_tokens": self.kv_tokens,
            "full_conversations": round(self.full_conversations, 2),
            "decode_tokens_per_second": round(self.decode_tokens_per_second, 1),
            "full_tokens_per_second": round(self.full_tokens_per_second, 1),
            "fits": self.fits,
            "problem": self.problem,
            "suggestions": list(self.suggestions),
        }


def plan_memory(
    shape: ModelShape,
    gpu: Gpu,
    count: int,
    *,
    max_model_len: int | None = None,
    gpu_memory_utilization: float = 0.95,
    max_num_seqs: int = 32,
    max_num_batched_tokens: int | None = None,
    quantization: str | None = None,
    cache_bytes: int | None = None,
    capture_sizes: Sequence[int] | None = None,
    num_speculative_tokens: int = 0,
    draft: ModelShape | None = None,
    weights_bytes: int | None = None,
) -> MemoryPlan:
    """Plan the memory of a model on `count` GPUs, and its room for conversations.

    Args:
        max_model_len: None means the whole context of the model.
        max_num_batched_tokens: None for vLLM's own choice.
        quantization: of the linear layers, one of QUANTISATIONS; None serves the checkpoint as stored.
        cache_bytes: of one number in the KV cache, 1 for kv_cache_dtype fp8; None for what the checkpoint says.
        capture_sizes: the tokens of batches with a CUDA graph; None for vLLM's own choice.
        num_speculative_tokens: guesses that a step checks for each request.
        draft: the shape of a draft model that makes them, split as the model is.
        weights_bytes: exact size of the checkpoint's safetensors. Ignored if `quantization` changes it.

    Raises:
        ValueError: a value is out of range, or the quantisation is not possible.
    """
    length = shape.context_tokens if max_model_len is None else max_model_len
    if not 1 <= length <= shape.context_tokens:
        raise ValueError(f"max_model_len is {length:,}; the context of the model is {shape.context_tokens:,} tokens")
    tokens = min(BATCHED_TOKENS, max_num_seqs * length) if max_num_batched_tokens is None else max_num_batched_tokens
    cache = shape.cache_bytes if cache_bytes is None else cache_bytes
    if min(count, max_num_seqs, tokens, cache) < 1:
        raise ValueError("count, max_num_seqs, max_num_batched_tokens and cache_bytes must be at least 1")
    if not 0 < gpu_memory_utilization <= 1:
        raise ValueError(f"gpu_memory_utilization is {gpu_memory_utilization}; it must be above 0 and at most 1")
    if tokens < max_num_seqs:
        raise ValueError(
            f"max_num_batched_tokens is {tokens:,}; vLLM wants one for each of max_num_seqs {max_num_seqs:,}"
        )
    if draft and not num_speculative_tokens:
        raise ValueError("a draft model needs num_speculative_tokens")
    if draft and cache_bytes is None and draft.cache_bytes < cache:
        raise ValueError("the kv_cache_scheme of the draft model is not that of the model; set kv_cache_dtype")
    if capture_sizes is None:
        capture_sizes = default_capture_sizes(max_num_seqs, 1 + num_speculative_tokens, tokens)
    plan = MemoryPlan(
        shape=shape,
        gpu=gpu,
        count=count,
        max_model_len=length,
        gpu_memory_utilization=gpu_memory_utilization,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=tokens,
        cache_bytes=cache,
        capture_sizes=tuple(sorted({size for size in capture_sizes if size <= tokens})),
        num_speculative_tokens=num_speculative_tokens,
        draft=draft,
        stored_bytes=weights_bytes,
    )
    return _quantised(plan, quantization) if quantization else plan


def default_capture_sizes(max_num_seqs: int, tokens_each: int, most: int) -> list[int]:
    """The batch sizes, in tokens, that vLLM 0.32 captures by itself: VllmConfig._set_cudagraph_sizes.

    Args:
        max_num_seqs: the requests of a batch, at most.
        tokens_each: of a request in one step, its guesses included.
        most: the tokens of a batch, at most.
    """
    largest = min(2 * max_num_seqs * tokens_each, MOST_CAPTURED)
    requests = {*_steps(min(max_num_seqs, MOST_CAPTURED)), min(max_num_seqs, MOST_CAPTURED)}
    if tokens_each == 1:
        requests = {max_num_seqs}
    whole = {count * tokens_each for count in requests if count * tokens_each <= largest}
    sizes = {*_steps(min(largest, most)), *whole, most}
    return sorted(size for size in sizes if size <= min(largest, most))


def _steps(largest: int) -> list[int]:
    return [size for size in (1, 2, 4, *range(8, 256, 8), *range(256, MOST_CAPTURED + 1, 16)) if size <= largest]


def _quantised(plan: MemoryPlan, method: str) -> MemoryPlan:
    stored = plan.shape.quantisation
    if stored and method in (stored.method, f"{stored.method}_marlin"):
        return plan
    if stored or method not in QUANTISATIONS:
        kept = f"the checkpoint is {stored.method}" if stored else f"known are {', '.join(QUANTISATIONS)}"
        raise ValueError(f"quantization is {method!r}; {kept}")
    return replace(plan, shape=replace(plan.shape, quantisation=QUANTISATIONS[method]), stored_bytes=None)


def _suggestions(plan: MemoryPlan) -> Iterator[str]:
    shorter = plan.kv_tokens // 256 * 256
    if shorter and not plan.fits:
        yield f"max_model_len {shorter:,} fits, for one conversation at a time"
    if plan.shape.quantisation is None:
        yield from _fewer_bits(plan)
    counts = () if plan.fits else (replace(plan, count=count) for count in range(1, MOST_GPUS + 1))
    if enough := next((each for each in counts if each.fits), None):
        yield f"{enough.count}x {plan.gpu.name} would give {enough.gains}"
    if plan.fits and plan.count > 1 and plan.gpu.memory_bytes - plan.budget_bytes < OUTSIDE_BYTES:
        most = math.floor(100 * (1 - OUTSIDE_BYTES / plan.gpu.memory_bytes)) / 100
        yield f"gpu_memory_utilization {most}, if vLLM does not find that much free: CUDA and NCCL take 1.5 GiB first"


def _fewer_bits(plan: MemoryPlan) -> Iterator[str]:
    fp8, awq = _quantised(plan, "fp8_per_block"), _quantised(plan, "awq")
    if fp8.fits:
        kind = "fp8" if plan.gpu.has_fp8 else "fp8 weight-only (Marlin)"
        yield f"{kind} would give {fp8.gains}: quantization fp8_per_block in engine_args, done while loading"
    if awq.fits:
        yield f"awq would give {awq.gains}: needs a checkpoint quantised that way"
