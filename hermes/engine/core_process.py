"""Starts vLLM's core process early, so that it imports vLLM while this process does and not afterwards.

A fork server of multiprocessing imports the modules, and the core process is a fork of it. vLLM itself knows only
`spawn`, which begins with nothing, and `fork`, which copies the locks and sockets of this process.

On GPUs the core is spawned: a load of minutes hides the import, and no test here shows a fork beside CUDA. Where
VLLM_WORKER_MULTIPROC_METHOD is set, vLLM starts the core as it says.
"""

import gc
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any


class CoreProcess(ForkServerProcess):
    """A fork of the fork server that has the environment of this process as it was when this object was made."""

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self._environment = dict(os.environ)

    def run(self) -> None:
        """What runs in the new process."""
        os.environ.update(self._environment)
        super().run()


class CoreContext(ForkServerContext):
    """A multiprocessing context whose processes are forks of the fork server."""

    Process = CoreProcess


prepared = False


def prepare() -> None:
    """Start the fork server. It imports what the core needs, and this returns at once."""
    global prepared  # as the fork server itself, there is one a process
    prepared = True
    multiprocessing.set_forkserver_preload(["hermes.engine.core_imports"])
    forkserver.ensure_running()


@contextmanager
def forked(vllm_engine_utils: Any) -> Iterator[None]:
    """A context in which vLLM starts its core process as a fork of the fork server.

    Args:
        vllm_engine_utils: the module vllm.v1.engine.utils, which has no other place to say how.
    """
    with _replaced(vllm_engine_utils, "get_mp_context", CoreContext):
        yield


@contextmanager
def inspecting_here(vllm_model_registry: Any) -> Iterator[None]:
    """A context in which vLLM looks at a model's class in this process.

    For the first look it would start a process that imports vLLM anew, so as not to touch CUDA in this one.

    Args:
        vllm_model_registry: the module vllm.model_executor.models.registry.
    """
    with _replaced(vllm_model_registry, "_run_in_subprocess", lambda look: look()):
        yield


@contextmanager
def _replaced(module: Any, name: str, value: object) -> Iterator[None]:
    plain = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, plain)


def import_quickly(*modules: str) -> None:
    """Import modules that are never unloaded, without the garbage collector, which would take a fifth of the time.

    Later it passes them by: each look at them would stop every stream for a third of a second.
    """
    gc.disable()
    try:
        for module in modules:
            import_module(module)
    finally:
        gc.enable()
        gc.freeze()
