import socket

import pytest

from hermes.cli import main
from hermes.cli.ports import require_free
from hermes.devserver.server import free_port
from hermes.errors import InvalidConfiguration


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    "command", [["serve"], ["up"], ["gateway", "--upstream", "http://127.0.0.1:1"]], ids=lambda command: command[0]
)
def test_a_port_that_is_taken_is_named_before_anything_starts(command, taken, capsys):
    assert main([*command, "--port", str(taken)]) == 1
    assert capsys.readouterr().err == (
        f"E1202 InvalidConfiguration: --port: can't listen at 127.0.0.1, port {taken} (Address already in use); "
        "choose another --port or --host\n"
    )


@pytest.mark.parametrize("command", [["serve"], ["up"], ["gateway", "--upstream", "http://127.0.0.1:1"]])
@pytest.mark.parametrize("port", ["0", "-1", "65536", "99999"])
def test_what_is_no_port_is_misuse(command, port, capsys):
    assert main([*command, "--port", port]) == 2
    assert "Invalid value for '--port': Input should be" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_named(host):
    with pytest.raises(InvalidConfiguration, match=f"can't listen at {host}, port 8000"):
        require_free(host, 8000)


def test_a_free_port_is_taken_by_nobody():
    require_free("localhost", free_port())
