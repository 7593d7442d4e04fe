"""What a gateway is told when it starts."""

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from hermes.errors import InvalidConfiguration

LOCALHOST = "localhost"
PREFIX = "HERMES_GATEWAY_"
TOKENS = f"{PREFIX}TOKENS"
TOKENS_FILE = f"{TOKENS}_FILE"  # as the official images on Docker Hub name it
VARIABLES = (TOKENS, TOKENS_FILE, f"{PREFIX}BIND", f"{PREFIX}PORT")  # the last two are for Compose


def tokens_of_environment() -> tuple[str, ...]:
    """The tokens in HERMES_GATEWAY_TOKENS, comma-separated, or in the file that HERMES_GATEWAY_TOKENS_FILE names.

    A line of the file may be one token. /dev/null has none, and any other file without tokens is a mistake.

    Raises InvalidConfiguration if both have tokens, if the file cannot be read or has none, or a variable is misspelt.
    """
    for other in os.environ:
        if other.startswith(PREFIX) and other not in VARIABLES:
            raise InvalidConfiguration(other, f"there is no such setting; there are {', '.join(VARIABLES)}")
    tokens = _tokens(os.environ.get(TOKENS, ""))
    in_file: tuple[str, ...] = ()
    if name := os.environ.get(TOKENS_FILE, ""):
        try:
            in_file = _tokens(Path(name).read_text(encoding="utf-8-sig").replace("\n", ","))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise InvalidConfiguration(
                TOKENS_FILE, f"user {os.geteuid()} cannot read {name}: {reason}; name a file that it can read"
            ) from None
        if not in_file and not Path(name).is_char_device():
            raise InvalidConfiguration(TOKENS_FILE, f"{name} has no token; put one on each line")
    if tokens and in_file:
        raise InvalidConfiguration(TOKENS_FILE, f"{TOKENS} is set, too; unset one of them")
    return tokens or in_file


def _tokens(text: str) -> tuple[str, ...]:
    return tuple(token.strip() for token in text.split(",") if token.strip())


@dataclass(frozen=True)
class GatewaySettings:
    """The settings of a gateway.

    Raises InvalidConfiguration if they contradict each other, or would open the gateway to everyone unasked.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    published: str | None = None  # HOST:PORT where others reach it, if a container publishes its port
    model: str = "local/model"  # owner/name under which clients find the model
    aliases: tuple[str, ...] = ()  # more names, such as gpt-4o
    # bearer tokens; none: everybody who reaches it is served
    tokens: tuple[str, ...] = field(default_factory=tokens_of_environment, repr=False)
    no_auth: bool = False  # serve other machines without a token
    origins: tuple[str, ...] = ()  # web pages of other origins that may ask, as CORS writes them
    webhooks_anywhere: bool = False  # else only to this machine
    max_waiting: int = 1000  # callers in line
    max_wait: float = 600.0  # s in line
    keep: float = 3600.0  # s that an ended run can be read
    keep_runs: int = 10_000
    keep_bytes: int = 256 * 2**20  # of all runs' inputs and outputs
    max_body: int = 16 * 2**20  # bytes of a request

    def __post_init__(self) -> None:
        owner, slash, name = self.model.partition("/")
        if not (owner and slash and name) or "/" in name:
            raise InvalidConfiguration("--model", f"is {self.model!r}; write owner/name")
        if self.published is not None and not host_of(self.published):
            raise InvalidConfiguration(
                "--published", f"is {self.published!r}; write HOST:PORT, with [ ] around an IPv6 address"
            )
        if not (self.local or self.tokens or self.no_auth):
            option, reached = ("--published", self.published) if self.published else ("--host", self.host)
            hint = "" if self.published else "; in a container, --published may say that it is local"
            advice = f"set {TOKENS} or {TOKENS_FILE}, or pass --no-auth{hint}"
            raise InvalidConfiguration(option, f"{reached} can be reached by others; {advice}")

    @property
    def local(self) -> bool:
        """Whether only this machine reaches the gateway."""
        return is_loopback(self.host if self.published is None else host_of(self.published))

    @property
    def names(self) -> tuple[str, ...]:
        """What a client may write as the name of the model."""
        return (self.model, self.model.partition("/")[2], *self.aliases)


def host_of(address: str) -> str:
    """The host in HOST:PORT, or nothing if it is written otherwise."""
    try:
        parts = urlsplit(f"//{address}")
        host = parts.hostname if parts.port is not None and parts.netloc == address and not parts.username else None
    except ValueError:
        host = None
    return host or ""


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == LOCALHOST
