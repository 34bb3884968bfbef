"""Which IP addresses are public: strangers choose what LND is asked to dial."""

import ipaddress

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# What `is_global` of one Python or another lets through, and what is no host on the Internet:
# multicast, IETF and documentation blocks, and every way to write an IPv4 address as an IPv6 one,
# which a router on the way may turn back into a private one.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",
        "192.88.99.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",
        "::ffff:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/23",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
        "ff00::/8",
    )
)


def is_public(address: IPAddress) -> bool:
    """Whether an address is a host on the Internet, as far as the registries say."""
    in_block = any(address.version == network.version and address in network for network in _NOT_PUBLIC)
    return address.is_global and not in_block
