"""What a command does while its server runs, and when that ends."""

import os
import signal
import threading
from contextlib import suppress

import pytest

from hermes.cli.server import ending_with
from hermes.devserver import ServerFailed


class Server:
    """A server in a state."""

    def __init__(self, status):
        self.status = status

    def health(self):
        return {"status": self.status}


def test_what_runs_before_a_server_ends_with_it():
    failed = pytest.raises(ServerFailed, match="ended by itself")
    with failed, ending_with(Server("STOPPED")), suppress(KeyboardInterrupt):
        assert not threading.Event().wait(60), "it still runs"


def test_ctrl_c_is_no_failure():
    with ending_with(Server("READY")), suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(60)
