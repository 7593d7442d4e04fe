"""The memory plan: whether a model fits on some GPUs, and how much it can serve there.

The plan is arithmetic: it needs no GPU, no network and no vLLM. What vLLM takes besides weights and KV cache is an
estimate. Its constants are from logs of vLLM 0.19 on H100s, among them a Llama 70B on two and on four GPUs.
tests/sizing/test_plan.py compares the plan with these logs. They are in
https://github.com/llm-d-incubation/llm-d-planner/pull/205 (Llama 70B: accuracy/results/v0.19.0/logs/fp8dyn-llama-*).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from hermes.sizing.gpus import GIB, Gpu, gib
from hermes.sizing.shape import ModelShape, Quantisation

QUANTISATIONS = {"fp8": Quantisation("fp8", 8), "awq": Quantisation("awq", 4, group=128)}
BLOCK_TOKENS = 16  # in a block of the KV cache
BATCHED_TOKENS = 2048  # vLLM 0.32's max_num_batched_tokens as hermes.engine starts it, on any GPU
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
    capture_sizes: int | None  # batch sizes with a CUDA graph; None for those that vLLM chooses
    draft: ModelShape | None  # the model that guesses tokens ahead
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
        return self.draft.weights_bytes(self.count) if self.draft else 0

    @property
    def activation_bytes(self) -> int:
        """The peak of a step: a full batch in one layer's MLP (gate, up, product), or the logits of all sequences."""
        columns = 3 * self.shape.intermediate // self.count + HIDDEN_COPIES * self.shape.hidden
        layer = self.max_num_batched_tokens * columns * self.shape.dtype_bytes
        return max(layer, self.max_num_seqs * self.shape.vocab * LOGIT_BYTES)

    @property
    def graph_sizes(self) -> int:
        """The number of batch sizes that vLLM captures: 1, 2, 4, every 8th below 256, then every 16th, up to 512."""
        if self.capture_sizes is not None:
            return self.capture_sizes
        largest = min(2 * self.max_num_seqs, 512, self.max_num_batched_tokens)
        return len([size for size in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if size <= largest])

    @property
    def graph_layers(self) -> int:
        """The layers in each graph, those of the draft model included."""
        return self.shape.layers + (self.draft.layers if self.draft else 0)

    @property
    def graph_bytes(self) -> int:
        """The CUDA graphs."""
        return self.graph_sizes * self.graph_layers * GRAPH_BYTES

    @property
    def runtime_bytes(self) -> int:
        """The CUDA libraries, and NCCL's buffers if there are several GPUs."""
        return ONE_GPU_BYTES if self.count == 1 else SEVERAL_GPUS_BYTES

    @property
    def kv_bytes(self) -> int:
        """The room for the KV cache. A negative number is missing memory."""
        models = self.weights_bytes + self.draft_bytes
        return self.budget_bytes - models - self.activation_bytes - self.graph_bytes - self.runtime_bytes

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
        """The memory with room for one full conversation. vLLM does not start with less."""
        return self.budget_bytes - self.kv_bytes + self.max_model_len * self.kv_bytes_per_token

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
        if self.kv_tokens < self.max_model_len:
            return f"needs {gib(self.needed_bytes)} GiB, has {gib(self.budget_bytes)} GiB"
        return None

    @property
    def fits(self) -> bool:
        """Whether the model can be served."""
        return self.problem is None

    @property
    def decode_tokens_per_second(self) -> float:
        """An upper limit for one stream: each token reads all weights. The whole embeddings count too."""
        return self.gpu.bandwidth_bytes_per_s / self.weights_bytes

    @property
    def full_tokens_per_second(self) -> float:
        """An upper limit for all slots together, with SHORT_TOKENS each: a step reads the weights and all their KV."""
        streams = self.clients(SHORT_TOKENS)
        step = self.weights_bytes + streams * SHORT_TOKENS * self.kv_bytes_per_token
        return streams * self.gpu.bandwidth_bytes_per_s / step

    @property
    def gains(self) -> str:
        """What the plan leaves for conversations, in a few words."""
        full = f"{self.full_conversations:.1f} x {self.max_model_len:,}"
        speed = f" and at most {self.decode_tokens_per_second:.0f} tokens/s" if self.gpu.bandwidth_bytes_per_s else ""
        return f"{self.kv_tokens:,} tokens of KV cache ({full}){speed}"

    @property
    def suggestions(self) -> tuple[str, ...]:
        """Settings that fit, or that leave more room."""
        return tuple(_suggestions(self))

    def clients(self, tokens: int) -> int:
        """The number of conversations with this many tokens that fit at once."""
        return min(self.max_num_seqs, self.kv_tokens // tokens)

    def as_dict(self) -> dict[str, Any]:
        """Write the plan as JSON values."""
        given = ("count", "max_model_len", "gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens")
        parts = ("budget", "weights", "draft", "activation", "graph", "runtime", "kv", "needed")
        return {
            "gpu": self.gpu.name,
            **{name: getattr(self, name) for name in given},
            "parameters": self.shape.parameters,
            "quantization": self.shape.quantisation.method if self.shape.quantisation else None,
            "bytes_per_gpu": {name: getattr(self, f"{name}_bytes") for name in parts},
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
    max_num_batched_tokens: int = BATCHED_TOKENS,
    quantization: Literal["fp8", "awq"] | None = None,
    cache_bytes: int = 2,
    capture_sizes: int | None = None,
    draft: ModelShape | None = None,
    weights_bytes: int | None = None,
) -> MemoryPlan:
    """Plan the memory of a model on `count` GPUs, and its room for conversations.

    Args:
        max_model_len: None means the whole context of the model.
        quantization: of the linear layers; None serves the checkpoint as stored.
        cache_bytes: of one number in the KV cache; 1 for kv_cache_dtype fp8.
        capture_sizes: the number of batch sizes with a CUDA graph; None for vLLM's own choice.
        draft: the shape of a draft model for speculative decoding, split as the model is.
        weights_bytes: exact size of the checkpoint's safetensors. Ignored if `quantization` changes it.

    Raises:
        ValueError: a value is out of range, or the quantisation is not possible.
    """
    length = shape.context_tokens if max_model_len is None else max_model_len
    if not 1 <= length <= shape.context_tokens:
        raise ValueError(f"max_model_len is {length:,}; the context of the model is {shape.context_tokens:,} tokens")
    if min(count, max_num_seqs, max_num_batched_tokens, cache_bytes) < 1:
        raise ValueError("count, max_num_seqs, max_num_batched_tokens and cache_bytes must be at least 1")
    if not 0 < gpu_memory_utilization <= 1:
        raise ValueError(f"gpu_memory_utilization is {gpu_memory_utilization}; it must be above 0 and at most 1")
    plan = MemoryPlan(
        shape=shape,
        gpu=gpu,
        count=count,
        max_model_len=length,
        gpu_memory_utilization=gpu_memory_utilization,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        cache_bytes=cache_bytes,
        capture_sizes=capture_sizes,
        draft=draft,
        stored_bytes=weights_bytes,
    )
    return _quantised(plan, quantization) if quantization else plan


def planned_arguments(engine_args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `plan_memory` that vLLM's engine arguments stand for."""
    same = ("max_model_len", "gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens")
    known = {name: engine_args[name] for name in same if name in engine_args}
    method = engine_args.get("quantization")
    sizes = engine_args.get("cudagraph_capture_sizes")
    return {
        **known,
        "quantization": "fp8" if str(method).startswith("fp8") else method,
        "capture_sizes": len(sizes) if sizes else None,
    }


def _quantised(plan: MemoryPlan, method: str) -> MemoryPlan:
    stored = plan.shape.quantisation
    if stored and stored.method == method:
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
    fp8, awq = _quantised(plan, "fp8"), _quantised(plan, "awq")
    if fp8.fits:
        kind = "fp8" if plan.gpu.has_fp8 else "fp8 weight-only (Marlin)"
        yield f"{kind} would give {fp8.gains}: quantization fp8_per_block in engine_args, done while loading"
    if awq.fits:
        yield f"awq would give {awq.gains}: needs a checkpoint quantised that way"
