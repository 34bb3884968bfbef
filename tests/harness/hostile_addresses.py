"""What a stranger may write into a webhook's URL to reach what is not the Internet, and what comes of it.

Nothing here is ever connected to: `try_all` lets no socket connect, and tells when one would have.
"""

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from aiohttp.abc import AbstractResolver, ResolveResult

from sidecar.adapters.guard import DialRules
from sidecar.adapters.pushes import NEVER_AGAIN, Pushes, PushLimits
from sidecar.core.errors import NotNotified

ADDRESSES = [
    # IPv4: this host, private, shared (Alibaba's metadata among it), link-local (everybody's metadata).
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.0.23",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.254",
    "192.168.0.1",
    "192.168.255.255",
    # IETF's, Oracle's metadata, documentation, anycast, benchmarks.
    "192.0.0.8",
    "192.0.0.9",
    "192.0.0.170",
    "192.0.0.192",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.175.48.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    # Multicast, reserved, broadcast; Azure's own, amidst public ones.
    "224.0.0.1",
    "233.252.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    # IPv6: unspecified, this host, local, unique local (metadata of AWS and Google), site-local, multicast.
    "::",
    "::1",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    # IPv4 in IPv6's clothes: compatible, mapped, translated, NAT64, 6to4, Teredo.
    "::127.0.0.1",
    "::10.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:169.254.169.254",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001::1",
    "2001:0:7f00:1::",
    # Discard, dummy, benchmarks, ORCHID, AS112, documentation, segment routing, 6bone, never given out.
    "100::1",
    "100:0:0:1::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2620:4f:8000::1",
    "3ffe::1",
    "3fff::1",
    "5f00::1",
    "200::1",
    "4000::1",
    "8000::1",
    "e000::1",
]
"""Addresses in their canonical form that are no hosts on the Internet."""

SPELLINGS = [
    # 127.0.0.1 in every way that a system's resolver reads: decimal, hex, octal, short, mixed.
    "2130706433",
    "0x7f000001",
    "0X7F000001",
    "017700000001",
    "0177.0.0.1",
    "0177.0.0.01",
    "0x7f.0.0.1",
    "0x7f.0x0.0x0.0x1",
    "127.1",
    "127.0.1",
    "127.000.000.001",
    "127.0x0.1",
    "0",
    "0x0",
    "127.0.0.1.",
    # The metadata address and private ones.
    "2852039166",
    "0xa9fea9fe",
    "0xa9.0xfe.0xa9.0xfe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "169.16689662",
    "0xa.1",
    "012.0.0.1",
    "0xc0.0xa8.1",
    # IPv6 with a scope, or with an IPv4 address that is written oddly.
    "[fe80::1%25lo]",
    "[fe80::1%lo]",
    "[fe80::1%251]",
    "[::1%25lo]",
    "[::ffff:0x7f.0.0.1]",
    "[::ffff:127.1]",
    # In characters that are digits and dots to some.
    "１２７.0.0.1",
    "127。0。0。1",
    "①②⑦.⓪.⓪.①",
    "%31%32%37.0.0.1",
]
"""Hosts of URLs that mean such an address to some reader, and that are in no form that all read alike."""

IN_FULL = [
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[0:0:0:0:0:ffff:7f00:1]",
    "[FE80:0:0:0:0:0:A9FE:A9FE]",
    "[0064:ff9b:0:0:0:0:10.0.0.1]",
]
"""Hosts of URLs that are such an address written at length."""

URLS = [
    "http://8.8.8.8/",
    "http://127.0.0.1:443/",
    "ftp://8.8.8.8/",
    "file:///etc/passwd",
    "https:///wake",
    "https://8.8.8.8:22/",
    "https://8.8.8.8:6379/",
    "https://[2606:4700:4700::1111]:10009/",
    "https://8.8.8.8:0/",
    "https://8.8.8.8:65536/",
    "https://8.8.8.8@127.0.0.1/",
    "https://8.8.8.8:443@127.0.0.1/",
    "https://127.0.0.1#@8.8.8.8/",
    "https://127.0.0.1\\@8.8.8.8/",
    "https://8.8.8.8/\r\nhost: 127.0.0.1",
    "https://8.8.8.8 /",
]
"""URLs with a scheme, a port or a form that is not let through, whatever the host."""

NAMES = {f"host-{number}.stranger.test": (address,) for number, address in enumerate(ADDRESSES)} | {
    "two.stranger.test": ("127.0.0.1", "::1"),
    "many.stranger.test": ("10.0.0.1", "192.168.0.1", "169.254.169.254", "fd00:ec2::254", "::ffff:10.0.0.1"),
    "link.stranger.test": ("fe80::1%lo",),
    "odd.stranger.test": ("127.1",),
}
"""Names, and the addresses that they resolve to."""


class Zone(AbstractResolver):
    """Resolves the names that it was given, and IPv4 addresses in the spellings that the system reads.

    It asks nobody: no name goes out of the test. `names` may be changed between two lookups.
    """

    def __init__(self, names: dict[str, Sequence[str]]) -> None:
        self.names = names
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name. Raises OSError."""
        self.asked.append(host)
        # What the system's resolver makes of digits; raises OSError for what needs a name server.
        found = self.names.get(host) or (socket.inet_ntoa(socket.inet_aton(host)),)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in found
        ]

    async def close(self) -> None:
        """Nothing to release."""


@contextmanager
def nothing_connects() -> Iterator[list[object]]:
    """Let no socket of the running loop connect; gives the addresses that one would have connected to."""
    loop = asyncio.get_running_loop()
    attempts: list[object] = []

    async def sock_connect(_: socket.socket, address: object) -> None:
        attempts.append(address)
        raise ConnectionRefusedError("a test connects to nothing")

    kept = loop.sock_connect
    loop.sock_connect = sock_connect  # type: ignore[method-assign,assignment]
    try:
        yield attempts
    finally:
        loop.sock_connect = kept  # type: ignore[method-assign]


def hostile_urls() -> list[str]:
    """Every URL that `try_all` tries."""
    literals = [f"[{address}]" if ":" in address else address for address in ADDRESSES]
    return [*(f"https://{host}/wake" for host in [*literals, *SPELLINGS, *IN_FULL, *NAMES]), *URLS]


async def try_all(rules: DialRules | None = None) -> tuple[int, int]:
    """How many hostile URLs were tried, and how many were refused before anything was dialled."""
    pushes = Pushes(rules or DialRules(), PushLimits(), resolver=Zone(dict(NAMES)))
    refused = 0
    urls = hostile_urls()
    for url in urls:
        with nothing_connects() as attempts:
            try:
                await pushes.post(url, {}, b"{}")
            except NotNotified as error:
                refused += error.slug in NEVER_AGAIN and not attempts
    return len(urls), refused
