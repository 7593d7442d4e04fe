"""What an IP address leads to: another machine of the Internet, or one that a stranger must not reach through this one.

The ranges are those of https://www.iana.org/assignments/iana-ipv4-special-registry and -ipv6-special-registry. Python's
`is_global` knows them as of its version, and counts multicast, 6to4 and NAT64 as global.
"""

import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address
HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}")  # of a URL: a name, or an IPv6 address

NOT_PUBLIC = tuple(
    ip_network(each)
    for each in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by the customers of a provider (CGNAT)
        "127.0.0.0/8",
        "168.63.129.16/32",  # where Azure's machines ask for their credentials
        "169.254.0.0/16",  # link-local, and where clouds' machines ask for their credentials
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, and reserved
        "2001::/23",  # Teredo among others
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
)
UNICAST = ip_network("2000::/3")  # whatever else IPv6 has is special
NAT64 = ip_network("64:ff9b::/96")


def address_of(text: str) -> Address:
    """Returns an address without its zone; an IPv4 address in an IPv6 one, of those that networks translate, is IPv4.

    Raises ValueError if it is none.
    """
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address in NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """Returns whether an address is of a machine that all of the Internet reaches. It may be this machine's."""
    if address.version == 6 and address not in UNICAST:
        return False
    return not any(address in network for network in NOT_PUBLIC)


def is_this_machine(address: Address) -> bool:
    """Returns whether what is sent to an address arrives on this machine."""
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))  # nothing is sent
    except OSError:
        return False
    return True
