import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # fakes.py


@pytest.fixture(autouse=True)
def no_hermes_environment(monkeypatch):
    """Tests see the defaults, whatever the person who runs them has set."""
    for name in [name for name in os.environ if name.startswith("HERMES_") or name == "COG_WEIGHTS"]:
        monkeypatch.delenv(name)
