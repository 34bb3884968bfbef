"""Addresses that strangers announce, and that must not be dialled."""

import ipaddress

import pytest

from sidecar.adapters.addresses import is_public
from tests.harness.hostile_addresses import ADDRESSES


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_is_no_host_on_the_internet_is_not_public(address: str) -> None:
    """Private, local, multicast, documentation, and IPv4 in IPv6's clothes (RFC 6890 and its successors)."""
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "11.0.0.1",
        "100.128.0.1",
        "128.0.0.1",
        "168.63.129.17",
        "172.32.0.1",
        "192.1.0.1",
        "198.20.0.1",
        "223.255.255.254",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2003::1",
        "2606:4700:4700::1111",
        "2a00:1450:4001::1",
    ],
)
def test_a_host_on_the_internet_is_public(address: str) -> None:
    """What nodes announce who mean it, and the first addresses beyond blocks that are not public."""
    assert is_public(ipaddress.ip_address(address))
