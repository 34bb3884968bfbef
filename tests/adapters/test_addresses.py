"""Addresses that strangers announce, and that must not be dialled."""

import ipaddress

import pytest

from sidecar.adapters.addresses import is_public

HOSTILE = [
    "127.0.0.1",
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001:db8::1",
    "2001::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", HOSTILE)
def test_an_address_that_is_no_host_on_the_internet_is_not_public(address: str) -> None:
    """Private, local, multicast, documentation, and IPv4 in IPv6's clothes (RFC 6890 and its successors)."""
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "2a00:1450:4001::1"])
def test_a_host_on_the_internet_is_public(address: str) -> None:
    """What nodes announce who mean it."""
    assert is_public(ipaddress.ip_address(address))
