"""Ports on loopback for servers that are started by number, and listen some seconds after they got it."""

from __future__ import annotations

import functools
import itertools
import socket
from collections.abc import Iterator

# Below what Linux gives out by itself (32,768 and up), to connections that go out and to servers that take
# any port: one of those may get a port there after it was found free, and before its server listens.
FIRST, BLOCK, BLOCKS = 12_000, 250, 40

BUS = 10_000
"""A Redis Cluster's bus listens so far above the server. Nothing else is given of the ports up there."""

_held: list[socket.socket] = []


@functools.cache
def _mine() -> Iterator[int]:
    """The ports of this process, again and again: those of other test runs are other ones."""
    for first in range(FIRST, FIRST + BLOCK * BLOCKS, BLOCK):
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0static-invoice-sidecar-tests-{first}")
        except OSError:
            held.close()
            continue
        # It stands for the block as long as it is open, which is until the process ends.
        _held.append(held)
        return itertools.cycle(range(first, first + BLOCK))
    raise AssertionError(f"more than {BLOCKS} processes run tests here")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port(*, bus: bool = False) -> int:
    """A port that nobody listens on; with `bus` the one 10,000 above is free too."""
    for port in itertools.islice(_mine(), BLOCK):
        if _is_free(port) and (not bus or _is_free(port + BUS)):
            return port
    raise AssertionError("none of this process's ports is free")


def free_ports(count: int, *, bus: bool = False) -> list[int]:
    """Several that differ."""
    return [free_port(bus=bus) for _ in range(count)]
