"""The tests run the commands with the real huggingface_hub, against a hub on 127.0.0.1."""

import pytest
from huggingface_hub.utils import close_session

from hermes.cli import main
from tests.support.commands import CONFIGS, FILES, MODEL, TOKEN
from tests.support.hub_server import HubServer
from tests.support.tiny_models import tar_of


@pytest.fixture(scope="module")
def server():
    with HubServer() as server:
        server.add_repo("org/model", FILES)
        server.add_repo("org/gated", FILES, gated=TOKEN)
        server.add_repo("org/private", FILES, private_token=TOKEN)
        for name, text in CONFIGS.items():
            server.add_repo(f"org/{name}", FILES | {"config.json": text.encode()})
        server.add_file("/model.tar", tar_of(FILES))
        yield server
    close_session()


@pytest.fixture
def home(server, tmp_path, monkeypatch):
    """A folder of the test's own for everything that is written."""
    for name, value in {
        "HF_ENDPOINT": server.url,
        "HF_HOME": tmp_path / "hf",
        "HERMES_WEIGHTS_DIR": tmp_path / "weights",
        "HERMES_WEIGHTS_LOCK": tmp_path / "weights.lock",
    }.items():
        monkeypatch.setenv(name, str(value))
    server.clear()
    return tmp_path


@pytest.fixture
def run(home, capsys):
    """Runs a command; gives its exit code, standard output and standard error."""

    def run(*arguments):
        return main(list(map(str, arguments))), *capsys.readouterr()

    return run


@pytest.fixture
def fetched(run, home):
    """The folder of the model, fetched and locked."""
    assert run("weights", "fetch", MODEL)[0] == 0
    [config] = (home / "weights").glob("*/config.json")
    return config.parent
