"""Checks an address before a command says that it listens there."""

import socket

from hermes.errors import InvalidConfiguration


def require_free(host: str, port: int) -> None:
    """Raises InvalidConfiguration if no server can listen at this address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that has just ended is no obstacle
            probe.bind(address)
    except OSError as error:
        problem = f"can't listen at {host}, port {port} ({error.strerror}); choose another --port or --host"
        raise InvalidConfiguration("--port", problem) from error
