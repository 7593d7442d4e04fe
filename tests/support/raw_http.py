"""Tests talk HTTP by hand: without redirects, or byte by byte."""

import socket
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urlsplit


def ask(url, method="GET", **headers):
    """The answer and its body, without following redirects."""
    address = urlsplit(url)
    with closing(HTTPConnection(address.netloc, timeout=5)) as connection:
        connection.request(method, address._replace(scheme="", netloc="").geturl(), headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()


def talk(server, sent, seconds=2):
    """Send bytes to the server's port and return what comes back within that time."""
    url = urlsplit(server.url)
    received = b""
    with socket.create_connection((url.hostname, url.port), timeout=seconds) as connection:
        try:
            connection.sendall(sent)
            while piece := connection.recv(65536):
                received += piece
        except OSError:  # nothing more comes, or it has closed while we sent
            pass
    return received


def http(body, *lines):
    """A request to /predictions as bytes."""
    head = ["POST /predictions HTTP/1.1", "Host: x", "Content-Type: application/json", *lines]
    if not lines:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body
