"""Where webhooks may go. A URL is a client's to choose, and what it leads to is its DNS's.

So the addresses decide, looked up just before each connection, which is then made to one of them.
"""

import asyncio
import socket
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from hermes.gateway.addresses import HOST, Address, address_of, is_public, is_this_machine
from hermes.gateway.settings import ANY

MAX_URL = 2000  # characters
PORTS = {"http": 80, "https": 443}
LOOKUP_SECONDS = 5.0
LOOKUPS = 4  # at once; threads of their own, so that a slow DNS holds up nothing but webhooks


class Forbidden(Exception):
    """No webhook may go there, by the rules. The message begins with the host, or what is wrong with the URL."""


class Unresolved(Exception):
    """The host has no address now. It may have one later."""


class Busy(Exception):
    """The host was not looked up: other lookups are under way."""


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
        never: Callable[[], Iterable[str]],
        look_up: Callable[[str], list[Address]] | None = None,
    ):
        """Args:
        allowed: HOST or HOST:PORT, which may be this machine's, or * for every public address of another machine.
        never: URLs of what is never allowed: upstreams, and the gateway itself.
        look_up: returns the addresses of a host; raises OSError. By default it asks as the system does.
        """
        self._any = ANY in allowed
        self._listed = {_host_and_port(f"http://{each}") for each in allowed if each != ANY}
        self._never, self._look_up = never, look_up or _look_up
        self._last: dict[str, list[Address]] = {}  # of those that are never allowed, as their lookup may fail
        self._threads, self._free = ThreadPoolExecutor(LOOKUPS, "lookup"), asyncio.Semaphore(LOOKUPS)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by owner

    async def find(self, text: str, owner: str, *, patient: bool = False) -> Destination:
        """Returns what a URL leads to now.

        Raises Forbidden if no webhook may go there, Unresolved if its host is not found, and Busy.

        Args:
            text: the URL.
            owner: the name of a token. One lookup of each is under way at once, so its slow DNS is its own problem.
            patient: waits until it is this one's turn, instead of raising Busy.
        """
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
        try:
            async with asyncio.timeout(None if patient else LOOKUP_SECONDS):
                await self._take_turn(owner)
        except TimeoutError:
            what = f"other lookups did not end in {LOOKUP_SECONDS:.0f} s"
            raise Busy(f"{host} was not looked up: {what}; send it again later") from None
        lookup = asyncio.get_running_loop().run_in_executor(self._threads, self._addresses, host, port, listed)
        lookup.add_done_callback(lambda done: self._end_turn(owner, done))
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                return Destination(url, host, await asyncio.shield(lookup))  # its thread is taken until it ends
        except TimeoutError:
            raise Unresolved(f"{host} is not found: its DNS did not answer in {LOOKUP_SECONDS:.0f} s") from None

    def close(self) -> None:
        """Stop the lookups."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _take_turn(self, owner: str) -> None:
        await self._turns[owner].acquire()
        try:
            await self._free.acquire()
        except BaseException:
            self._turns[owner].release()
            raise

    def _end_turn(self, owner: str, done: "asyncio.Future[tuple[Address, ...]]") -> None:
        self._free.release()
        self._turns[owner].release()
        if not done.cancelled():
            done.exception()  # nobody may wait for it any more

    def _addresses(self, host: str, port: int, listed: bool) -> tuple[Address, ...]:
        """In a thread."""
        try:
            found = self._look_up(host)
        except (OSError, UnicodeError):
            found = []
        # what a name of this network leads to, and whether it is there, is nothing to tell
        what = "has no address" if listed else "has no public address, or others than public ones"
        what = f"{host} {what}; send the URL of a host that this gateway reaches"
        if not found:
            raise Unresolved(what)
        if not listed and not all(is_public(address) and not is_this_machine(address) for address in found):
            raise Forbidden(what)
        never = (_host_and_port(each, PORTS[urlsplit(each).scheme]) for each in self._never())
        forbidden = {(_machine(address), each) for name, each in never for address in self._known(name)}
        if any((_machine(address), port) in forbidden for address in found):
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


def _host_and_port(url: str, port: int | None = None) -> tuple[str, int | None]:
    """The host of a URL, as URLs write it, and its port or this one."""
    return httpx.URL(url).raw_host.decode().lower().removesuffix("."), urlsplit(url).port or port


def _look_up(host: str) -> list[Address]:
    found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(address_of(str(sockaddr[0])) for *_, sockaddr in found))


def _machine(address: Address) -> Address | None:
    """What is the same for two addresses of one machine, as far as is known: None is this machine."""
    return None if is_this_machine(address) else address
