"""Where webhooks may go. Each test has a DNS of its own."""

import asyncio
import socket
import threading

import pytest

from hermes.gateway.addresses import address_of
from hermes.gateway.destinations import LOOKUPS, Busy, Destinations, Forbidden, Unresolved

GATEWAY, UPSTREAM = "http://127.0.0.1:8000", "http://cog.internal:5000/under"
NAMES = {
    "public.example": ["8.8.8.8"],
    "two.example": ["2606:4700::1111", "8.8.8.8"],
    "private.example": ["10.0.0.7"],
    "mixed.example": ["8.8.8.8", "127.0.0.1"],
    "localhost": ["127.0.0.1", "::1"],
    "cog.internal": ["10.0.0.5"],
    "alias.internal": ["10.0.0.5"],
    "here.internal": ["127.0.1.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "xn--bcher-kva.example": ["8.8.4.4"],
}


def look_up(host):
    try:
        return [address_of(host.strip("[]"))]
    except ValueError:
        pass
    if host in ("127.1", "2130706433", "0x7f000001"):
        return [address_of("127.0.0.1")]  # as getaddrinfo reads them
    if host not in NAMES:
        raise socket.gaierror(host)
    return [address_of(each) for each in NAMES[host]]


def find(url, *allowed, never=(GATEWAY, UPSTREAM), look_up=look_up):
    async def main():
        destinations = Destinations(allowed, lambda: never, look_up)
        try:
            return await destinations.find(url, "anna")
        finally:
            destinations.close()

    return asyncio.run(main())


def refusal(url, *allowed, error=Forbidden, **options):
    with pytest.raises(error) as refused:
        find(url, *allowed, **options)
    return str(refused.value)


def test_without_a_host_that_is_listed_webhooks_are_disabled():
    assert refusal("http://public.example/") == (
        "webhooks are disabled; the operator has to start the gateway with --webhooks HOST"
    )


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://public.example/", "public.example"),
        ("https://PUBLIC.example./", "public.example"),
        ("http://public.example:81/", "public.example"),
        ("http://public.example:81/", "public.example:81"),
        ("https://public.example/", "public.example:443"),
        ("http://public.example:80/", "public.example:80"),
        ("http://bücher.example/", "bücher.example"),
        ("http://private.example/", "private.example"),
        ("http://localhost:9000/", "localhost"),
        ("http://127.0.0.1:9000/", "127.0.0.1:9000"),
        ("http://[::1]:9000/", "[::1]"),
    ],
)
def test_a_host_that_is_listed_is_allowed_wherever_it_is(url, allowed):
    assert find(url, allowed).addresses


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://two.example/", "public.example"),
        ("http://sub.public.example/", "public.example"),
        ("http://public.example/", "public.example:81"),
        ("http://8.8.8.8/", "public.example"),
    ],
)
def test_another_one_is_not(url, allowed):
    assert "is not allowed" in refusal(url, allowed)


@pytest.mark.parametrize("host", ["public.example", "two.example", "8.8.8.8", "[2606:4700::1111]"])
def test_a_star_means_public_addresses(host):
    assert find(f"https://{host}/hook", "*").addresses


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "[::1]", "[::]", "0.0.0.0", "10.0.0.1"),
        *("169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"),
        *("private.example", "mixed.example", "mapped.example", "cog.internal"),
    ],
)
def test_a_star_never_means_this_machine_or_a_private_one(host):
    """What a name leads to, and whether it is there at all, is not told."""
    said = refusal(f"http://{host}:9000/", "*")
    nothing = refusal("http://nothing.example:9000/", "*", error=Unresolved)
    assert said.partition(" ")[2] == nothing.partition(" ")[2]
    assert nothing.startswith("nothing.example has no public address")


def test_a_star_never_means_a_public_address_of_this_machine(monkeypatch):
    own = "hermes.gateway.destinations.is_this_machine"
    monkeypatch.setattr(own, lambda address: address == address_of("8.8.8.8"))
    assert "has no public address" in refusal("http://public.example/", "*")


def test_a_private_host_can_be_listed_beside_a_star():
    assert find("http://private.example/", "*", "private.example").addresses
    assert find("http://public.example/", "*", "private.example").addresses


@pytest.mark.parametrize(
    "url",
    [
        *("http://cog.internal:5000/shutdown", "http://alias.internal:5000/", "http://10.0.0.5:5000/"),
        *("http://127.0.0.1:8000/", "http://localhost:8000/", "http://127.0.0.2:8000/", "http://0.0.0.0:8000/"),
        *("http://[::1]:8000/", "http://here.internal:8000/", "http://127.1:8000/"),
    ],
)
def test_no_list_allows_an_upstream_or_the_gateway_under_whatever_name(url):
    hosts = ["cog.internal", "alias.internal", "10.0.0.5", "127.0.0.1", "localhost", "127.0.0.2", "0.0.0.0"]
    said = refusal(url, "*", *hosts, "[::1]", "here.internal", "127.1")
    assert "leads to the gateway or to an upstream" in said


def test_another_port_of_an_upstreams_machine_can_be_listed():
    assert find("http://cog.internal:5001/", "cog.internal").addresses


def test_an_upstream_is_known_when_its_name_is_not_found_for_a_while():
    lost = []

    def dns(host):
        if host in lost:
            raise socket.gaierror(host)
        return look_up(host)

    async def main():
        destinations = Destinations(["alias.internal"], lambda: [UPSTREAM], dns)
        for _ in range(2):
            with pytest.raises(Forbidden, match="an upstream"):
                await destinations.find("http://alias.internal:5000/", "anna")
            lost.append("cog.internal")
        destinations.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://public.example/", "has to begin with http"),
        ("public.example", "has to begin with http"),
        ("//public.example/", "has to begin with http"),
        ("http:///x", "has to begin with http"),
        ("http://a b/", "has to begin with http"),
        ("http://[fe80::1%25eth0]/", "has to begin with http"),
        ("http://user:secret@public.example/", "has a user or a password"),
        ("http://secret@public.example/", "has a user or a password"),
        ("http://public.example\\@evil.example/", "has a user or a password"),
        ("http://public.example:0/", "the port is 0"),
        ("http://public.example:99999/", "the port is 99999"),
        ("http://public.example:x/", "cannot be read"),
        ("http://public.example/\r\nX: y", "cannot be read"),
        ("http://１２７.0.0.1/", "cannot be read"),
        ("http://\ud800/", "cannot be read"),
        ("http://public.example/" + "x" * 2000, "the URL has 2,022 characters"),
    ],
)
def test_what_is_no_url_of_a_webhook(url, said):
    assert said in refusal(url, "*", "public.example")


def with_slow_dns(test, hosts=("slow.example",)):
    """Run a test on destinations whose DNS does not answer for some hosts, until the test sets an event."""
    answer = threading.Event()

    def dns(host):
        if host in hosts:
            answer.wait()
        return [address_of("8.8.8.8")]

    async def main():
        destinations = Destinations(["*"], lambda: (), dns)
        try:
            async with asyncio.timeout(10):
                await test(destinations, answer)
        finally:
            answer.set()
            destinations.close()

    asyncio.run(main())


def test_a_dns_that_does_not_answer_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("hermes.gateway.destinations.LOOKUP_SECONDS", 0.01)

    async def test(destinations, _):
        with pytest.raises(Unresolved, match=r"slow\.example is not found: its DNS did not answer in 0 s"):
            await destinations.find("http://slow.example/", "anna")

    with_slow_dns(test)


def test_the_slow_dns_of_one_token_takes_one_thread_and_holds_up_nobody_else(monkeypatch):
    monkeypatch.setattr("hermes.gateway.destinations.LOOKUP_SECONDS", 0.01)

    async def test(destinations, answer):
        with pytest.raises(Unresolved):
            await destinations.find("http://slow.example/", "anna")
        for _ in range(LOOKUPS):
            with pytest.raises(Busy, match=r"another.example was not looked up: .* send it again later"):
                await destinations.find("http://another.example/", "anna")
        assert (await destinations.find("http://another.example/", "bert")).addresses
        waiting = asyncio.create_task(destinations.find("http://another.example/", "anna", patient=True))
        await asyncio.sleep(0)
        answer.set()
        assert (await waiting).addresses

    with_slow_dns(test)


def test_without_a_free_thread_nothing_is_said_of_the_hosts_own_dns(monkeypatch):
    monkeypatch.setattr("hermes.gateway.destinations.LOOKUP_SECONDS", 0.01)

    async def test(destinations, answer):
        for number in range(LOOKUPS):
            with pytest.raises(Unresolved):
                await destinations.find("http://slow.example/", f"token {number}")
        with pytest.raises(Busy):
            await destinations.find("http://another.example/", "bert")
        answer.set()
        assert (await destinations.find("http://another.example/", "bert", patient=True)).addresses

    with_slow_dns(test)
