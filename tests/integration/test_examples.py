"""The examples run as the README shows them."""

import subprocess
import sys

import pytest

from hermes.devserver.server import PROJECT

EXAMPLES = sorted(path.stem for path in (PROJECT / "examples").glob("*.py"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_runs_to_its_end(server, name):
    command = [sys.executable, "-m", f"examples.{name}", server.url]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout) > 40
    assert f"examples/{name}.py" in (PROJECT / "README.md").read_text()
