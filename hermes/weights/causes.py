"""What a request that failed means, with requests and with httpx2, the client of huggingface_hub."""

import re
import socket
import ssl
from typing import Final

from hermes.environment import Proxy, proxy_for
from hermes.errors import WeightsError
from hermes.text import redacted
from hermes.weights.remote import Interrupted, PermanentFault

SOCKS: Final = ("socksio", "socks")  # of httpx2 and of requests
PASSING = {408, 425, 429, *range(500, 600)} - {501, 505, 511}  # with these statuses, another attempt may succeed
NO_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}  # and not EAI_AGAIN
CHECK = "check the address"
UNKNOWN_ISSUER = range(18, 22)  # X509_V_ERR_*: self-signed, or without the certificate that signed it
TRUST = "if a proxy or your company signs it, name its CA certificate in SSL_CERT_FILE, a PEM file"
NOT_VALID = "its address, or one that it redirects to, is not valid"
PERMANENT = {"TooManyRedirects": "its host redirects in a loop", "LocalProtocolError": "a header is not valid"}
NOT_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"}


def proxy(url: str) -> Proxy | None:
    """The proxy for a URL. Raises InvalidConfiguration if it cannot be used."""
    return proxy_for(url, SOCKS)


def fault_of(what: object, error: BaseException, url: str) -> Interrupted | WeightsError:
    """What to raise for a request to a URL that failed: WeightsError if another attempt cannot succeed."""
    inner = innermost(error)
    said, kind = redacted(f"{type(inner).__name__}: {inner}"), type(error).__name__
    if isinstance(inner, ssl.SSLCertVerificationError):
        step = TRUST if inner.verify_code in UNKNOWN_ISSUER else f"{CHECK}, and this machine's clock"
        return WeightsError(what, f"the certificate of its host is not trusted ({inner.verify_message})", step)
    if isinstance(inner, ssl.SSLError) and inner.reason in NOT_TLS:
        return WeightsError(what, f"its host does not speak TLS as wanted ({said})", f"{CHECK} and the proxy")
    if isinstance(error, ValueError) or kind in PERMANENT:
        return WeightsError(what, f"{PERMANENT.get(kind, NOT_VALID)} ({said})", CHECK)
    unknown = isinstance(inner, socket.gaierror) and inner.errno in NO_NAME
    if between := proxy(url):
        if unknown or isinstance(inner, ConnectionRefusedError) or _refuses_tunnel(kind, str(inner)):
            return PermanentFault(f"{between} cannot be used ({said})", f"correct {between.variable}, or unset it")
        return Interrupted(f"{said}, through {between}")
    if unknown:
        return PermanentFault(f"the name of its host is unknown ({said})", f"{CHECK}, and this machine's DNS")
    return Interrupted(said)


def _refuses_tunnel(kind: str, said: str) -> bool:
    """Whether a proxy answers CONNECT with a status that does not pass, in the words of urllib3 or of httpcore2."""
    status = re.match(r"(?:Tunnel connection failed: )?(\d{3})\b", said) if kind == "ProxyError" else None
    return status is not None and int(status[1]) not in PASSING


def innermost(error: BaseException) -> BaseException:
    """The first of nested errors, which names the cause."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return error
