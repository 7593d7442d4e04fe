"""Where webhooks may go. A URL is a client's to choose, and what it leads to is its DNS's.

So the addresses decide, looked up just before each connection, which is then made to one of them.
"""

import asyncio
import socket
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from hermes.gateway.addresses import HOST, Address, address_of, is_public, is_this_machine

ANY = "*"
MAX_URL = 2000  # characters
PORTS = {"http": 80, "https": 443}
LOOKUP_SECONDS = 5.0
LOOKUPS = 4  # at once; threads of their own, so that a slow DNS holds up nothing but webhooks

Place = tuple[str, int]  # a host and a port


class Forbidden(Exception):
    """No webhook may go there. The message begins with the host, or what is wrong with the URL."""


@dataclass(frozen=True)
class Destination:
    """What a URL leads to."""

    url: httpx.URL
    host: str
    addresses: tuple[Address, ...]  # each of them is allowed


class Destinations:
    """The rules, and the lookups."""

    def __init__(
        self,
        allowed: Collection[str],
        never: Callable[[], Iterable[Place]],
        look_up: Callable[[str], list[Address]] | None = None,
    ):
        """Args:
        allowed: HOST or HOST:PORT, which may be this machine's, or * for every public address of another machine.
        never: what is never allowed: upstreams, and the gateway itself.
        look_up: returns the addresses of a host; raises OSError. By default it asks as the system does.
        """
        self._any = ANY in allowed
        self._listed = {_place(each) for each in allowed if each != ANY}
        self._never, self._look_up = never, look_up or _look_up
        self._last: dict[str, list[Address]] = {}  # of those that are never allowed, as their lookup may fail
        self._threads = ThreadPoolExecutor(LOOKUPS, "lookup")

    async def find(self, text: str) -> Destination:
        """Returns what a URL leads to now. Raises Forbidden if no webhook may go there."""
        url = _url(text)
        host = url.raw_host.decode().lower().removesuffix(".")
        port = url.port or PORTS[url.scheme]
        if not (self._any or self._listed):
            raise Forbidden("webhooks are disabled; the operator has to start the gateway with --webhooks HOST")
        listed = not self._listed.isdisjoint({(host, None), (host, port)})
        if not (self._any or listed):
            raise Forbidden(
                f"{host}:{port} is not allowed; the operator has to start the gateway with --webhooks {host}"
            )
        lookup = asyncio.get_running_loop().run_in_executor(self._threads, self._addresses, host, port, listed)
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                return Destination(url, host, await lookup)
        except TimeoutError:
            raise Forbidden(f"{host} is not found: its DNS did not answer in {LOOKUP_SECONDS:.0f} s") from None

    def close(self) -> None:
        """Stop the lookups."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _addresses(self, host: str, port: int, listed: bool) -> tuple[Address, ...]:
        """In a thread."""
        try:
            found = self._look_up(host)
        except (OSError, UnicodeError):
            found = []
        if not listed and not all(is_public(address) and not is_this_machine(address) for address in found):
            found = []  # what a name of this network leads to is nothing to tell
        if not found:
            what = "has no address" if listed else "has no public address, or others than public ones"
            raise Forbidden(f"{host} {what}; send the URL of a host that this gateway reaches")
        taken = {(_machine(address), each) for name, each in self._never() for address in self._known(name)}
        if any((_machine(address), port) in taken for address in found):
            raise Forbidden(
                f"{host}:{port} leads to the gateway or to an upstream, which take no webhooks; send another"
            )
        return tuple(found)

    def _known(self, host: str) -> list[Address]:
        with suppress(OSError, UnicodeError):  # such as a container that is stopped
            self._last[host] = self._look_up(host)
        return self._last.get(host, [])


def _url(text: str) -> httpx.URL:
    """Returns the URL. Raises Forbidden if it is none for a webhook."""
    if len(text) > MAX_URL:
        raise Forbidden(f"the URL has {len(text):,} characters; at most {MAX_URL:,} are taken")
    try:
        url = httpx.URL(text)
        host = url.raw_host.decode()
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Forbidden(f"the URL cannot be read: {error}") from None
    if url.scheme not in PORTS or not HOST.fullmatch(host):
        raise Forbidden("the URL has to begin with http:// or https://, and a host")
    if url.userinfo:
        raise Forbidden("the URL has a user or a password, which are not sent; leave them out")
    if url.port is not None and not 0 < url.port < 2**16:
        raise Forbidden(f"the port is {url.port}; it has to be between 1 and 65535")
    return url


def _place(text: str) -> tuple[str, int | None]:
    """The host, as URLs write it, and the port of HOST or HOST:PORT."""
    host = httpx.URL(f"http://{text}").raw_host.decode().lower().removesuffix(".")
    return host, urlsplit(f"//{text}").port


def _look_up(host: str) -> list[Address]:
    found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(address_of(str(sockaddr[0])) for *_, sockaddr in found))


def _machine(address: Address) -> Address | None:
    """What is the same for two addresses of one machine, as far as is known: None is this machine."""
    return None if is_this_machine(address) else address
