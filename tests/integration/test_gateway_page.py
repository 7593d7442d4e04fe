"""The page in a real Chromium, at the size of a desk and of a phone. `make test-clients` runs it."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hermes.devserver.server import PROJECT
from tests.support.running import uv

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = PROJECT / "tests" / "support" / "page_driver.py"
pytestmark = [pytest.mark.clients, pytest.mark.skipif(not CHROMIUM, reason="needs chromium (apt install chromium)")]
visits = pytest.mark.parametrize("visit", ["desktop light", "phone dark"])


@pytest.fixture(scope="module")
def seen(gateway, tmp_path_factory):
    """What a person saw; screenshots go to PAGE_SCREENSHOTS if it is set."""
    folder = Path(os.environ.get("PAGE_SCREENSHOTS") or tmp_path_factory.mktemp("page"))
    folder.mkdir(exist_ok=True)
    command = uv(["playwright==1.56.0"], "python", str(DRIVER), gateway.url + "/", CHROMIUM, str(folder))
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@visits
def test_an_answer_grows_and_has_a_record(seen, visit):
    assert len(seen[visit]["lengths"]) > 5, "the text was seen at different lengths"
    for part in ("+ 80 tokens", "tokens/s", "first after", "ended by length", "seed"):
        assert part in seen[visit]["record"]


@visits
def test_stop_edit_and_answer_again(seen, visit):
    assert len(seen[visit]["stopped"]) > 50
    assert seen[visit]["to edit"] == "Write a short story about a lighthouse."
    question, answer = seen[visit]["edited"]
    assert question == "What is the capital of France?"
    assert "Paris" in answer
    assert seen[visit]["again"] == seen[visit]["edited"]


@visits
def test_calls_and_json_are_shown_checked(seen, visit):
    assert "calls get_weather" in seen[visit]["call"]
    assert "Oslo" in seen[visit]["call"]
    assert seen[visit]["json"].startswith("valid JSON of the schema")
    assert seen[visit]["problem"]


@visits
def test_the_request_can_be_copied_as_code(seen, visit):
    code = seen[visit]["code"]
    assert code.keys() == {"curl", "python", "javascript", "openai"}
    assert all("capital of France" in each for each in code.values())


@visits
def test_hostile_text_is_only_text(seen, visit):
    html = seen[visit]["hostile"]
    assert not any(
        each in html for each in ("<img", "<script", "<style", "<iframe", "javascript:", "onclick", "onerror")
    )
    assert 'href="https://example.com"' in html


@visits
def test_nothing_is_asked_elsewhere_and_nothing_complains(seen, visit):
    assert (seen[visit]["elsewhere"], seen[visit]["complaints"]) == ([], [])
    assert not seen[visit]["wider than the screen"]


def test_a_closed_tab_frees_the_slot(seen):
    assert seen["closed tab"] < 2
