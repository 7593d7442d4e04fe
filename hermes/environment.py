"""What HTTP clients take from the environment: tokens, and the proxy for a URL.

HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY are read as curl reads them. httpx knows neither networks in NO_PROXY
nor brackets around an IPv6 address (https://curl.se/libcurl/c/CURLOPT_NOPROXY.html). A server on this machine is always
asked directly, because a proxy would ask itself.
"""

import logging
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx

from hermes.errors import InvalidConfiguration
from hermes.text import redacted

log = logging.getLogger(__name__)

LOCAL_NAMES = {"localhost", "localhost.localdomain", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback"}
PORTS = {"http": 80, "https": 443}
ENTRY = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::(\d+))?(/\d+)?")  # HOST, [ADDRESS], :PORT, and the length of a prefix


@dataclass(frozen=True)
class Proxy:
    """A proxy, and the variable of the environment that names it."""

    url: str
    variable: str

    def __str__(self) -> str:
        return f"the proxy {redacted(self.url)} of {self.variable}"


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
    if kind is None or not host or is_here(host):
        return None
    if any(_covers(entry, scheme, host, port) for entry in re.split(r"[,\s]+", settings.get("no", "")) if entry):
        return None
    return _usable(settings[kind].strip(), f"{kind.upper()}_PROXY", socks)


def is_here(host: str) -> bool:
    """Whether a name or an address is this machine's. It looks up no name but one that begins as this machine's."""
    host = host.lower().removesuffix(".")
    if host in LOCAL_NAMES or host.endswith(".localhost"):
        return True
    address = _address(host)
    return _is_own_name(host) if address is None else _is_own(address)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
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
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # sends nothing: it only chooses a route
            probe.connect((str(address), 9))
            return ip_address(probe.getsockname()[0]) == address
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


def _covers(entry: str, scheme: str, host: str, port: int | None) -> bool:
    """Whether an entry of NO_PROXY covers a host: *, a name, .name, an address, a network; perhaps with a port."""
    of, _, rest = entry.rpartition("://")
    if of not in ("", "all", scheme):
        return False
    if (rest := rest.rstrip("/")) == "*":
        return True
    parts = ENTRY.fullmatch(rest)  # an IPv6 address without brackets does not match
    name, of_port, prefix = parts.groups() if parts else (rest, None, None)
    if of_port and int(of_port) != port:
        return False
    name = name.strip("[]") + (prefix or "")
    try:
        network = ip_network(name, strict=False)
    except ValueError:
        name = name.lower().removeprefix("*").strip(".")
        if not re.fullmatch(r"[\w.-]+", name):
            _warn(entry)
            return False
        return host == name or host.endswith(f".{name}")
    address = _address(host)
    return address is not None and address in network


@cache
def _warn(entry: str) -> None:
    """Once for each entry."""
    log.warning("proxy: NO_PROXY has %r, which is no host, address or network; it is ignored", redacted(entry))


def _usable(value: str, variable: str, socks: Sequence[str]) -> Proxy:
    url = value if "://" in value else f"http://{value}"
    shown = redacted(url)
    try:
        valid = bool(httpx.Proxy(url).url.host)
    except (ValueError, httpx.InvalidURL):  # their texts may hold a password
        valid = False
    if not valid:
        problem = f"is {shown!r}, which is not the URL of a proxy; write http://HOST:PORT or socks5://HOST:PORT"
        raise InvalidConfiguration(variable, problem)
    if url.lower().startswith("socks") and not all(map(find_spec, socks)):
        packages = "run `pip install '.[socks]'` in the repository, or `pip install socksio PySocks`"
        raise InvalidConfiguration(variable, f"is {shown!r}, and SOCKS needs packages that are missing; {packages}")
    return Proxy(url, variable)
