"""Locally the model runs in vLLM's core process, which is a fork of a process that has imported vLLM."""

import psutil


def test_the_core_is_a_fork_and_has_no_worker(server):
    names = {process.name()[:15]: process for process in server.processes()}
    assert not [name for name in names if name.startswith("VLLM::Worker")]
    core = names["VLLM::EngineCor"]
    assert core.parent().name().startswith("VLLM::ForkServe")
    assert psutil.Process(core.ppid()).parent() in server.processes()
