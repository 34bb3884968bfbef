"""Which IP addresses are public: strangers choose what LND is asked to dial, and where webhooks are."""

import ipaddress

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# IANA has given out nothing else of IPv6 to hosts: this leaves out every block that is local, reserved
# or multicast, and most ways to write an IPv4 address as an IPv6 one (mapped, translated, NAT64 …).
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")

# What `is_global` of one Python or another lets through, and what is no host on the Internet:
# multicast, IETF, anycast and documentation blocks, the rest of the ways to write an IPv4 address
# as an IPv6 one (Teredo, 6to4), which a router on the way may turn back into a private one, and the
# addresses inside of public blocks at which a cloud keeps its machines' secrets.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's, for its machines alone
        "192.0.0.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.175.48.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "2620:4f:8000::/48",
        "3fff::/20",
        "3ffe::/16",
    )
)


def is_public(address: IPAddress) -> bool:
    """Whether an address is a host on the Internet, as far as the registries say."""
    in_block = any(address.version == network.version and address in network for network in _NOT_PUBLIC)
    allotted = address.version == 4 or address in _GLOBAL_UNICAST
    return address.is_global and allotted and not in_block
