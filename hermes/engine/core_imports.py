"""What vLLM's core process imports on a CPU. Its fork server imports this module, see hermes/engine/core_process.py."""

from setproctitle import setproctitle

from hermes.engine.core_process import import_quickly

setproctitle("VLLM::ForkServer")  # here, for it no longer works once the environment has grown, as vLLM lets it
import_quickly("vllm.v1.engine.core", "vllm.v1.executor.uniproc_executor", "vllm.v1.worker.cpu_worker")
