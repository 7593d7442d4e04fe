"""Settings: environment HERMES_* over predictor_config.json in the weights folder over the profile's defaults.

predictor_config.json has the two keys that replicate/cog-vllm writes there: prompt_template and engine_args.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from hermes.errors import InvalidConfiguration

PREFIX = "HERMES_"


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
                "tensor_parallel_size": 2,
                "dtype": "bfloat16",
                "max_model_len": 8192,
                "gpu_memory_utilization": 0.95,
                "max_num_seqs": 32,
            },
        ),
        "local": Profile(
            name="local",
            model="demo",
            cuda_devices=0,
            engine_args={
                "tensor_parallel_size": 1,
                "dtype": "bfloat16",
                "max_num_seqs": 32,
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
    def source(self) -> str:
        """Where the weights come from."""
        return self.model or self.defaults.model

    def with_predictor_config(self, folder: Path) -> "Settings":
        """These settings, completed by predictor_config.json in `folder` and by the profile's defaults.

        Raises:
            InvalidConfiguration: the file can't be read, or has an unknown key.
        """
        file = _read_predictor_config(folder / "predictor_config.json")
        template = file.prompt_template if self.prompt_template is None else self.prompt_template
        engine_args = {**self.defaults.engine_args, **file.engine_args, **self.engine_args}
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
