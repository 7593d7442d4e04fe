"""The process that vLLM's core becomes: what it inherits, and the import before it."""

import gc
import os
from types import SimpleNamespace

import pytest

from hermes.engine import core_process
from hermes.engine.core_process import CoreContext, forked, import_quickly, inspecting_here


def test_the_core_has_the_environment_of_its_start_and_not_that_of_the_fork_server(monkeypatch, tmp_path):
    context = CoreContext()
    context.set_forkserver_preload([])
    monkeypatch.setenv("WANTED", "early")
    for name in ("first", "second"):  # the first starts the fork server
        monkeypatch.setenv("WANTED", name)
        process = context.Process(target=os.system, args=(f'echo "$WANTED" > {tmp_path}/{name}',))
        monkeypatch.setenv("WANTED", "late")
        process.start()
        process.join(30)
        assert (process.exitcode, (tmp_path / name).read_text()) == (0, f"{name}\n")


def test_vllm_forks_its_core_only_inside():
    plain = object()
    utils = SimpleNamespace(get_mp_context=plain)
    with forked(utils):
        assert utils.get_mp_context is CoreContext
    assert utils.get_mp_context is plain


def test_a_look_at_a_model_stays_in_this_process():
    registry = SimpleNamespace(_run_in_subprocess=None)
    with inspecting_here(registry):
        assert registry._run_in_subprocess(os.getpid) == os.getpid()
    assert registry._run_in_subprocess is None


@pytest.mark.parametrize("modules", [["json", "json.tool"], ["json", "no_such_module"]])
def test_an_import_without_the_collector_leaves_it_on(monkeypatch, modules):
    seen = []
    monkeypatch.setattr(
        core_process, "import_module", lambda name: seen.append((name, gc.isenabled())) or __import__(name)
    )
    frozen = gc.get_freeze_count()
    try:
        import_quickly(*modules)
    except ImportError:
        assert modules[-1] == "no_such_module"
    assert seen == [(name, False) for name in modules]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen
