"""The image of cog.yaml, built and run on a machine without GPUs: `make test-image profile=production`."""

import json

import httpx
import pytest

from tests.support.docker import FAILED, Container, docker, pins, ray_version, versions

pytestmark = pytest.mark.image

GRACE = {"HERMES_ENGINE_DEATH_GRACE": "5"}  # seconds from a failed start to the end


def test_it_has_the_locked_versions_and_those_of_cog_that_the_tests_run_with(production_image, project):
    cogs = {(name, version) for name, version in pins(project / "requirements/local.txt") if name in ("cog", "coglet")}
    installed = {(name, version) for name, version in versions(production_image) if name != "pip"}
    assert installed == pins(project / "requirements.txt") | cogs


def test_its_packages_fit_together(production_image):
    assert docker("run", "--rm", "--network", "none", production_image, "python", "-m", "pip", "check").startswith(
        "No broken"
    )


def test_without_gpus_it_says_so_at_once_and_ends(production_image):
    with Container(production_image, **GRACE) as container:
        health = container.wait_until_started(seconds=30)
        assert (health["status"], "E1204" in health["setup"]["logs"]) == ("SETUP_FAILED", True)
        assert "cog.local.yaml" in health["setup"]["logs"]
        body = {"input": {"prompt": "Hello"}}
        assert httpx.post(f"{container.url}/predictions", json=body, trust_env=False).status_code == 503
        assert container.wait_until_ended() == FAILED


def test_it_stops_in_order_after_a_failed_start(production_image):
    with Container(production_image) as container:
        container.wait_until_started(seconds=30)
        status, seconds = container.stop()
        assert (status, seconds < 10) == (0, True)


def test_another_user_can_run_it(production_image):
    with Container(production_image, "--user", "1000:1000", **GRACE) as container:
        assert "E1204" in container.wait_until_started(seconds=30)["setup"]["logs"]


def test_it_serves_no_small_model_and_says_so_at_once(production_image):
    with Container(production_image, HERMES_PROFILE="local", **GRACE) as container:
        logs = container.wait_until_started(seconds=30)["setup"]["logs"]
        assert "cog.local.yaml" in logs


def test_it_plans_and_lists_weights(production_image):
    plan = docker("run", "--rm", "--network", "none", production_image, "python", "-m", "hermes", "plan", "--json")
    assert json.loads(plan)["fits"] is True


def test_what_the_engine_compiles_with_is_there(production_image):
    code = (
        "import shutil; from hermes.engine.engine import with_scripts; "
        "print(*(shutil.which(each, path=with_scripts('/usr/local/bin:/usr/bin:/bin')) for each in ('ninja', 'gcc')))"
    )
    found = docker("run", "--rm", "--network", "none", production_image, "python", "-c", code)
    assert "None" not in found


def test_the_image_with_ray_has_all_that_a_cluster_imports(production_image, project):
    assert ray_version(production_image, project) in (project / "requirements/cluster.in").read_text()
