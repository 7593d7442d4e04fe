"""A memory plan as text: each number and its calculation."""

from textwrap import wrap

from hermes.sizing.gpus import gib
from hermes.sizing.plan import HIDDEN_COPIES, LOGIT_BYTES, SHORT_TOKENS, MemoryPlan


def describe(plan: MemoryPlan) -> str:
    """Write the plan for a terminal of 100 columns: each number, its calculation, and suggestions."""
    bits = plan.shape.quantisation.bits if plan.shape.quantisation else 8 * plan.shape.dtype_bytes
    model = f"{plan.shape.architecture}, {plan.shape.parameters:,} parameters in {bits} bits"
    split = plan.shape.split_problem(plan.count)
    table = [] if split else [f"{name:<15}{number:>8} {rest}" for name, number, rest in _rows(plan)]
    verdict = "fits" if plan.fits else f"does not fit: {plan.problem}"
    advice = [line for each in plan.suggestions for line in wrap(f"- {each}", 100, subsequent_indent="  ")]
    return "\n".join([f"{model}, on {plan.count}x {plan.gpu.name}", "", *table, *[""][: len(table)], verdict, *advice])


def _rows(plan: MemoryPlan) -> list[tuple[str, str, str]]:
    shape, full, left = plan.shape, plan.max_model_len, gib(plan.kv_bytes)
    token = f"{plan.kv_bytes_per_token / 1024:,.0f}"
    heads = f"{shape.layers} layers x {shape.kv_heads_per_gpu(plan.count)} KV heads x {shape.head_dim}"
    speed = f"{plan.gpu.bandwidth_bytes_per_s // 10**9:,} GB/s / {plan.weights_bytes / 1e9:.1f} GB of weights a token"
    short = f"{plan.clients(SHORT_TOKENS)} of {SHORT_TOKENS:,}"
    return [
        ("each GPU", gib(plan.gpu.memory_bytes), "GiB, as CUDA reports it"),
        ("for vLLM", gib(plan.budget_bytes), f"GiB, x {plan.gpu_memory_utilization} (gpu_memory_utilization)"),
        ("weights", gib(plan.weights_bytes), f"GiB, {_weights(plan)}"),
        ("activations", gib(plan.activation_bytes), f"GiB, {_activations(plan)}"),
        (
            "CUDA graphs",
            gib(plan.graph_bytes),
            f"GiB, {plan.graph_sizes} batch sizes x {shape.layers} layers x 0.5 MiB",
        ),
        ("libraries", gib(plan.runtime_bytes), "GiB, as measured" + (" with NCCL" if plan.count > 1 else "")),
        ("KV cache", left, "GiB, what is left" if plan.kv_bytes >= 0 else "GiB: so much is missing"),
        ("a token", token, f"KiB, {heads} x 2 (key, value) x {plan.cache_bytes} bytes, on each GPU"),
        ("tokens", f"{plan.kv_tokens:,}", f"in all, {left} GiB / {token} KiB" if plan.kv_tokens else "in all"),
        (
            "clients",
            str(plan.clients(full)),
            f"of {full:,} tokens at once, or {short} (max_num_seqs {plan.max_num_seqs})",
        ),
        ("one client", f"{plan.decode_tokens_per_second:.1f}", f"tokens/s at most, {speed}"),
    ]


def _weights(plan: MemoryPlan) -> str:
    shape, whole = plan.shape, f"{plan.weights_bytes * plan.count / 1e9:.1f} GB over {plan.count}"
    if plan.stored_bytes is not None:
        return f"{whole}: the safetensors"
    if shape.quantisation is None:
        return f"{whole}: {shape.parameters:,} x {shape.dtype_bytes} bytes"
    rest = shape.embedding_parameters + shape.norm_parameters
    linear = f"{shape.linear_parameters / 1e9:.1f} G x {shape.quantisation.bits_per_weight:.4g} bits"
    return f"{whole}: {linear} + {rest / 1e9:.1f} G x {8 * shape.dtype_bytes}"


def _activations(plan: MemoryPlan) -> str:
    shape = plan.shape
    if plan.activation_bytes == plan.max_num_seqs * shape.vocab * LOGIT_BYTES:
        return f"{plan.max_num_seqs} sequences x {shape.vocab:,} logits x {LOGIT_BYTES} bytes"
    columns = f"3 x {shape.intermediate:,} / {plan.count} + {HIDDEN_COPIES} x {shape.hidden:,}"
    return f"{plan.max_num_batched_tokens:,} tokens x ({columns}) x {shape.dtype_bytes} bytes"
