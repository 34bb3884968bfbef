"""The guard against SSRF: what may be dialled for a URL that a stranger chose.

It judges the very address that is about to be dialled, and so cares neither how the address was written
nor what the name meant a moment ago.
"""

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from aiohttp import TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from sidecar.adapters.addresses import IPNetwork, is_public

ANSWER_ROOM = 16_384
"""Bytes of an answer that are looked at, headers and all. Its status is in the first twenty."""

MAX_ADDRESSES = 8
"""Addresses of one name that are tried."""

MAX_LOOKUPS, MAX_LOOKUPS_A_NAME = 256, 4
"""Names looked up at once: more than POSTs that may be under way, for a lookup outlives its caller. A
resolver may take half a minute to give up."""

AddrInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[str | int, ...]]


class AddressRefused(PermissionError):
    """An address or port that may not be dialled; an OSError, as a connector expects."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EACCES, text)


@dataclass(frozen=True, slots=True)
class DialRules:
    """What may be dialled: hosts on the Internet, and those in `networks`; at `ports` alone."""

    networks: tuple[IPNetwork, ...] = ()
    ports: frozenset[int] = frozenset({443})

    def check(self, host: str, port: int) -> None:
        """Raise AddressRefused for an address that may not be dialled, and for what is none."""
        try:
            # Reads the canonical form alone: nothing is left for the system to read in its own way.
            address = ipaddress.ip_address(host)
        except ValueError:
            raise AddressRefused("not an IP address in its canonical form") from None
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
            raise AddressRefused(f"{address}: an address of one link")
        allowed = any(address.version == net.version and address in net for net in self.networks)
        if not (allowed or is_public(address)):
            raise AddressRefused(f"{address}: not a public address")
        if port not in self.ports:
            raise AddressRefused(f"port {port} is not among those allowed")


@dataclass(slots=True)
class Guard:
    """Makes the sockets of one try, and remembers what it made and what it refused."""

    rules: DialRules
    refused: list[str] = field(default_factory=list)
    dialled: list[str] = field(default_factory=list)

    def socket(self, addr_info: AddrInfo) -> socket.socket:
        """A socket for an address, made only when it may be dialled. Raises AddressRefused."""
        family, kind, proto, _, address = addr_info
        host, port = str(address[0]), int(address[1])
        try:
            self.rules.check(host, port)
        except AddressRefused:
            self.refused.append(host)
            raise
        self.dialled.append(host)
        made = socket.socket(family, kind, proto)
        made.setblocking(False)
        return made


class Lookups(AbstractResolver):
    """The system's resolver, in threads of its own.

    asyncio's threads are few and shared by all: names whose servers don't answer would hold them. These
    are many, and do not keep the process from ending.
    """

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The first addresses of a name. Raises OSError."""
        if self._running[host] >= MAX_LOOKUPS_A_NAME or self._running.total() >= MAX_LOOKUPS:
            raise OSError(errno.EAGAIN, "too many names are being looked up")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[ResolveResult]] = loop.create_future()
        self._running[host] += 1

        def done(found: list[ResolveResult] | OSError) -> None:
            self._running[host] -= 1
            self._running += Counter()  # drops what is at 0
            if answer.done():
                return
            if isinstance(found, OSError):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def look() -> None:
            found: list[ResolveResult] | OSError
            try:
                found = _looked_up(host, port, family)
            except OSError as error:
                found = error
            except ValueError:
                found = OSError(errno.EINVAL, "not a host name")  # a label that is too long, and the like
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(done, found)

        threading.Thread(target=look, name="webhook-lookup", daemon=True).start()
        return await answer

    async def close(self) -> None:
        """Nothing to release: threads end with their lookup."""


def _looked_up(host: str, port: int, family: int) -> list[ResolveResult]:
    infos = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [
        ResolveResult(
            hostname=host,
            host=str(address[0]),
            port=port,
            family=kind,
            proto=proto,
            flags=socket.AI_NUMERICHOST,
        )
        for kind, _, proto, _, address in infos[:MAX_ADDRESSES]
    ]


class _CappedHandler(ResponseHandler):
    """Reads the beginning of an answer and hangs up.

    aiohttp bounds neither how much of a body comes in before it is looked at, nor how many `100 Continue`
    come before the answer: a stream of those keeps a whole core busy.
    """

    _room = ANSWER_ROOM

    def data_received(self, data: bytes) -> None:
        """Pass on what there is room for."""
        if self._room > 0:
            super().data_received(data[: self._room])
        self._room -= len(data)
        if self._room <= 0 and self.transport is not None:
            self.transport.abort()


def _capped_handler(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
    return _CappedHandler(loop)


class GuardedConnector(TCPConnector):
    """Connects for one try: nothing is kept of it, not even what a name meant."""

    def __init__(self, guard: Guard, context: ssl.SSLContext, resolver: AbstractResolver) -> None:
        super().__init__(
            ssl=context,
            resolver=resolver,
            use_dns_cache=False,
            force_close=True,
            socket_factory=guard.socket,
        )
        self._factory = partial(_capped_handler, self._loop)
