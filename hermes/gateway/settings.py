"""What a gateway is told when it starts."""

import ipaddress
import os
from dataclasses import dataclass, field

from hermes.errors import InvalidConfiguration

LOCALHOST = "localhost"


def tokens_of_environment() -> tuple[str, ...]:
    """The tokens in HERMES_GATEWAY_TOKENS."""
    return tuple(token.strip() for token in os.environ.get("HERMES_GATEWAY_TOKENS", "").split(",") if token.strip())


@dataclass(frozen=True)
class GatewaySettings:
    """The settings of a gateway.

    Raises InvalidConfiguration if they contradict each other, or would open the gateway to everyone unasked.
    """

    host: str = "127.0.0.1"
    port: int = 8000
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
        if not (self.local or self.tokens or self.no_auth):
            raise InvalidConfiguration(
                "--host", f"{self.host} can be reached by others; set HERMES_GATEWAY_TOKENS, or say --no-auth"
            )

    @property
    def local(self) -> bool:
        """Whether only this machine reaches the gateway."""
        return is_loopback(self.host)

    @property
    def names(self) -> tuple[str, ...]:
        """What a client may write as the name of the model."""
        return (self.model, self.model.partition("/")[2], *self.aliases)


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == LOCALHOST
