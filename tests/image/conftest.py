"""The engine and the images of `make test-image`. Nothing of them is left, unless IMAGE_KEEP is set."""

import os
import shutil
import time

import pytest
import yaml

from hermes.devserver import PROJECT, PredictorSource
from tests.support import docker
from tests.support.docker import PREFIX, base_image, build, clone, cog_dockerfile, gigabytes, gpu_base_image

WORK = PROJECT / ".image"  # tens of GB with an engine of its own

FIGURES = []  # lines for the end


def pytest_terminal_summary(terminalreporter):
    if FIGURES:
        terminalreporter.section("images")
        terminalreporter.write_line("\n".join(FIGURES))


@pytest.fixture(scope="session")
def work():
    WORK.mkdir(exist_ok=True)
    yield WORK
    if not os.environ.get("IMAGE_KEEP"):
        shutil.rmtree(WORK)


@pytest.fixture(scope="session")
def engine(work):
    with docker.engine(work):
        yield
        if not os.environ.get("IMAGE_KEEP"):
            docker.remove_images()


@pytest.fixture(scope="session")
def project(engine, work):
    """A clone, the context of each build."""
    return clone(work)


@pytest.fixture(scope="session")
def debian(engine, work):
    """The image that stands in for python:slim."""
    return timed("base", lambda: base_image(work))


@pytest.fixture(scope="session")
def local_image(debian, project):
    """The image of cog.local.yaml, without Cog."""
    return timed("local", lambda: build(f"{PREFIX}local", project / "docker/local.Dockerfile", project, BASE=debian))


def timed(name, make):
    """What `make` returns, an image, with a line about it for the end."""
    began = time.monotonic()
    image = make()
    FIGURES.append(f"{name}: built in {time.monotonic() - began:.0f} s, {gigabytes(image):.2f} GB")
    return image


@pytest.fixture(scope="session")
def production_image(engine, work, project):
    """The image of cog.yaml on a stand-in for Cog's base image, with the OpenAPI document that Cog's build adds."""
    config = yaml.safe_load((project / "cog.yaml").read_text())
    base = timed("base for GPUs", lambda: gpu_base_image(work, config["build"]["python_version"]))
    recipe = work / "production.Dockerfile"
    recipe.write_text(cog_dockerfile(config, base))
    PredictorSource(project / "predict.py").write_openapi()
    return timed("production", lambda: build(f"{PREFIX}production", recipe, project))
