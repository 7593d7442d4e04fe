"""The engine and the images of `make test-image`. Nothing of them is left, unless IMAGE_KEEP is set."""

import os
import shutil
import time

import pytest

from hermes.devserver import PROJECT
from tests.support import docker
from tests.support.docker import PREFIX, base_image, build, clone, gigabytes

WORK = PROJECT / ".image"  # tens of GB with an engine of its own

FIGURES = []  # lines for the end


def pytest_terminal_summary(terminalreporter):
    if FIGURES:
        terminalreporter.section("images")
        terminalreporter.write_lines(FIGURES)


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
