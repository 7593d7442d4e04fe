"""vLLM's engine arguments, as the memory plan reads them.

Some arguments are counted, and some change no memory of a GPU. With any other there is no plan: its numbers would be
wrong. https://docs.vllm.ai/en/stable/configuration/engine_args/
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from hermes.errors import InvalidConfiguration

CACHE_BYTES = {"auto": None, "bfloat16": 2, "float16": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}  # of one number
SPECULATIVE_METHODS = ("ngram", "ngram_gpu", "draft_model")
SPECULATIVE_KEYS = {"method", "model", "num_speculative_tokens", "prompt_lookup_min", "prompt_lookup_max"}

COUNTED = frozenset(
    (
        *("tensor_parallel_size", "max_model_len", "gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens"),
        *("cudagraph_capture_sizes", "enforce_eager", "quantization", "speculative_config"),
    )
)

NO_EFFECT = frozenset(
    (
        *("load_format", "model_loader_extra_config", "safetensors_load_strategy", "ignore_patterns", "download_dir"),
        *("safetensors_prefetch_num_threads", "safetensors_prefetch_block_size", "use_tqdm_on_load"),
        *("seed", "tokenizer", "tokenizer_mode", "tokenizer_revision", "revision", "hf_token", "served_model_name"),
        *("enable_prefix_caching", "prefix_caching_hash_algo", "scheduling_policy", "async_scheduling"),
        *("long_prefill_token_threshold", "stream_interval", "structured_outputs_config", "reasoning_parser"),
        *("generation_config", "override_generation_config", "disable_cascade_attn", "disable_log_stats"),
        *("enable_log_requests", "log_level", "distributed_timeout_seconds", "shutdown_timeout", "trust_remote_code"),
    )
)

# Arguments that have no effect with these values. The first is vLLM's default, except for kernel_config.
NO_EFFECT_WITH: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(("pipeline_parallel_size", "data_parallel_size", "prefill_context_parallel_size", "nnodes"), (1,)),
    **dict.fromkeys(("kv_cache_memory_bytes", "num_gpu_blocks_override", "max_cudagraph_capture_size"), (None,)),
    **dict.fromkeys(("enable_lora", "enable_sleep_mode", "enable_expert_parallel", "enable_dbo"), (False,)),
    **dict.fromkeys(("disable_custom_all_reduce", "disable_sliding_window"), (False,)),
    "decode_context_parallel_size": (1,),
    "distributed_executor_backend": (None, "mp", "uni"),
    "cpu_offload_gb": (0,),
    "enable_chunked_prefill": (None, True),
    "block_size": (None, 16),
    "dtype": ("auto", "bfloat16", "float16", "half"),
    "kv_cache_dtype": tuple(CACHE_BYTES),
    "performance_mode": ("balanced",),
    "optimization_level": (2,),
    "linear_backend": ("auto",),
    "kernel_config": ({"linear_backend_per_quant": {"w8a16_fp8": "marlin"}},),  # the production profiles'
}


class SpeculativeConfig(BaseModel):
    """vLLM's speculative_config. The keys that are missing here stay as they are."""

    model_config = ConfigDict(frozen=True, extra="allow")

    method: str | None = None
    model: str | None = None  # a folder or a repository
    num_speculative_tokens: PositiveInt

    @property
    def draft(self) -> str | None:
        """The folder or repository of the draft model; None without one."""
        return self.model if self.method == "draft_model" else None

    @property
    def is_planned(self) -> bool:
        """Whether the arithmetic knows this kind of speculation."""
        return self.method in SPECULATIVE_METHODS and self.model_dump(exclude_unset=True).keys() <= SPECULATIVE_KEYS


class EngineArguments(BaseModel):
    """vLLM's engine arguments. Those that decide about memory are fields; their numbers may be text, as in vLLM."""

    model_config = ConfigDict(frozen=True, extra="allow")

    tensor_parallel_size: PositiveInt = 1
    pipeline_parallel_size: PositiveInt = 1
    prefill_context_parallel_size: PositiveInt = 1
    data_parallel_size: PositiveInt = 1
    nnodes: PositiveInt = 1
    distributed_executor_backend: str | None = None
    max_model_len: int | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.92
    max_num_seqs: PositiveInt | None = None
    max_num_batched_tokens: PositiveInt | None = None
    cudagraph_capture_sizes: Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    enforce_eager: bool = False
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    quantization: str | None = None
    speculative_config: SpeculativeConfig | None = None

    @field_validator("max_model_len")
    @classmethod
    def _check_length(cls, value: int | None) -> int | None:
        if value is None or value > 0 or value == -1:
            return value
        raise ValueError("should be greater than 0, or -1 for the longest that fits")

    @field_validator("speculative_config", mode="before")
    @classmethod
    def _with_underscores(cls, value: Any) -> Any:
        return {str(key).replace("-", "_"): kept for key, kept in value.items()} if isinstance(value, dict) else value

    @classmethod
    def read(cls, engine_args: Mapping[str, Any]) -> "EngineArguments":
        """Read all engine arguments.

        Raises InvalidConfiguration, which names the argument, if a value has a type or a range that vLLM refuses.
        """
        try:
            return cls.model_validate(dict(engine_args))
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(["engine_args", *map(str, problem["loc"])])
            value = "" if problem["type"] == "missing" else f", not {problem['input']!r}"[:100]
            raise InvalidConfiguration(key, f"{problem['msg'].removeprefix('Value error, ')}{value}") from error

    @property
    def local_gpus(self) -> int:
        """The GPUs that this machine needs; one, if vLLM shares the model out over several machines."""
        if self.nnodes > 1 or self.distributed_executor_backend == "ray":
            return 1
        ranks = self.tensor_parallel_size * self.pipeline_parallel_size * self.prefill_context_parallel_size
        return ranks * self.data_parallel_size

    @property
    def explicit(self) -> dict[str, Any]:
        """The arguments that were set, with text as the numbers that it stands for."""
        return self.model_dump(exclude_unset=True)

    @property
    def not_planned(self) -> tuple[str, ...]:
        """The arguments with which the arithmetic would be wrong."""
        counted = COUNTED
        if self.max_model_len == -1:
            counted -= {"max_model_len"}
        if self.speculative_config and not self.speculative_config.is_planned:
            counted -= {"speculative_config"}
        known = counted | NO_EFFECT
        arguments = self.explicit.items()
        return tuple(
            name for name, value in arguments if name not in known and value not in NO_EFFECT_WITH.get(name, ())
        )

    @property
    def planned(self) -> dict[str, Any]:
        """The keywords of `plan_memory` that they stand for."""
        speculation, sizes = self.speculative_config, self.cudagraph_capture_sizes
        return {
            "max_model_len": self.max_model_len,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "max_num_seqs": self.max_num_seqs or 128,  # vLLM 0.32's default as hermes.engine starts it, on any GPU
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "quantization": self.quantization,
            "cache_bytes": CACHE_BYTES.get(self.kv_cache_dtype),
            "capture_sizes": () if self.enforce_eager else tuple(sizes) if sizes else None,
            "num_speculative_tokens": speculation.num_speculative_tokens if speculation else 0,
        }
