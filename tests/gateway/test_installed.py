"""`pip install .[gateway]`: the gateway starts with the packages of its lock, and with no other."""

import subprocess
import sys
from importlib.metadata import distribution

import pytest

from hermes.devserver.server import PROJECT, free_port
from tests.support.gateways import Gateway, until_ready
from tests.test_project import pins


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what requirements/gateway.txt installs: links into this environment."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "hermes").symlink_to(PROJECT / "hermes")
    for name in pins("requirements/gateway.txt"):
        found = distribution(name)
        for top in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            (folder / top).symlink_to(found.locate_file(top))
    return folder


def command(installed, *arguments):
    """`python -m hermes` with these packages: -S leaves out those of this environment."""
    return [sys.executable, "-S", "-m", "hermes", *arguments], {"PYTHONPATH": str(installed)}


def test_the_gateway_starts_and_serves_its_page(installed, tmp_path):
    port = free_port()
    started, environment = command(installed, "gateway", "--upstream", "http://127.0.0.1:1", "--port", str(port))
    with subprocess.Popen(started, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        gateway = Gateway(f"http://127.0.0.1:{port}", process)
        try:
            until_ready(gateway, status=503)
            page = gateway.get("/")
        finally:
            process.terminate()
        log = process.stderr.read()
    assert "<html" in page.text
    assert process.returncode == 0, log
    assert log.endswith("stopping\n")


def test_a_command_that_needs_more_says_so_in_one_line(installed, tmp_path):
    started, environment = command(installed, "serve", "--port", "5000")
    done = subprocess.run(started, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    said = "E1202 InvalidConfiguration: serve: needs tokenizers, which is not installed; "
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{said}run it in the repository after `make install`\n"


def test_with_the_packages_of_a_client_the_command_line_names_what_to_install(tmp_path):
    done = subprocess.run(
        [sys.executable, "-S", "-m", "hermes", "gateway"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = "No module named 'typer'; `pip install '.[gateway]'` brings the gateway, and `make install` all commands\n"
    assert (done.returncode, done.stderr) == (1, said)
