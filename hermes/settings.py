"""Settings: environment HERMES_* over predictor_config.json in the weights folder over the profile's defaults.

predictor_config.json has the two keys that replicate/cog-vllm writes there: prompt_template and engine_args. It comes
with the weights, from elsewhere; so of the engine's arguments it may only set some.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from hermes.errors import InvalidConfiguration

PREFIX = "HERMES_"

# What a weights folder may set: sizes and speeds. Nothing here names code, a file, a host or another model.
FOLDER_MAY_SET = frozenset(
    {
        "async_scheduling",
        "block_size",
        "cpu_offload_gb",
        "cudagraph_capture_sizes",
        "disable_cascade_attn",
        "disable_custom_all_reduce",
        "disable_sliding_window",
        "dtype",
        "enable_chunked_prefill",
        "enable_expert_parallel",
        "enable_prefix_caching",
        "enforce_eager",
        "gpu_memory_utilization",
        "kv_cache_dtype",
        "kv_cache_memory_bytes",
        "long_prefill_token_threshold",
        "max_cudagraph_capture_size",
        "max_model_len",
        "max_num_batched_tokens",
        "max_num_seqs",
        "num_gpu_blocks_override",
        "optimization_level",
        "performance_mode",
        "pipeline_parallel_size",
        "quantization",
        "scheduling_policy",
        "seed",
        "tensor_parallel_size",
    }
)


@dataclass(frozen=True)
class Profile:
    """What one kind of machine serves, and how."""

    name: str
    model: str  # a source of weights, as hermes/weights/source.py has them
    cuda_devices: int  # that many must be there before anything else is tried
    engine_args: Mapping[str, Any]  # vLLM's AsyncEngineArgs
    environment: Mapping[str, str] = field(default_factory=dict)  # for vLLM, where the process has not set it


PROFILES = MappingProxyType(
    {
        "production": Profile(
            name="production",
            model="hf://NousResearch/Hermes-2-Theta-Llama-3-70B",
            cuda_devices=2,
            engine_args={
                "load_format": "safetensors",  # vLLM's own default goes on to *.bin and *.pt, which are pickles
                "tensor_parallel_size": 2,
                "dtype": "bfloat16",
                "max_model_len": 8192,
                "gpu_memory_utilization": 0.95,
            },
            # Its warm-up would build a kernel with ninja and nvcc, for a sampler that takes no request with a seed, as
            # all of ours have.
            environment={"VLLM_USE_FLASHINFER_SAMPLER": "0"},
        ),
        "local": Profile(
            name="local",
            model="demo",
            cuda_devices=0,
            engine_args={
                "load_format": "safetensors",
                "tensor_parallel_size": 1,
                "dtype": "bfloat16",
                "enforce_eager": True,  # torch.compile costs 50 s of start for 15 % of speed
                # vLLM 0.32's CPU worker dies of a seeded prompt in chunks: "CPU Generator does not use offset".
                "enable_chunked_prefill": False,
            },
            environment={"VLLM_CPU_KVCACHE_SPACE": "2"},  # GiB
        ),
    }
)


class PredictorConfig(BaseModel):
    """predictor_config.json, as far as it is there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt_template: str | None = None
    engine_args: dict[str, Any] = {}


class Settings(BaseSettings):
    """One server's settings. Every field is the environment variable HERMES_<FIELD>."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    profile: Literal["production", "local"] = "production"
    model: str | None = None  # a source of weights; None is the profile's own model
    hub_token: SecretStr | None = None  # None leaves it to huggingface_hub: HF_TOKEN, or a log-in
    weights_dir: Path = Path("weights")  # where fetched weights are kept
    weights_lock: Path = Path("weights/weights.lock")  # what they have to be
    prompt_template: str | None = None  # for requests that bring none; None or "" is ChatML
    engine_args: dict[str, Any] = {}  # any of vLLM's AsyncEngineArgs, as JSON
    request_timeout: PositiveFloat = 900  # seconds after which a prediction ends with what it has
    stall_timeout: PositiveFloat = 60  # seconds without a sign of an engine that has work until it counts as dead
    engine_death_grace: NonNegativeFloat | Literal["off"] = 10  # seconds from its death to the server's exit
    shutdown_grace: NonNegativeFloat = 4  # seconds that running predictions have after SIGTERM
    log_prompts: bool = False  # for debugging: prompts and answers in the log

    @classmethod
    def load(cls) -> "Settings":
        """Read the environment.

        Raises:
            InvalidConfiguration: a HERMES_ variable is unknown, or its value can't be used.
        """
        known = {PREFIX + name.upper() for name in cls.model_fields}
        for name in os.environ:
            if name.startswith(PREFIX) and name not in known:
                raise InvalidConfiguration(name, f"there is no such setting; there are {', '.join(sorted(known))}")
        try:
            return cls()
        except ValidationError as error:
            problem = error.errors()[0]
            key = PREFIX + "_".join(str(part) for part in problem["loc"]).upper()
            raise InvalidConfiguration(key, problem["msg"]) from error
        except ValueError as error:  # pydantic-settings: a value that should be JSON and is not
            raise InvalidConfiguration(f"{PREFIX}ENGINE_ARGS", f"this is not a JSON object ({error})") from error

    @property
    def defaults(self) -> Profile:
        return PROFILES[self.profile]

    @property
    def slots(self) -> int:
        """How many predictions run at once: Cog's own variable, which its image sets from @concurrent in predict.py."""
        value = os.environ.get("COG_MAX_CONCURRENCY", "32")
        if not value.isdecimal() or int(value) < 1:
            raise InvalidConfiguration("COG_MAX_CONCURRENCY", f"is {value!r}; it has to be a whole number from 1 up")
        return int(value)

    @property
    def source(self) -> str:
        """Where the weights come from."""
        return self.model or self.defaults.model

    def with_predictor_config(self, folder: Path) -> "Settings":
        """These settings, completed by predictor_config.json in `folder` and by the profile's defaults.

        Raises:
            InvalidConfiguration: the file can't be read, has an unknown key, or sets what is not its to set.
        """
        file = _read_predictor_config(folder / "predictor_config.json")
        require_allowed(file.engine_args)
        template = file.prompt_template if self.prompt_template is None else self.prompt_template
        engine_args = {
            "max_num_seqs": self.slots,
            **self.defaults.engine_args,
            **file.engine_args,
            **self.engine_args,
        }
        return self.model_copy(update={"prompt_template": template, "engine_args": engine_args})


def _read_predictor_config(path: Path) -> PredictorConfig:
    if not path.is_file():
        return PredictorConfig()
    try:
        return PredictorConfig.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join([path.name, *(str(part) for part in problem["loc"])])
        raise InvalidConfiguration(key, problem["msg"]) from error
    except ValueError as error:
        raise InvalidConfiguration(path.name, f"this is not a JSON file ({error})") from error


def require_allowed(engine_args: Mapping[str, Any]) -> None:
    """Raises InvalidConfiguration at the first argument that the predictor_config.json of a folder may not set."""
    for name in engine_args:
        if name not in FOLDER_MAY_SET:
            raise InvalidConfiguration(
                f"predictor_config.json.engine_args.{name}",
                "a weights folder may not set this; if it is meant, set it in HERMES_ENGINE_ARGS, which belongs to "
                "whoever runs the server",
            )
