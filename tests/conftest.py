import gc
import json
import os
import time

import pytest

FAST_UNITS = 300  # of CPU time, what the tests without an engine may take together; a quick machine's unit is 0.05 s
TESTS_PER_UNIT = 100  # so often the unit is measured anew, for a shared machine is faster and slower by turns

UNITS = "units of CPU time"


def unit_seconds():
    """The CPU time of a fixed piece of work: how fast this machine is just now."""
    began = time.process_time()
    things = [{"a": number, "b": [str(number)] * 3} for number in range(20_000)]
    assert json.loads(json.dumps(things)) == things
    return time.process_time() - began


def pytest_configure(config):
    """Tests, and the servers that they start, see only the settings that the tests give them.

    It is done before any test is imported, for huggingface_hub reads most of its variables when it is imported.
    """
    for name in [name for name in os.environ if name.startswith(("HERMES_", "COG_", "VLLM_", "HF_"))]:
        del os.environ[name]
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # it would ask the hub which programs are AI agents
    os.environ["HF_TOKEN_PATH"] = os.devnull  # whoever runs the tests may be logged in
    config.pluginmanager.register(Speed())


def pytest_collection_finish():
    """Hundreds of thousands of objects are there until the end: no garbage collection need look at them again."""
    gc.freeze()


class Speed:
    """What the tests without an engine take of the CPU. xdist's workers measure, and the main process adds up."""

    def __init__(self):
        self.ran, self.unit, self.units_taken = 0, 0.0, 0.0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        if {"integration", "fuzz"}.intersection(item.path.parts):
            return (yield)
        if self.ran % TESTS_PER_UNIT == 0:
            self.unit = unit_seconds()
        self.ran += 1
        began = time.process_time()  # machines are shared: the time on a clock would say more of the others
        try:
            return (yield)
        finally:
            item.user_properties.append((UNITS, (time.process_time() - began) / self.unit))

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.units_taken += dict(report.user_properties).get(UNITS, 0)

    def pytest_sessionfinish(self, session):
        if self.units_taken > FAST_UNITS and not session.exitstatus:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.write_line(
            f"tests without an engine: {self.units_taken:.0f} units of the {FAST_UNITS} of CPU time that they may take"
        )
