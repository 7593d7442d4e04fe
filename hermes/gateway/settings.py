"""The settings of a gateway."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from hermes.errors import InvalidConfiguration
from hermes.gateway.tokens import TOKENS, TOKENS_FILE, find_tokens, names_of

LOCALHOST = "localhost"
ANY = "*"
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\sA-Z]+")
LONGEST = 1e9  # s; neither nan nor inf is within these limits
MOST = 2**50
LIMITS = {  # of the numbers, the smallest and the largest
    "port": (1, 65535),
    "max_waiting": (0, MOST),
    "max_wait": (0.001, LONGEST),
    "max_per_token": (1, MOST),
    "max_body": (1, MOST),
    "max_memory": (1, MOST),
    "keep": (0, LONGEST),
    "keep_runs": (0, MOST),
    "keep_bytes": (0, MOST),
    "grace": (0, LONGEST),
}


@dataclass(frozen=True)
class GatewaySettings:
    """The settings of a gateway.

    Raises InvalidConfiguration if one is out of its range, if they contradict each other, or if they would open the
    gateway to everyone unasked.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    published: str | None = None  # HOST:PORT where others reach it, if a container publishes its port
    public_url: str | None = None  # where others reach it through a proxy, with the path before /v1; "" is None
    forwarded_from: tuple[str, ...] = ()  # addresses and networks of proxies whose X-Forwarded-* count
    model: str = "local/model"  # owner/name under which clients find the model
    aliases: tuple[str, ...] = ()  # more names, such as gpt-4o
    # entries of tokens.py; none: everybody who reaches it is served
    tokens: tuple[str, ...] = field(default_factory=find_tokens, repr=False)
    no_auth: bool = False  # serve other machines without a token
    origins: tuple[str, ...] = ()  # of web pages that may send requests, as CORS writes them, or *
    webhooks: tuple[str, ...] = ()  # HOST, HOST:PORT, or *; none: webhooks are disabled
    max_waiting: int = 1000  # requests in the queue
    max_wait: float = 600.0  # s in the queue
    max_per_token: int | None = None  # predictions in flight
    max_body: int = 2**20  # bytes of a request
    max_memory: int = 64 * 2**20  # bytes of all requests and predictions in flight
    keep: float = 3600.0  # s that an ended prediction or a response can be read
    keep_runs: int = 10_000
    keep_bytes: int = 64 * 2**20  # of all ended predictions, and as many of responses
    store: Path | None = None  # the SQLite file of predictions; None keeps them in memory
    grace: float = 5.0  # s for running predictions after SIGTERM

    def __post_init__(self) -> None:
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                allowed = f"at least {least}" if value < least and most != 65535 else f"{least} to {most:.0f}"
                raise InvalidConfiguration(f"--{name.replace('_', '-')}", f"is {value}; set {allowed}")
        if self.max_body > self.max_memory // 2:  # which is what a token may have
            problem = f"is {self.max_body}, more than half of --max-memory {self.max_memory}"
            raise InvalidConfiguration("--max-body", problem)
        owner, slash, name = self.model.partition("/")
        if not (owner and slash and name) or "/" in name:
            raise InvalidConfiguration("--model", f"is {self.model!r}; write owner/name")
        if self.published is not None and not host_of(self.published):
            raise InvalidConfiguration(
                "--published", f"is {self.published!r}; write HOST:PORT, with [ ] around an IPv6 address"
            )
        if self.public_url is not None:
            object.__setattr__(self, "public_url", _public_url(self.public_url))
        if "" in self.aliases:
            raise InvalidConfiguration("--alias", "is empty; write a name such as gpt-4o")
        if ANY in self.origins and not (self.tokens or self.no_auth):
            raise InvalidConfiguration(
                "--origin", "* lets every web page in; list origins, or set tokens, or --no-auth"
            )
        for origin in self.origins:
            if origin != ANY and not ORIGIN.fullmatch(origin):
                raise InvalidConfiguration(
                    "--origin", f"is {origin!r}; write scheme://host[:port] in lower case, without a path, or *"
                )
        for host in self.webhooks:
            if host != ANY and (ANY in host or not host_of(host if re.search(r":\d+\Z", host) else f"{host}:443")):
                raise InvalidConfiguration(
                    "--webhooks", f"is {host!r}; write HOST or HOST:PORT, with [ ] around an IPv6 address, or *"
                )
        for proxy in self.forwarded_from:
            try:
                ipaddress.ip_network(proxy)
            except ValueError as error:
                raise InvalidConfiguration("--forwarded-from", f"{error}; write an address or a network") from None
        _ = self.token_names  # raises
        self._require_authentication()

    def _require_authentication(self) -> None:
        """Raises InvalidConfiguration if other machines reach a gateway that asks for no token."""
        through_proxy = self.public_url is not None and not is_loopback(urlsplit(self.public_url).hostname or "")
        if self.tokens or self.no_auth or (self.local and not through_proxy):
            return
        reached = {"--public-url": self.public_url if through_proxy else None, "--published": self.published}
        option, place = next(((name, place) for name, place in reached.items() if place), ("--host", self.host))
        hint = "" if option != "--host" else "; in a container, --published may say that it is local"
        advice = f"set {TOKENS} or {TOKENS_FILE}, or pass --no-auth{hint}"
        raise InvalidConfiguration(option, f"{place} can be reached by others; {advice}")

    @property
    def local(self) -> bool:
        """Whether only this machine reaches the address where the gateway listens, or is published."""
        return is_loopback(self.host if self.published is None else host_of(self.published))

    @property
    def urls(self) -> tuple[str, ...]:
        """The gateway's own URLs, the one to show first."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        published = f"http://{self.published}" if self.published else None
        return tuple(url for url in (self.public_url, published, f"http://{host}:{self.port}") if url)

    @property
    def names(self) -> tuple[str, ...]:
        """What a client may write as the name of the model."""
        return (self.model, self.model.partition("/")[2], *self.aliases)

    @cached_property
    def token_names(self) -> Mapping[bytes, str]:
        """The name of each token, by the token's SHA-256."""
        return names_of(self.tokens)


def _public_url(url: str) -> str | None:
    """A URL without the slash at its end; None for "", as Compose passes an unset variable."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if url and (not good or re.search(r"[@?#\s]", url)):
        shown = "has a user or a password" if "@" in url else f"is {url!r}"
        raise InvalidConfiguration("--public-url", f"{shown}; write http[s]://HOST[:PORT][/PATH]")
    return url.rstrip("/") or None


def host_of(address: str) -> str:
    """The host in HOST:PORT, or nothing if it is written otherwise."""
    try:
        parts = urlsplit(f"//{address}")
        whole = parts.netloc == address and not re.search(r"[@\\\s]", address)
        host = parts.hostname if whole and parts.port is not None else None
    except ValueError:
        host = None
    return host or ""


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine. Browsers look up no name that ends with .localhost."""
    host = host.strip("[]").lower().removesuffix(".")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == LOCALHOST or host.endswith(f".{LOCALHOST}")
