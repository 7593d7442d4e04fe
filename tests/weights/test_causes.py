"""Which faults of a request pass, behind real proxies and for real names."""

import errno
import gc
import socket
import ssl
import struct
import threading
from contextlib import contextmanager, suppress

import httpx2
import pytest
import requests

from hermes.errors import WeightsError
from hermes.weights.causes import fault_of
from hermes.weights.http import Session
from hermes.weights.hub_client import set_client
from hermes.weights.remote import Interrupted, PermanentFault

URL = "https://hub.invalid/x"
RESET, OPEN = b"", b"HTTP/1.1 200 OK\r\n\r\n"
STEPS = {
    **dict.fromkeys((18, 19, 20, 21), "name its CA certificate in SSL_CERT_FILE, a PEM file"),
    **dict.fromkeys((10, 62), "; check the address, and this machine's clock"),
}


@contextmanager
def proxy(answer, then=None):
    """Answers each CONNECT with some bytes, then resets the connection or ends it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, suppress(OSError):
                        connection.recv(9999)
                        connection.sendall(answer)
                        if then:
                            connection.recv(9999)
                        if RESET in (answer, then):
                            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def ask_requests(url):
    with Session() as session:
        session.get(url, timeout=5)


def ask_hub(url):
    from huggingface_hub.utils import get_session

    set_client()
    get_session().get(url, timeout=5)


@pytest.fixture(params=[ask_requests, ask_hub], ids=["requests", "httpx2"])
def fault(request):
    def fault(url):
        with pytest.raises((OSError, httpx2.HTTPError)) as caught:
            request.param(url)
        return fault_of("m.tar", caught.value, url)

    return fault


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_proxy_that_is_busy_is_asked_again(monkeypatch, fault, status):
    with proxy(b"HTTP/1.1 %d Busy\r\n\r\n" % status) as url:
        monkeypatch.setenv("HTTPS_PROXY", url)
        found = fault(URL)
    assert type(found) is Interrupted
    assert str(found).endswith(f"{status} Busy, through the proxy {url} of HTTPS_PROXY")


@pytest.mark.parametrize("status", [400, 403, 404, 407, 501, 511])
def test_a_proxy_that_refuses_is_a_permanent_fault(monkeypatch, fault, status):
    with proxy(b"HTTP/1.1 %d No\r\n\r\n" % status) as url:
        monkeypatch.setenv("HTTPS_PROXY", url)
        found = fault(URL)
    assert type(found) is PermanentFault
    assert str(found).startswith(f"the proxy {url} of HTTPS_PROXY cannot be used (")


@pytest.mark.filterwarnings("ignore:Exception ignored in")
@pytest.mark.parametrize(
    ("answer", "then"),
    [
        (RESET, None),
        (b"nonsense\r\n\r\n", None),
        (OPEN, RESET),
        (OPEN, b"-"),
    ],
    ids=["a reset", "nonsense", "a reset in the tunnel", "an end in the tunnel"],
)
def test_a_connection_through_a_proxy_that_breaks_is_made_again(monkeypatch, fault, answer, then):
    with proxy(answer, then) as url:
        monkeypatch.setenv("HTTPS_PROXY", url)
        assert type(fault(URL)) is Interrupted
        gc.collect()  # what TLS leaves open is closed here, and warns of it


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://proxy.invalid:3128"])
def test_a_proxy_that_is_not_there_is_a_permanent_fault(monkeypatch, fault, address):
    monkeypatch.setenv("ALL_PROXY", address)
    for url in (URL, "http://hub.invalid/x"):
        assert str(found := fault(url)).startswith(f"the proxy {address} of ALL_PROXY cannot be used (")
        assert type(found) is PermanentFault


@pytest.mark.parametrize("url", ["http://hub.invalid/x", "https://a.b.invalid", "http://127.0.0.1:1/x"])
def test_a_name_that_is_unknown_is_a_permanent_fault_and_a_host_that_is_down_is_not(fault, url):
    found = fault(url)
    assert type(found) is (PermanentFault if "invalid" in url else Interrupted)


@pytest.mark.parametrize("number", [socket.EAI_AGAIN, socket.EAI_FAIL])
def test_a_resolver_that_is_not_there_is_asked_again(number):
    error = requests.ConnectionError()
    error.__cause__ = socket.gaierror(number, "not now")
    assert type(fault_of("m.tar", error, URL)) is Interrupted


@pytest.mark.parametrize(("code", "step"), STEPS.items())
def test_the_step_after_a_certificate_is_refused_is_that_of_its_cause(code, step):
    error = ssl.SSLCertVerificationError(errno.EPERM, "no")
    error.verify_code, error.verify_message = code, "why"
    found = fault_of("m.tar", error, URL)
    assert type(found) is WeightsError
    assert str(found).endswith(step)
