"""The settings of one server.

The environment (HERMES_*) overrides predictor_config.json in the weights folder, which overrides the profile.
predictor_config.json has the two keys of replicate/cog-vllm: prompt_template and engine_args. It comes with the weights
from elsewhere, so it may set only some arguments of the engine.
"""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, PositiveInt, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from hermes.errors import InvalidConfiguration

PREFIX = "HERMES_"
NOT_OF_A_SERVER = (  # the gateway reads the first two, and Compose the others
    "HERMES_GATEWAY_TOKENS",
    "HERMES_GATEWAY_TOKENS_FILE",
    "HERMES_GATEWAY_BIND",
    "HERMES_GATEWAY_PORT",
    "HERMES_GATEWAY_PUBLIC_URL",
    "HERMES_IMAGE",
)

# A weights folder may set sizes and speeds. No argument here names code, a file, a host or another model.
FOLDER_MAY_SET = frozenset(
    (
        *("max_model_len", "max_num_seqs", "max_num_batched_tokens", "enable_chunked_prefill", "seed", "dtype"),
        *("long_prefill_token_threshold", "gpu_memory_utilization", "kv_cache_memory_bytes", "num_gpu_blocks_override"),
        *("block_size", "cpu_offload_gb", "quantization", "kv_cache_dtype", "enable_prefix_caching"),
        *("scheduling_policy", "async_scheduling", "tensor_parallel_size", "pipeline_parallel_size"),
        *("enable_expert_parallel", "disable_custom_all_reduce", "enforce_eager", "optimization_level"),
        *("performance_mode", "cudagraph_capture_sizes", "max_cudagraph_capture_size"),
        *("disable_cascade_attn", "disable_sliding_window"),
    )
)


@dataclass(frozen=True)
class Profile:
    """The model and the defaults for one kind of machine."""

    name: str
    model: str  # a source of weights, see hermes/weights/source.py
    on_gpus: bool  # which must be there before anything else starts
    engine_args: Mapping[str, Any]  # for vLLM's AsyncEngineArgs
    environment: Mapping[str, str] = field(default_factory=dict)  # variables for vLLM, unless the process has set them
    stall_timeout: float = 60.0  # the default of the setting


PRODUCTION = Profile(
    name="production",
    model="hf://NousResearch/Hermes-2-Theta-Llama-3-70B",
    on_gpus=True,
    engine_args={
        "load_format": "safetensors",  # vLLM's default also loads *.bin and *.pt, which are pickles
        "tensor_parallel_size": 2,
        "dtype": "bfloat16",
        "max_model_len": 8192,
        "gpu_memory_utilization": 0.95,
        # On an A100 vLLM takes Marlin for fp8 while loading, and would take Humming for the same weights in a file.
        "kernel_config": {"linear_backend_per_quant": {"w8a16_fp8": "marlin"}},
    },
    environment={
        # The warm-up of this sampler builds a kernel with ninja and nvcc. It would serve no request: all of ours
        # have a seed, and the sampler takes none with a seed.
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
    },
)

PRODUCTION_FP8 = replace(
    PRODUCTION,
    name="production-fp8",
    engine_args={
        **PRODUCTION.engine_args,
        "quantization": "fp8_per_block",  # while loading, in blocks of 128 x 128 weights; an A100 multiplies in 16 bits
        "kv_cache_dtype": "auto",  # bfloat16; FlashAttention needs newer GPUs for fp8
        "max_num_batched_tokens": 1024,  # a long prompt holds the other streams half as long as with vLLM's 2048
        "cudagraph_capture_sizes": [1, 2, 4, 8, 16, 24, 32],  # vLLM's own eleven go to 64, twice the slots
    },
)

# One core is for the server and for other programs. Threads on all cores wait for each other in busy loops: beside a
# program that kept one of two cores busy, the engine gave less than a token a second.
THREADS = os.environ.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) - 1))

# A larger model, by its weights in 16 bits, is served in bfloat16 by any CPU: float32 takes twice the memory.
FLOAT32_BYTES = 4_000_000_000


def cpu_dtype(description: str) -> str:
    """The dtype in which a CPU is fastest, from its /proc/cpuinfo, where flags name the instructions that it has.

    Without instructions for bfloat16, SmolLM2 gives 2.2 times as many tokens in float32.
    """
    return "bfloat16" if re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", description) else "float32"


def first_cpu() -> str:
    """The description of the first core, or nothing where the system has none, as macOS."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        return file.read(10_000)
    return ""


LOCAL = Profile(
    name="local",
    model="demo",
    on_gpus=False,
    engine_args={
        "load_format": "safetensors",
        "tensor_parallel_size": 1,
        "dtype": cpu_dtype(first_cpu()),
        "use_tqdm_on_load": False,  # its bar would be four lines of the log, for a second
        "enforce_eager": True,  # torch.compile adds 15 % of speed for 50 s of start
        # A seeded prompt in chunks kills vLLM 0.32's CPU worker: "CPU Generator does not use offset".
        "enable_chunked_prefill": False,
    },
    stall_timeout=600.0,  # a prompt is one step, and one of 6,600 tokens took over a minute on a busy machine
    environment={
        "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
        # vLLM 0.32 cannot load on a CPU what it compiled ahead of time. Inductor's own cache can be loaded.
        "VLLM_USE_AOT_COMPILE": "0",
        # The model runs in the core process. vLLM would make a worker process, and its queue keeps a core busy.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": THREADS,
        # vLLM looks for n-grams with numba, which gives its own number of threads, all cores, to torch as well.
        "NUMBA_NUM_THREADS": THREADS,
    },
)

PROFILES = MappingProxyType({profile.name: profile for profile in (PRODUCTION, PRODUCTION_FP8, LOCAL)})

NGRAM = "ngram"  # speculation without a draft model


class PredictorConfig(BaseModel):
    """The content of predictor_config.json. A missing key has its default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt_template: str | None = None
    engine_args: dict[str, Any] = {}


class DeathGrace(BaseSettings):
    """The setting that holds even where another one is invalid, and so ends a server that could not start."""

    # An empty variable is an unset one: Compose passes such from a file.
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    engine_death_grace: NonNegativeFloat | Literal["off"] = 10  # seconds from a failed start, or a death, to the exit


def death_grace() -> float | str:
    """The engine_death_grace. Its default if its value is invalid."""
    try:
        return DeathGrace().engine_death_grace
    except ValidationError:
        return float(DeathGrace.model_fields["engine_death_grace"].default)


class Settings(DeathGrace):
    """The settings of one server. The environment variable HERMES_<FIELD> sets each field."""

    profile: Literal["production", "production-fp8", "local"] = "production"
    model: str | None = None  # a source of weights; None for the model of the profile
    hub_token: SecretStr | None = None  # with None, huggingface_hub uses HF_TOKEN or a log-in
    weights_dir: Path = Path("weights")  # the folder of fetched and converted models
    weights_lock: Path = Path("weights/weights.lock")  # the exact files of each source
    prompt_template: str | None = None  # for requests without one; None or "" is ChatML
    engine_args: dict[str, Any] = {}  # any arguments of vLLM's AsyncEngineArgs, as JSON
    speculation: str | None = None  # "ngram", or the source of a draft model; None does without
    packed_cache: bool = False  # use the compiled code that came in the archive of the weights
    request_timeout: PositiveFloat = 900  # seconds until a prediction ends with its text so far
    start_timeout: PositiveFloat = 3600  # seconds for the engine to load the model and to answer once
    stall_timeout: PositiveFloat | None = None  # seconds without progress until a busy engine is dead; None: by profile
    shutdown_grace: NonNegativeFloat = 4  # seconds for running predictions after SIGTERM
    stream_interval: PositiveInt = 2  # tokens a piece of each response that begins while 16 run; 1 streams each token
    log_prompts: bool = False  # write prompts and answers to the log, for debugging

    @classmethod
    def load(cls) -> "Settings":
        """Read the environment.

        Raises InvalidConfiguration if a HERMES_ variable is unknown or has an invalid value.
        """
        known = {PREFIX + name.upper() for name in cls.model_fields}
        for name in os.environ:
            if name.startswith(PREFIX) and name not in (*known, *NOT_OF_A_SERVER):
                raise InvalidConfiguration(name, f"there is no such setting; there are {', '.join(sorted(known))}")
        try:
            settings = cls()
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            problems = [
                each["msg"] for each in error.errors() if each["loc"][0] == name
            ]  # one for each type it may have
            raise InvalidConfiguration(f"{PREFIX}{name}".upper(), " or ".join(problems)) from error
        except ValueError as error:  # pydantic-settings raises it for invalid JSON
            problem = 'this is not a JSON object; write {"max_model_len": 4096}, for example'
            raise InvalidConfiguration(f"{PREFIX}ENGINE_ARGS", problem) from error
        if os.environ.get(f"{PREFIX}PROMPT_TEMPLATE") == "":  # ChatML, also if the folder of weights has a template
            return settings.model_copy(update={"prompt_template": ""})
        return settings

    @property
    def defaults(self) -> Profile:
        """The profile."""
        return PROFILES[self.profile]

    @property
    def slots(self) -> int:
        """The predictions that run at once. Cog sets the variable in its image from @concurrent in predict.py.

        Raises InvalidConfiguration if COG_MAX_CONCURRENCY is not a positive whole number.
        """
        value = os.environ.get("COG_MAX_CONCURRENCY", "32")
        if not value.isdecimal() or int(value) < 1:
            raise InvalidConfiguration("COG_MAX_CONCURRENCY", f"is {value!r}; it must be a whole number from 1 up")
        return int(value)

    @property
    def source(self) -> str:
        """The source of the weights, see hermes/weights/source.py."""
        return self.model or self.defaults.model

    @property
    def draft(self) -> str | None:
        """The source of the draft model; None without one."""
        return None if self.speculation == NGRAM else self.speculation

    def arguments(self, folder: Mapping[str, Any], *, quantised: bool) -> dict[str, Any]:
        """All arguments of the engine: those of the settings, then of the folder of weights, then of the profile.

        A checkpoint that is `quantised` already is served as it is.
        """
        profile = {**self.defaults.engine_args}
        if quantised:
            profile.pop("quantization", None)
        return {"max_num_seqs": self.slots, **profile, **folder, **self.engine_args}

    def with_predictor_config(self, folder: Path) -> "Settings":
        """These settings, completed from predictor_config.json in `folder` and from the profile.

        The profile quantises no checkpoint that is quantised already. A large model has no float32 on a CPU.

        Raises:
            InvalidConfiguration: the file is not valid, has an unknown key, or sets an argument that it may not set.
        """
        file = _read_predictor_config(folder / "predictor_config.json")
        require_allowed(file.engine_args)
        template = file.prompt_template if self.prompt_template is None else self.prompt_template
        of_folder = file.engine_args
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        if not self.defaults.on_gpus and size > FLOAT32_BYTES:
            of_folder = {"dtype": "bfloat16", **of_folder}
        engine_args = self.arguments(of_folder, quantised=is_quantised(folder))
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


def is_quantised(folder: Path) -> bool:
    """Whether the config.json in a folder says that its weights are quantised already."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # another room says what is wrong with it
        return False
    return isinstance(config, dict) and bool(config.get("quantization_config"))


def require_allowed(engine_args: Mapping[str, Any]) -> None:
    """Raises InvalidConfiguration for the first argument that a predictor_config.json may not set."""
    for name in engine_args:
        if name not in FOLDER_MAY_SET:
            key = f"predictor_config.json.engine_args.{name}"
            raise InvalidConfiguration(key, "a weights folder may not set this; to set it, use HERMES_ENGINE_ARGS")
