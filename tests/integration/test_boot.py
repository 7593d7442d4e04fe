"""The real server boots as in Cog's image, and says what it serves."""

import sysconfig

import httpx

from hermes.devserver.predictor import PredictorSource
from hermes.devserver.server import PROJECT
from tests.support.asking import predict


def test_no_program_of_the_environment_is_called_by_name_and_the_engine_would_find_them(server, bare_path):
    """In Cog's image `python` is on PATH and the folder with ninja and the like is not."""
    predict(server, prompt="Hi", max_tokens=2)
    assert not (bare_path / "called").exists(), (bare_path / "called").read_text()
    # vLLM's own processes write their titles over their environment; Python's resource tracker has the same one.
    (tracker, *_) = [each for each in server.processes() if "resource_tracker" in " ".join(each.cmdline())]
    assert tracker.environ()["PATH"] == f"{bare_path}:{sysconfig.get_path('scripts')}"


def test_of_cogs_deprecations_only_that_of_predict_is_left(server):
    """predict() is the shape of this package."""
    said = [line for line in list(server.log) if "is deprecated; use " in line]
    assert said
    assert all("predict() is deprecated; use run() instead" in line for line in said)


def test_the_servers_document_is_ours(server):
    document = httpx.get(f"{server.url}/openapi.json").json()
    assert document == PredictorSource(PROJECT / "predict.py").openapi()


def test_the_setup_log_names_profile_and_model(server):
    logs = server.health()["setup"]["logs"]
    assert "profile local serves" in logs
    assert "smollm2-135m-instruct" in logs
