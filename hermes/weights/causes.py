"""What a request that failed means, with requests and with httpx2, the client of huggingface_hub."""

import os
import ssl
from typing import Final

from hermes.environment import Proxy, proxy_for
from hermes.errors import InvalidConfiguration, WeightsError
from hermes.text import redacted
from hermes.weights.remote import Interrupted, Lasting

SOCKS: Final = ("socksio", "socks")  # of httpx2 and of requests
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
TRUST = "if a proxy or your company signs it, name its authority in SSL_CERT_FILE, a PEM file"
CONNECTING = {"ProxyError", "ConnectError", "ConnectTimeout"}  # to the proxy, if there is one
PERMANENT = {  # by the name of the error's class
    "TooManyRedirects": "its host redirects in a loop",
    "InvalidURL": "its address, or one that it redirects to, is not valid",
    "InvalidSchema": "it redirects to an address that is not http or https",
    "MissingSchema": "it redirects to an address that is not http or https",
    "UnsupportedProtocol": "it redirects to an address that is not http or https",
    "LocationParseError": "its address, or one that it redirects to, is not valid",
    "InvalidHeader": "a header of the request is not valid",
    "LocalProtocolError": "a header of the request is not valid",
}
NOT_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"}


def proxy(url: str) -> Proxy | None:
    """The proxy for a URL. Raises InvalidConfiguration if it cannot be used."""
    return proxy_for(url, SOCKS)


def authorities() -> str | None:
    """The file or folder with the authorities to trust; None for the usual ones.

    Raises InvalidConfiguration if it is not there.
    """
    for name in CERTIFICATES:
        if path := os.environ.get(name):
            if not os.path.exists(path):
                raise InvalidConfiguration(name, f"is {path!r}, which is not there; correct it, or unset it")
            return path
    return None


def _context(path: str) -> ssl.SSLContext:
    return ssl.create_default_context(capath=path) if os.path.isdir(path) else ssl.create_default_context(cafile=path)


def trusting(path: str | None) -> ssl.SSLContext | bool:
    """What httpx2 verifies certificates with; None are the usual authorities.

    Raises InvalidConfiguration if there are no certificates.
    """
    try:
        return path is None or _context(path)
    except OSError as error:  # ssl.SSLError is one
        problem = f"{path} has no certificates that can be read ({error}); name a PEM file"
        raise InvalidConfiguration(CERTIFICATES[0], problem) from error


def fault_of(what: object, error: BaseException, url: str) -> Interrupted | WeightsError:
    """What to raise for a request to a URL that failed: WeightsError if another attempt cannot succeed."""
    inner = innermost(error)
    said, kind = redacted(f"{type(inner).__name__}: {inner}"), type(error).__name__
    if isinstance(inner, ssl.SSLCertVerificationError):
        return WeightsError(what, f"the certificate of its host is not trusted ({inner.verify_message})", TRUST)
    if isinstance(inner, ssl.SSLError) and inner.reason in NOT_TLS:
        return WeightsError(what, f"its host does not speak TLS as wanted ({said})", "check the address and the proxy")
    if isinstance(inner, ssl.SSLError) and inner.library == "X509":
        return WeightsError(what, f"the authorities to trust cannot be read ({said})", f"check {CERTIFICATES[0]}")
    if problem := PERMANENT.get(kind):
        return WeightsError(what, f"{problem} ({said})", "check the address")
    if kind in CONNECTING and (between := proxy(url)):
        return Lasting(f"{between} cannot be used ({said})", f"correct {between.variable}, or unset it")
    return Interrupted(said)


def innermost(error: BaseException) -> BaseException:
    """The first of nested errors, which names the cause."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return error
