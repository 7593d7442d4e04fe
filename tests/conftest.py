import gc
import os
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # fakes.py

FAST_SECONDS = 10  # of CPU time, what the tests without an engine may take together

fast_test_seconds = []


def pytest_configure():
    """Tests, and the servers that they start, see only the settings that the tests give them.

    It is done before any test is imported, for huggingface_hub reads most of its variables when it is imported.
    """
    for name in [name for name in os.environ if name.startswith(("HERMES_", "COG_", "VLLM_", "HF_"))]:
        del os.environ[name]
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # it would ask the hub which programs are AI agents
    os.environ["HF_TOKEN_PATH"] = os.devnull  # whoever runs the tests may be logged in


def pytest_collection_finish():
    """Hundreds of thousands of objects are there until the end: no garbage collection need look at them again."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    began = time.process_time()  # machines are shared: the time on a clock would say more of the others
    try:
        return (yield)
    finally:
        if not {"integration", "fuzz"}.intersection(item.path.parts):
            fast_test_seconds.append(time.process_time() - began)


def pytest_sessionfinish(session):
    if sum(fast_test_seconds) > FAST_SECONDS and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    seconds = sum(fast_test_seconds)
    terminalreporter.write_line(
        f"tests without an engine: {seconds:.1f} s of CPU time of the {FAST_SECONDS} s they may take"
    )
