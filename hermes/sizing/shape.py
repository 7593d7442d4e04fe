"""The shape of a model: its parameters and bytes.

The shape of a Llama-like model is in its Hugging Face config.json. Several GPUs share a model by vLLM's tensor
parallelism: https://docs.vllm.ai/en/stable/serving/parallelism_scaling/
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

LLAMA_LIKE = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
SERVED_BYTES = {"bfloat16": 2, "float16": 2, "float32": 2}  # vLLM's dtype "auto" serves float32 in 16 bits
CONTEXT_IS_SCALED = ("default", "su", "longrope", "llama3", "yarn")  # RoPE types whose factor vLLM does not apply
VOCAB_PADDING = 64  # vLLM rounds the vocabulary up to a multiple of this
BLOCK = 128  # rows and columns that share a scale in fp8 blocks


@dataclass(frozen=True)
class Quantisation:
    """The quantisation of the linear layers. Embeddings, lm_head and norms stay in 16 bits."""

    method: str
    bits: int
    group: int = 0  # weights that share a scale and a zero; 0 means a row or a block, whose scale is negligible
    in_blocks: bool = False  # fp8 with a scale for each BLOCK x BLOCK weights

    @property
    def bits_per_weight(self) -> float:
        """The bits of a weight, with its part of the group's 16-bit scale and of the zero, as wide as a weight."""
        return self.bits + ((16 + self.bits) / self.group if self.group else 0)


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a Llama-like decoder."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    intermediate: int
    tied_embeddings: bool  # lm_head is the embedding table
    context_tokens: int
    dtype_bytes: int = 2  # as served
    architecture: str = "LlamaForCausalLM"
    layer_extras: int = 0  # parameters of one layer in biases, and in norms of queries and keys
    quantisation: Quantisation | None = None  # as the checkpoint is stored
    cache_bytes: int = 2  # of one number in the KV cache, if the engine arguments do not say

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ModelShape":
        """Read the shape from a config.json.

        Raises ValueError if a key is missing or not usable, or the model is not Llama-like.
        """
        hidden, heads = _number(config, "hidden_size"), _number(config, "num_attention_heads")
        shape = cls(
            layers=_number(config, "num_hidden_layers"),
            hidden=hidden,
            heads=heads,
            kv_heads=_number(config, "num_key_value_heads", heads),
            head_dim=_number(config, "head_dim", hidden // heads),
            vocab=_number(config, "vocab_size"),
            intermediate=_number(config, "intermediate_size"),
            tied_embeddings=bool(config.get("tie_word_embeddings")),
            context_tokens=_context_tokens(config),
            dtype_bytes=_dtype_bytes(config),
            architecture=_architecture(config),
            quantisation=_quantisation(config),
            cache_bytes=_cache_bytes(config),
        )
        _require_full_attention(config)
        return replace(shape, layer_extras=_layer_extras(shape, config))

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.linear_parameters + self.embedding_parameters + self.norm_parameters

    @property
    def linear_parameters(self) -> int:
        """The matrices of the layers. Quantisation makes only these smaller."""
        return self.layers * (self._split_matrices + self._kv_matrices)

    @property
    def embedding_parameters(self) -> int:
        """The embedding table, and lm_head if it is not the same table."""
        return self.vocab * self.hidden * (1 if self.tied_embeddings else 2)

    @property
    def norm_parameters(self) -> int:
        """Two norms and the extras of each layer, and the last norm."""
        return self.layers * (2 * self.hidden + self.layer_extras) + self.hidden

    @property
    def _split_matrices(self) -> int:
        """The matrices of one layer that are always split: queries and output; gate, up and down."""
        return self.hidden * (2 * self.heads * self.head_dim + 3 * self.intermediate)

    @property
    def _kv_matrices(self) -> int:
        return self.hidden * 2 * self.kv_heads * self.head_dim

    def weights_bytes(self, gpus: int = 1) -> int:
        """The bytes on each GPU. Matrices and embeddings are split, KV heads too if there are enough; norms are not."""
        bits = self.quantisation.bits_per_weight if self.quantisation else 8 * self.dtype_bytes
        linear = self._linear_per_gpu(gpus) * bits / 8
        return round(linear + (self.embedding_parameters / gpus + self.norm_parameters) * self.dtype_bytes)

    def scale_bytes(self, gpus: int, *, has_fp8: bool) -> int:
        """The bytes on each GPU of the scales of fp8 blocks, if GPUs without such kernels read them with Marlin.

        Marlin has no blocks: vLLM repeats each scale, in 16 bits, for every row of its block.
        """
        if has_fp8 or not (self.quantisation and self.quantisation.in_blocks):
            return 0
        return round(self._linear_per_gpu(gpus) / BLOCK * 2)

    def embedding_table_bytes(self, gpus: int) -> int:
        """The bytes on each GPU of the embedding table, of which a token reads one row; 0 if it is lm_head, too."""
        return 0 if self.tied_embeddings else self.vocab * self.hidden * self.dtype_bytes // gpus

    def _linear_per_gpu(self, gpus: int) -> float:
        kv_share = self.kv_heads_per_gpu(gpus) / self.kv_heads
        return self.layers * (self._split_matrices / gpus + self._kv_matrices * kv_share)

    def kv_heads_per_gpu(self, gpus: int) -> int:
        """The KV heads on each GPU. With more GPUs than KV heads, several GPUs keep the same head."""
        return max(1, self.kv_heads // gpus)

    def kv_bytes_per_token(self, gpus: int = 1, cache_bytes: int = 2) -> int:
        """The bytes on each GPU of one token's keys and values in all layers."""
        return self.layers * self.kv_heads_per_gpu(gpus) * self.head_dim * 2 * cache_bytes

    def split_problem(self, gpus: int) -> str | None:
        """Why vLLM can't split the model over this many GPUs; None if it can."""
        padded_vocab = -(-self.vocab // VOCAB_PADDING) * VOCAB_PADDING
        wanted = {"attention heads": self.heads, "MLP columns": self.intermediate, "rows of vocabulary": padded_vocab}
        for name, number in wanted.items():
            if number % gpus:
                return f"{number:,} {name} can't be split over {gpus} GPUs"
        if max(self.kv_heads, gpus) % min(self.kv_heads, gpus):
            return f"{self.kv_heads} KV heads can't be split over {gpus} GPUs"
        return None


def _number(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = default if config.get(key) is None else config[key]
    if value is None:
        raise ValueError(f"config.json has no {key}")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"config.json: {key} is {value!r}, not a positive whole number")
    return value


def _section(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key) or {}
    if isinstance(value, Mapping):
        return value
    raise ValueError(f"config.json: {key} is {value!r}, not an object")


def _architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    if not names or not isinstance(names, list):
        raise ValueError("config.json has no architectures")
    if names[0] not in LLAMA_LIKE:
        raise ValueError(f"config.json: {names[0]} is not supported, only {', '.join(LLAMA_LIKE)}")
    return str(names[0])


def _dtype_bytes(config: Mapping[str, Any]) -> int:
    name = config.get("dtype") or config.get("torch_dtype") or "bfloat16"  # old files have neither
    if name not in SERVED_BYTES:
        raise ValueError(f"config.json: dtype is {name!r}, not one of {', '.join(SERVED_BYTES)}")
    return SERVED_BYTES[name]


def _context_tokens(config: Mapping[str, Any]) -> int:
    tokens = _number(config, "max_position_embeddings")
    rope = _section(config, "rope_parameters") or _section(config, "rope_scaling")
    kind = rope.get("rope_type") or rope.get("type") or "default"
    factor = 1 if kind in CONTEXT_IS_SCALED else rope.get("factor") or 1
    if isinstance(factor, int | float):
        return int(tokens * factor)
    raise ValueError(f"config.json: the RoPE factor is {factor!r}, not a number")


def _layer_extras(shape: ModelShape, config: Mapping[str, Any]) -> int:
    qkv = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    always = {"Qwen2ForCausalLM": qkv, "Qwen3ForCausalLM": 2 * shape.head_dim}
    attention = qkv + shape.hidden if config.get("attention_bias") else 0
    mlp = 2 * shape.intermediate + shape.hidden if config.get("mlp_bias") else 0
    return always.get(shape.architecture, 0) + attention + mlp


def _require_full_attention(config: Mapping[str, Any]) -> None:
    """Raises ValueError if some layers keep only the last tokens in the KV cache."""
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    if window or set(config.get("layer_types") or ["full_attention"]) != {"full_attention"}:
        raise ValueError("config.json: a KV cache with a sliding window is not planned")


def _quantisation(config: Mapping[str, Any]) -> Quantisation | None:
    declared = _section(config, "quantization_config")
    method = declared.get("quant_method")
    if not declared:
        return None
    if method == "fp8":
        return Quantisation("fp8", 8, in_blocks=_in_blocks(declared.get("weight_block_size")))
    if method in ("awq", "gptq"):
        return _grouped(method, declared, "bits")
    if method == "compressed-tensors":
        groups = _section(declared, "config_groups")
        kinds = [_compressed(_section(groups, name)) for name in groups] or [_compressed({})]
        return max(kinds, key=lambda each: each.bits_per_weight)
    raise ValueError(f"config.json: quant_method is {method!r}, not one of awq, gptq, fp8, compressed-tensors")


def _compressed(group: Mapping[str, Any]) -> Quantisation:
    weights = _section(group, "weights")
    found = _grouped("compressed-tensors", weights, "num_bits")
    if not _in_blocks(weights.get("block_structure")):
        return found
    if not group.get("input_activations"):
        raise ValueError("config.json: vLLM 0.32 can't load fp8 blocks that have no input_activations; quantise again")
    return replace(found, in_blocks=True)


def _in_blocks(size: object) -> bool:
    if size in (None, [BLOCK, BLOCK]):
        return size is not None
    raise ValueError(f"config.json: blocks of {size!r} are not planned, only of [{BLOCK}, {BLOCK}]")


def _grouped(method: str, declared: Mapping[str, Any], bits_key: str) -> Quantisation:
    group = declared.get("group_size")
    return Quantisation(method, _number(declared, bits_key), group if isinstance(group, int) and group > 0 else 0)


def _cache_bytes(config: Mapping[str, Any]) -> int:
    declared = _section(config, "quantization_config")
    scheme = _section(declared, "kv_cache_scheme") if declared.get("quant_method") == "compressed-tensors" else {}
    if scheme and scheme.get("num_bits") != 8:
        raise ValueError(f"config.json: kv_cache_scheme has {scheme.get('num_bits')!r} num_bits, not 8")
    return 1 if scheme else 2


_THETA_70B = ModelShape(
    layers=80,
    hidden=8192,
    heads=64,
    kv_heads=8,
    head_dim=128,
    vocab=128256,
    intermediate=28672,
    tied_embeddings=False,
    context_tokens=8192,
)

# A plan for these needs no network. The shape of the 70B adds up to the 70,553,706,496 parameters of its safetensors.
KNOWN_SHAPES: Mapping[str, ModelShape] = MappingProxyType(
    {
        "NousResearch/Hermes-2-Theta-Llama-3-70B": _THETA_70B,
        "NousResearch/Hermes-2-Theta-Llama-3-8B": replace(
            _THETA_70B, layers=32, hidden=4096, heads=32, intermediate=14336
        ),
    }
)
