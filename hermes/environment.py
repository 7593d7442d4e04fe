"""What HTTP clients take from the environment: tokens, the proxy for a URL, and CA certificates.

httpx knows neither networks in NO_PROXY nor brackets around an IPv6 address, as curl does
(https://curl.se/libcurl/c/CURLOPT_NOPROXY.html). A server on this machine is always asked directly, because a proxy
would ask itself.
"""

import os
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass_environment  # type: ignore[attr-defined]

import httpx

from hermes.errors import InvalidConfiguration
from hermes.text import without_credentials

LOCAL_NAMES = {
    *("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"),
    *("localhost4", "localhost4.localdomain4", "localhost6", "localhost6.localdomain6"),
}
PORTS = {"http": 80, "https": 443}
CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True)
class Proxy:
    """A proxy, and the variable of the environment that names it."""

    url: str
    variable: str

    def __str__(self) -> str:
        return f"the proxy {without_credentials(self.url)} of {self.variable}"


def header_token(text: str | None, source: str) -> str | None:
    """A token without the white space around it, such as the newline of a file; None if nothing is left.

    Raises InvalidConfiguration, without the token, if a header cannot hold it. `source` names where it is from.
    """
    token = (text or "").strip()
    if not (token.isascii() and token.isprintable()) or " " in token:
        problem = "has a token with a blank, a line break or a character that is not ASCII; write the token alone"
        raise InvalidConfiguration(source, problem)
    return token or None


def proxy_for(url: str, socks: Sequence[str] = ("socksio",)) -> Proxy | None:
    """The proxy for a URL; None for a direct connection.

    `socks`: the modules that the caller's HTTP client needs for SOCKS, which are socksio for httpx, socks for requests.

    Raises InvalidConfiguration if the proxy cannot be used.
    """
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme, (parts.hostname or "").removesuffix(".")
        port = parts.port or PORTS.get(scheme)
    except ValueError:  # the client says what is wrong with the URL
        return None
    settings = getproxies()
    kind = next((kind for kind in (scheme, "all") if settings.get(kind, "").strip()), None)
    if kind is None or not host or is_local(host) or _is_excepted(host, port, settings.get("no", "")):
        return None
    return _usable(settings[kind].strip(), f"{kind.upper()}_PROXY", socks)


def is_local(host: str) -> bool:
    """Whether a name or an address is this machine's. It looks up no name but one that begins as this machine's."""
    host = host.lower().removesuffix(".")
    if host in LOCAL_NAMES or host.endswith(".localhost"):
        return True
    address = _address(host)
    return _is_own_name(host) if address is None else _is_own(address)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.replace("%25", "%"))  # before the zone of a link-local address, in a URL
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))  # 127.1 and 0, as the resolver reads them
    except (OSError, ValueError):
        return None


def _is_own(address: IPv4Address | IPv6Address) -> bool:
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback or address.is_unspecified:
        return True
    try:
        family, *_, place = socket.getaddrinfo(str(address), 9, type=socket.SOCK_DGRAM)[0]  # with the number of a zone
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # sends nothing: it only chooses a route
            probe.connect(place)
            return str(probe.getsockname()[0]).partition("%")[0] == str(address).partition("%")[0]
    except OSError:
        return False


def _is_own_name(host: str) -> bool:
    own = socket.gethostname().lower()
    label = own.partition(".")[0]
    if host in (own, label):
        return True
    if host.partition(".")[0] != label:
        return False
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return any(_is_own(ip_address(str(sockaddr[0]).partition("%")[0])) for *_, sockaddr in found)


def _is_excepted(host: str, port: int | None, text: str) -> bool:
    """Whether NO_PROXY has a host: by *, a name, .name, *.name, an address or a network; perhaps with a port."""
    entries = [entry.removesuffix(".") for entry in re.split(r"[,\s]+", text) if entry]
    if "*" in entries:
        return True
    names = ",".join(entry.removeprefix("*") for entry in entries)
    if proxy_bypass_environment(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", {"no": names}):
        return True
    address = _address(host)
    return address is not None and any(address in network for network in map(_network, entries) if network)


def _network(entry: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(re.sub(r"^\[(.+?)\](/\d+)?$", r"\1\2", entry), strict=False)
    except ValueError:
        return None


def _usable(value: str, variable: str, socks: Sequence[str]) -> Proxy:
    url = value if "://" in value else f"http://{value}"
    try:
        at = httpx.Proxy(url).url
        valid = can_be_asked(at) and not re.search(r"[/?#].*@", url.partition("://")[2], re.DOTALL)
    except (ValueError, httpx.InvalidURL):  # their texts may hold a password, as the value may
        valid = False
    if not valid:
        problem = "is not the URL of a proxy; write http://HOST:PORT or socks5://HOST:PORT, and %2F for a /"
        raise InvalidConfiguration(variable, problem)
    if url.lower().startswith("socks") and not all(map(find_spec, socks)):
        packages = "run `pip install '.[socks]'` in the repository, or `pip install socksio PySocks`"
        problem = f"is {without_credentials(url)!r}, and SOCKS needs packages that are missing; {packages}"
        raise InvalidConfiguration(variable, problem)
    return Proxy(url, variable)


def can_be_asked(url: httpx.URL) -> bool:
    """Whether a URL has a host and a port that getaddrinfo takes. For others, httpx raises UnicodeError."""
    try:
        known = url.host and url.raw_host.decode("ascii").encode("idna")
    except UnicodeError:
        return False
    return bool(known) and (url.port is None or 0 < url.port < 2**16)


def ca_certificates() -> dict[str, str]:
    """The CA certificates, as `cafile` or `capath` of ssl.create_default_context; empty for those of certifi.

    Raises InvalidConfiguration if the environment names what is not there or has no certificates.
    """
    for name in CA_VARIABLES:
        if path := os.environ.get(name):
            if os.path.isfile(path):
                _context(cafile=path)
                return {"cafile": path}
            if any(map(os.path.isdir, path.split(os.pathsep))):  # OpenSSL takes several
                return {"capath": path}
            raise InvalidConfiguration(name, f"is {path!r}, which is not there; correct it, or unset it")
    return {}


def tls() -> ssl.SSLContext:
    """What httpx verifies certificates with, made once: that takes 0.03 s. Raises as `ca_certificates`."""
    return _context(**ca_certificates())


@cache
def _context(cafile: str | None = None, capath: str | None = None) -> ssl.SSLContext:
    try:
        if cafile or capath:
            return ssl.create_default_context(cafile=cafile, capath=capath)
        return httpx.create_ssl_context(trust_env=False)  # certifi's
    except OSError as error:  # ssl.SSLError is one
        problem = f"{cafile} has no certificates that can be read ({error}); name a PEM file, or unset it"
        raise InvalidConfiguration(CA_VARIABLES[0], problem) from error
