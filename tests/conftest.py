import gc
import json
import os
import time

import pytest

FAST_UNITS = 300  # of CPU time, what the tests without an engine may take together; a quick machine's unit is 0.05 s
TESTS_PER_UNIT = 100  # so often the unit is measured anew, for a shared machine is faster and slower by turns

fast_test_seconds = []
unit_seconds = []


def measure_unit():
    """The CPU time of a fixed piece of work: how fast this machine is just now."""
    began = time.process_time()
    things = [{"a": number, "b": [str(number)] * 3} for number in range(20_000)]
    assert json.loads(json.dumps(things)) == things
    unit_seconds.append(time.process_time() - began)


def units_taken():
    return sum(fast_test_seconds) / (sum(unit_seconds) / len(unit_seconds)) if unit_seconds else 0


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
            if len(fast_test_seconds) % TESTS_PER_UNIT == 1:
                measure_unit()


def pytest_sessionfinish(session):
    if units_taken() > FAST_UNITS and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(
        f"tests without an engine: {sum(fast_test_seconds):.1f} s of CPU time, {units_taken():.0f} units of the "
        f"{FAST_UNITS} that they may take"
    )
