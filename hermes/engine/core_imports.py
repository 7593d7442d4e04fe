"""What vLLM's core process imports on a CPU. Its fork server imports this module, see hermes/engine/core_process.py."""

from functools import partial
from importlib import import_module

from setproctitle import setproctitle

from hermes.engine.core_process import import_quickly
from hermes.engine.cpu_kernels import apply_grammar_bitmask, expand

setproctitle("VLLM::ForkServer")  # here, for it no longer works once the environment has grown, as vLLM lets it
import_quickly("vllm.v1.engine.core", "vllm.v1.executor.uniproc_executor", "vllm.v1.worker.cpu_worker")
vars(import_module("vllm.utils.cpu_triton_utils"))["_expand_kernel_impl"] = expand
runner = vars(import_module("vllm.v1.worker.gpu_model_runner"))
runner["apply_grammar_bitmask"] = partial(apply_grammar_bitmask, runner["apply_grammar_bitmask"])
