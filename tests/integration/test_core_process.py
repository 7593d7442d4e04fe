"""Locally the model runs in vLLM's core process, which is a fork of a process that has imported vLLM."""

from tests.support.endings import engine_core, with_name


def test_the_core_is_a_fork_and_has_no_worker(server):
    assert with_name(server, "VLLM::Worker") == []
    core = engine_core(server)
    assert core.parent().name().startswith("VLLM::ForkServe")
    assert core.parent().parent() in server.processes()
