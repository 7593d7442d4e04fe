import pytest

from hermes.devserver.server import LocalServer, ServerFailed, _message


def test_coglets_json_lines_are_reduced_to_their_message():
    assert _message('{"level":"INFO","fields":{"message":"hermes: warm"},"target":"coglet::setup"}\n') == "hermes: warm"


@pytest.mark.parametrize("line", ["plain text\n", "[1]\n", '{"fields": 3}\n'])
def test_other_lines_stay_as_they_are(line):
    assert _message(line) == line.rstrip()


def test_every_server_gets_a_free_port_of_its_own():
    assert LocalServer().url != LocalServer().url


def test_listening_everywhere_is_reached_on_the_loopback():
    assert LocalServer(host="0.0.0.0", port=5000).url == "http://127.0.0.1:5000"


class Reporting(LocalServer):
    """A server whose health is written down: the states that /health-check gives, one after the other."""

    def __init__(self, *states):
        super().__init__()
        self._states = iter(states)

    def health(self):
        return {"status": next(self._states)}


@pytest.mark.parametrize("states", [("READY",), ("STARTING", "BUSY"), ("UNKNOWN", "STARTING", "READY")])
def test_a_server_whose_slots_are_all_taken_is_ready(states):
    Reporting(*states).wait_until_ready()


@pytest.mark.parametrize("state", ["SETUP_FAILED", "DEFUNCT", "UNHEALTHY", "STOPPED"])
def test_a_server_that_takes_no_predictions_any_more_has_failed(state):
    with pytest.raises(ServerFailed):
        Reporting("STARTING", state).wait_until_ready()


def test_a_server_that_was_never_started_can_be_stopped_and_is_not_ready():
    server = LocalServer()
    server.stop()
    with pytest.raises(ServerFailed):
        server.wait_until_ready()
