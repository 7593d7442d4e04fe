"""A memory plan as text: each number and its calculation."""

from textwrap import wrap

from hermes.sizing.gpus import gib
from hermes.sizing.plan import HIDDEN_COPIES, LOGIT_BYTES, SHORT_TOKENS, MemoryPlan
from hermes.sizing.shape import ModelShape

SCALES = "16 bits for every 128 weights, as Marlin reads fp8 blocks"


def describe(plan: MemoryPlan, price: float | None = None) -> str:
    """Write the plan for a terminal of 100 columns: each number, its calculation, and suggestions.

    Args:
        plan: what to write.
        price: dollars per hour of all its GPUs, for the cost of a million tokens; None leaves that out.
    """
    bits = plan.shape.quantisation.bits if plan.shape.quantisation else 8 * plan.shape.dtype_bytes
    model = f"{plan.shape.architecture}, {plan.shape.parameters:,} parameters in {bits} bits"
    rows = [] if plan.split_problem else [*_rows(plan), *(_costs(plan, price) if price is not None else ())]
    table = [f"{name:<15}{number:>8} {rest}" for name, number, rest in rows]
    verdict = "fits" if plan.fits else f"does not fit: {plan.problem}"
    advice = [line for each in plan.suggestions for line in wrap(f"- {each}", 100, subsequent_indent="  ")]
    return "\n".join([f"{model}, on {plan.count}x {plan.gpu.name}", "", *table, *[""][: len(table)], verdict, *advice])


def _rows(plan: MemoryPlan) -> list[tuple[str, str, str]]:
    shape, full, left = plan.shape, plan.max_model_len, gib(plan.kv_bytes)
    token = f"{plan.kv_bytes_per_token / 1024:,.0f}"
    beside = f" + draft's {plan.draft_kv_bytes / 1024:,.0f}" if plan.draft else ", on each GPU"
    tokens = f", {1 + plan.num_speculative_tokens} tokens a pass" if plan.num_speculative_tokens else ""
    heads = f"{shape.layers} layers x {shape.kv_heads_per_gpu(plan.count)} KV heads x {shape.head_dim}"
    speed = f"{plan.gpu.bandwidth_bytes_per_s // 10**9:,} GB/s / {plan.pass_bytes / 1e9:.1f} GB that a pass reads"
    short = f"{plan.clients(SHORT_TOKENS)} of {SHORT_TOKENS:,}"
    return [
        ("each GPU", gib(plan.gpu.memory_bytes), "GiB, as CUDA reports it"),
        ("for vLLM", gib(plan.budget_bytes), f"GiB, x {plan.gpu_memory_utilization} (gpu_memory_utilization)"),
        ("weights", gib(plan.weights_bytes), f"GiB, {_weights(plan)}"),
        *([("scales", gib(plan.scale_bytes), f"GiB, {SCALES}")] if plan.scale_bytes else []),
        *([("draft model", gib(plan.draft_bytes), f"GiB, {_draft(plan.draft, plan)}")] if plan.draft else []),
        ("activations", gib(plan.activation_bytes), f"GiB, {_activations(plan)}"),
        (
            "CUDA graphs",
            gib(plan.graph_bytes),
            f"GiB, {len(plan.capture_sizes)} batch sizes x {shape.layers} layers x 0.5 MiB",
        ),
        ("libraries", gib(plan.runtime_bytes), "GiB, as measured" + (" with NCCL" if plan.count > 1 else "")),
        ("KV cache", left, "GiB, what is left" if plan.kv_bytes >= 0 else "GiB: so much is missing"),
        ("a token", token, f"KiB, {heads} x 2 (key, value) x {plan.cache_bytes} bytes{beside}"),
        ("tokens", f"{plan.kv_tokens:,}", f"in all, {left} GiB / {token} KiB" if plan.kv_tokens else "in all"),
        (
            "clients",
            str(plan.clients(full)),
            f"of {full:,} tokens at once, or {short} (max_num_seqs {plan.max_num_seqs})",
        ),
        ("one client", f"{plan.decode_tokens_per_second:.1f}", f"tokens/s at most{tokens}, {speed}"),
        (
            "all clients",
            f"{plan.full_tokens_per_second:,.0f}",
            f"tokens/s at most{tokens}, {short} with their KV cache",
        ),
    ]


def costs(plan: MemoryPlan, price: float) -> dict[str, float]:
    """The least that a million tokens cost in dollars, at the limits of the plan, for one client and for all.

    Args:
        plan: the plan.
        price: dollars per hour of all its GPUs.
    """
    return {who: price / 3_600 / rate * 1e6 for who, rate in _rates(plan).items()}


def _rates(plan: MemoryPlan) -> dict[str, float]:
    rates = {"one client": plan.decode_tokens_per_second, "all clients": plan.full_tokens_per_second}
    return {who: rate for who, rate in rates.items() if rate}


def _costs(plan: MemoryPlan, price: float) -> list[tuple[str, str, str]]:
    rates = _rates(plan)
    return [
        (
            "a million",
            f"${cost:,.2f}",
            f"tokens, {who}, at least ${price:,.2f} / 3,600 / {rates[who]:,.1f} tokens/s x 10^6",
        )
        for who, cost in costs(plan, price).items()
    ]


def _draft(draft: ModelShape, plan: MemoryPlan) -> str:
    return f"{draft.parameters / 1e9:.1f} G x {draft.dtype_bytes} bytes over {plan.count}, for speculative decoding"


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
    return f"{plan.step_tokens:,} tokens x ({columns}) x {shape.dtype_bytes} bytes"
