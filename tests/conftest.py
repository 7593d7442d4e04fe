import gc
import logging
import os
import signal

import pytest

from hermes.devserver.server import PROJECT


def pytest_configure():
    """Tests, and the servers that they start, see only the settings that the tests give them.

    It is done before any test is imported, for huggingface_hub reads most of its variables when it is imported.
    """
    for name in [name for name in os.environ if name.startswith(("HERMES_", "COG_", "VLLM_", "HF_"))]:
        del os.environ[name]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # it would ask the hub which programs are AI agents
    os.environ["HF_TOKEN_PATH"] = os.devnull  # whoever runs the tests may be logged in


def pytest_collection_finish():
    """Hundreds of thousands of objects are there until the end: no garbage collection need look at them again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def quiet_log():
    """Undo what a command that ran in this process did to the package's log: the next test may count its messages."""
    yield
    logger = logging.getLogger("hermes")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.fixture(scope="session")
def small_model():
    """The folder of SmolLM2, prepared once for every test and every server."""
    from hermes.weights import smollm2  # after pytest_configure: it imports huggingface_hub

    return smollm2.prepare(PROJECT / "weights" / smollm2.FOLDER)
