"""Tests talk HTTP by hand: without redirects, or byte by byte."""

import http.client
from contextlib import closing
from urllib.parse import urlsplit


def ask(url, method="GET", **headers):
    """The answer and its body, without following redirects."""
    address = urlsplit(url)
    with closing(http.client.HTTPConnection(address.netloc, timeout=5)) as connection:
        connection.request(method, address._replace(scheme="", netloc="").geturl(), headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()
