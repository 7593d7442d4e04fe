import socket

import pytest

from hermes.gateway.addresses import address_of, is_public, is_this_machine


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255"),
        *("192.168.1.1", "100.64.0.1", "100.127.255.255", "169.254.169.254", "168.63.129.16", "100.100.100.200"),
        *("192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
        *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::7f00:1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1"),
        *("100::1", "2001:db8::1", "3fff::1", "5f00::1", "4000::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "64:ff9b:1::808:808"),
        *("2002:7f00:1::1", "2002:a9fe:a9fe::", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),
    ],
)
def test_these_are_not_public(text):
    assert not is_public(address_of(text))


@pytest.mark.parametrize(
    "text",
    [
        *("1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.1", "223.255.255.255"),
        *("2606:4700::1111", "2a00:1450:4001::1", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"),
    ],
)
def test_these_are_public(text):
    assert is_public(address_of(text))


@pytest.mark.parametrize("text", ["127.0.0.1", "127.1.2.3", "0.0.0.0", "::", "::1", "::ffff:127.0.0.1"])
def test_these_lead_to_this_machine(text):
    assert is_this_machine(address_of(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "192.0.2.1", "2606:4700::1111"])
def test_these_do_not(text):
    assert not is_this_machine(address_of(text))


def test_an_address_of_its_own_network_card_leads_to_this_machine():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 9))  # it chooses the address to send from, and sends nothing
        except OSError:
            probe.connect(("127.0.0.1", 9))  # no network
        assert is_this_machine(address_of(probe.getsockname()[0]))


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f000001", "1.2.3.4.5"])
def test_a_name_is_no_address(text):
    with pytest.raises(ValueError, match="does not appear to be"):
        address_of(text)
