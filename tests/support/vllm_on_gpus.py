"""What vLLM makes of our settings on A100s, and what its own code counts there, beside the memory plan.

The process reads cases as JSON from standard input, and writes what it found of each. vLLM builds each model without
its values, as one of the tensor-parallel ranks, and so selects kernels and gives bytes as it would on GPUs.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace

from hermes.devserver import PROJECT
from tests.support.fakes import LLAMA_8B, LLAMA_70B, byte_tokenizer

SIZES = {}  # of weights on one GPU after loading, by model, quantisation and number of GPUs
CACHE_8_BITS = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True, "dynamic": False}


@dataclass(frozen=True)
class Case:
    """Settings of one server."""

    profile: str = "production"
    checkpoint: str = "bf16"  # one of those below
    speculation: str | None = None  # ngram or draft
    engine_args: dict = field(default_factory=dict)
    builds: bool = True  # the model, too


def inspect(cases, **gpus):
    """What a process of its own finds of each case, by name. The GPUs are two A100, or as fake_cuda.install says."""
    given = json.dumps([gpus, {name: asdict(case) for name, case in cases.items()}])
    # vLLM would compile the function that quantises while loading, and that takes a GPU.
    environment = os.environ | {"VLLM_LOGGING_LEVEL": "ERROR", "TORCHDYNAMO_DISABLE": "1"}
    command = [sys.executable, "-W", "ignore", "-m", __name__]
    done = subprocess.run(command, cwd=PROJECT, env=environment, input=given, capture_output=True, text=True)
    assert not done.returncode, done.stderr[-4_000:]
    return json.loads(done.stdout)


def checkpoints():
    """Models in the words of a config.json: as published, in fp8 as `weights quantize` writes it, and in awq."""
    from hermes.weights.quantise import _quantization_config, scheme_for

    packed = _quantization_config(scheme_for([(8192, 8192)]))
    awq = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
    declared = {"bf16": None, "packed": packed, "cache8": packed | {"kv_cache_scheme": CACHE_8_BITS}, "awq": awq}
    return {name: LLAMA_70B | ({"quantization_config": each} if each else {}) for name, each in declared.items()}


def write_model(folder, config):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "torch_dtype": "bfloat16", **config}))
    byte_tokenizer().backend_tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def main(gpus, cases):
    """Install the GPUs, and look at each case."""
    from hermes.sizing import parse_gpus
    from tests.support import fake_cuda

    fake_cuda.install(**gpus)
    kind = parse_gpus("H100" if gpus else "A100-80GB")[1]
    with tempfile.TemporaryDirectory() as home:
        folders = {name: write_model(Path(home, name), config) for name, config in checkpoints().items()}
        draft = write_model(Path(home, "draft"), LLAMA_8B)
        found = {name: look_at(Case(**case), kind, folders[case["checkpoint"]], draft) for name, case in cases.items()}
    return found | {"arguments": unlike_vllm()}


def unlike_vllm():
    """The engine arguments of which the plan believes something else than vLLM: their names, or their defaults."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    from hermes.sizing.arguments import COUNTED, NO_EFFECT, NO_EFFECT_WITH, EngineArguments

    defaults = AsyncEngineArgs(model="any")
    read = {name: (each.default,) for name, each in EngineArguments.model_fields.items()}
    expected = {**read, **NO_EFFECT_WITH, "kernel_config": (defaults.kernel_config,)}
    unknown = [name for name in COUNTED | NO_EFFECT | expected.keys() if not hasattr(defaults, name)]
    return unknown + [name for name, values in expected.items() if getattr(defaults, name) not in values]


def look_at(case, kind, folder, draft):
    from hermes.engine import engine_arguments
    from hermes.engine.engine import _vllm_config
    from hermes.settings import Settings
    from hermes.sizing import EngineArguments, ModelShape, plan_memory

    settings = Settings(profile=case.profile, speculation=case.speculation, engine_args=case.engine_args)
    os.environ |= settings.defaults.environment
    drafting = draft if case.speculation == "draft" else None
    arguments = engine_arguments(settings.with_predictor_config(folder), drafting)
    config = _vllm_config(folder, arguments)
    shape, guesser = (
        ModelShape.from_config(json.loads((each / "config.json").read_text())) for each in (folder, draft)
    )
    count = EngineArguments.read(arguments).tensor_parallel_size
    plan = plan_memory(
        shape, kind, count, draft=guesser if drafting else None, **EngineArguments.read(arguments).planned
    )
    facts = configured(config)  # before the building of models changes some
    return {**facts, **(counted(config, plan) if case.builds else {}), "plan": plan.as_dict()}


def configured(config):
    graphs, scheduler, speculation = config.compilation_config, config.scheduler_config, config.speculative_config
    return {
        "runner": "V2" if config.use_v2_model_runner else "V1",
        "async": scheduler.async_scheduling,
        "batch": [scheduler.max_num_batched_tokens, scheduler.max_num_seqs],
        "length": config.model_config.max_model_len,
        "sizes": graphs.cudagraph_capture_sizes,
        "graphs": graphs.cudagraph_mode.name,
        "executor": config.parallel_config.distributed_executor_backend,
        "grammars": config.structured_outputs_config.backend,
        "load_format": config.load_config.load_format,
        "speculation": speculation and [speculation.method, speculation.num_speculative_tokens],
        "extra_slots": speculation.max_num_new_slots_for_drafting if speculation else 0,
    }


def counted(config, plan):
    """The kernels that vLLM selects, and the bytes and tokens that its code counts in the plan's room for the cache."""
    from vllm.v1.attention.backends.utils import get_supported_kv_cache_layouts, resolve_kv_cache_layout
    from vllm.v1.core.kv_cache_utils import get_kv_cache_capacity, get_kv_cache_configs

    configs = {"": config}
    if config.speculative_config and config.speculative_config.uses_draft_model():
        configs["draft_model"] = draft_config(config)
    models, weights = zip(*(built(each, prefix) for prefix, each in configs.items()), strict=True)
    specs = {name: spec for model in models for name, spec in cache_specs(model, config).items()}
    backends = {attention.attn_backend for model in models for attention in attentions(model).values()}
    names = [layout.name for layout in get_supported_kv_cache_layouts(backends)]
    resolve_kv_cache_layout(config, [names], specs.values())

    def tokens(room):
        try:
            return get_kv_cache_capacity(config, get_kv_cache_configs(config, [specs], [room])[0])[0]
        except ValueError:  # vLLM does not start with so little
            return 0

    least = plan.needed_bytes - plan.budget_bytes + plan.kv_bytes
    return {
        "kernels": sorted({type(kernel(module)).__name__ for module in models[0].modules() if kernel(module)}),
        "attention": sorted(backend.get_name() for backend in backends),
        "weights": weights,
        "kv_bytes_per_token": sum(spec.page_size_bytes for spec in specs.values()) // config.cache_config.block_size,
        "kv_tokens": tokens(plan.kv_bytes),
        "least": [tokens(least - 1), tokens(least)],
    }


def built(config, prefix=""):
    """A model of vLLM's without values, and the bytes of its weights as they are after loading."""
    import torch
    from vllm.config import CompilationMode, set_current_vllm_config
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    pretend_rank(config.parallel_config.tensor_parallel_size)
    config.compilation_config.mode = CompilationMode.NONE
    key = (config.model_config.model, config.model_config.quantization, config.parallel_config.tensor_parallel_size)
    with set_current_vllm_config(config), set_default_torch_dtype(torch.bfloat16), torch.device("meta"):
        model = initialize_model(config, prefix=prefix)
        if key not in SIZES:  # this takes a second for fp8
            for module in filter(fp8_kernel, model.modules()):  # awq takes Marlin's form in the same size, with values
                module.quant_method.process_weights_after_loading(module)
            SIZES[key] = sum(each.numel() * each.element_size() for each in model.parameters())
    return model, SIZES[key]


def draft_config(config):
    """As StandaloneARSpeculator.load_draft_model makes it."""
    from vllm.config import replace

    draft = config.speculative_config
    return replace(
        config, model_config=draft.draft_model_config, quant_config=None, parallel_config=draft.draft_parallel_config
    )


def attentions(model):
    from vllm.model_executor.layers.attention.attention import Attention

    return {module.layer_name: module for module in model.modules() if isinstance(module, Attention)}


def cache_specs(model, config):
    return {name: attention.get_kv_cache_spec(config) for name, attention in attentions(model).items()}


def fp8_kernel(module):
    method, scheme = getattr(module, "quant_method", None), getattr(module, "scheme", None)
    places = ((method, "fp8_linear"), (scheme, "linear_kernel"), (scheme, "fp8_linear"))
    return next((getattr(place, name) for place, name in places if hasattr(place, name)), None)


def kernel(module):
    """The kernel of a linear layer that is quantised; None of any other module."""
    return fp8_kernel(module) or getattr(getattr(module, "quant_method", None), "kernel", None)


def pretend_rank(size):
    """Let this process be the first of so many tensor-parallel ranks, and know the operators that a model looks up."""
    import torch
    from vllm import _custom_ops
    from vllm.distributed import parallel_state

    def group(ranks):
        first = {"rank_in_group": 0, "rank": 0, "local_rank": 0, "is_first_rank": True, "is_last_rank": True}
        return SimpleNamespace(world_size=ranks, ranks=list(range(ranks)), **first)

    def repacked(b_q_weight, perm=None, size_k=0, size_n=0, num_bits=8, is_a_8bit=False):
        return torch.empty(size_k // 16, size_n * 16 * num_bits // 32, dtype=torch.int32)

    parallel_state._TP = group(size)
    parallel_state._PP = parallel_state._DP = parallel_state._DCP = parallel_state._PCP = group(1)
    torch.ops._C.silu_and_mul = None
    _custom_ops.gptq_marlin_repack = _custom_ops.awq_marlin_repack = repacked


if __name__ == "__main__":
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # vLLM logs to standard output
    print(json.dumps(main(*json.loads(sys.stdin.read()))), file=answers)
