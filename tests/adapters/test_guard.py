"""The guard against SSRF, at the real connector: what is refused is refused before anything is dialled."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from pathlib import Path

import pytest

from sidecar.adapters.addresses import IPNetwork
from sidecar.adapters.guard import MAX_LOOKUPS, MAX_LOOKUPS_A_NAME, AddressRefused, DialRules, Guard, Lookups
from sidecar.adapters.pushes import ADDRESS_REFUSED, Pushes, PushLimits
from sidecar.core.errors import NotNotified
from tests.harness.hostile_addresses import (
    ADDRESSES,
    SPELLINGS,
    Zone,
    hostile_urls,
    nothing_connects,
    try_all,
)
from tests.harness.push_service import PushService

LOOPBACK: tuple[IPNetwork, ...] = (ipaddress.ip_network("127.0.0.0/8"),)
EVERYWHERE: tuple[IPNetwork, ...] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
LIMITS = PushLimits(connect=1, address=1, total=2)


async def test_every_hostile_url_is_refused_before_it_is_dialled() -> None:
    """As literals, as names that lead to them, in every spelling, at ports and schemes not allowed."""
    tried, refused = await try_all()
    assert tried == refused == len(hostile_urls())
    assert tried > 200


async def test_the_trial_of_hostile_urls_can_fail() -> None:
    """With all addresses allowed, those in canonical form, and names that lead to them, are dialled."""
    tried, refused = await try_all(DialRules(EVERYWHERE))
    assert tried - refused > 2 * len(ADDRESSES)


@pytest.mark.parametrize("host", SPELLINGS)
def test_an_address_in_any_other_spelling_is_no_address(host: str) -> None:
    """The guard leaves nothing for the system to read in its own way, even where all is allowed."""
    with pytest.raises(AddressRefused):
        DialRules(EVERYWHERE).check(host.strip("[]"), 443)


@pytest.mark.parametrize("address", ["fe80::1%lo", "fe80::1%1", "2606:4700:4700::1111%lo"])
def test_an_address_of_one_link_is_refused_even_where_its_network_is_allowed(address: str) -> None:
    """A scope names an interface of this machine: nothing that a URL may choose."""
    with pytest.raises(AddressRefused):
        DialRules(EVERYWHERE).check(address, 443)


@pytest.mark.parametrize(
    ("address", "port", "allowed"),
    [
        ("10.1.2.3", 443, True),
        ("10.1.2.3", 8443, True),
        ("10.1.2.3", 6379, False),
        ("10.2.0.1", 443, False),
        ("fd00:1::5", 443, True),
        ("fd00:2::5", 443, False),
        ("::ffff:10.1.2.3", 443, False),
        ("127.0.0.1", 443, False),
        ("8.8.8.8", 8443, True),
        ("8.8.8.8", 80, False),
    ],
)
def test_the_operator_may_allow_a_network_and_a_port(address: str, port: int, *, allowed: bool) -> None:
    """For a push service in the same cluster; no other private address, and no other port, comes with it."""
    networks = (ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00:1::/32"))
    guard = Guard(DialRules(networks, frozenset({443, 8443})))
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    info = (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
    if not allowed:
        with pytest.raises(AddressRefused):
            guard.socket(info)
        assert (guard.refused, guard.dialled) == ([address], [])
        return
    with guard.socket(info) as made:
        assert not made.getblocking()
        assert (guard.refused, guard.dialled) == ([], [address])


def test_no_socket_is_made_for_an_address_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """So there is none to close, and none that could be left open."""
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a socket was made"))
    info = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("10.0.0.1", 443))
    with pytest.raises(AddressRefused):
        Guard(DialRules()).socket(info)


async def test_of_several_addresses_those_allowed_are_dialled_and_no_other(tmp_path: Path) -> None:
    """A name's addresses are checked one by one: one bad one neither gets through nor spoils the rest."""
    async with PushService(tmp_path) as service:
        zone = Zone({"a.push.test": ("10.0.0.1", "::1", "169.254.169.254", "127.0.0.1", "192.168.0.1")})
        rules = DialRules(LOOPBACK, frozenset({service.port}))
        pushes = Pushes(rules, LIMITS, service.ca_file, zone)
        await pushes.post(service.url(host="a.push.test"), {}, b"{}")
        assert (await service.next()).headers["host"] == f"a.push.test:{service.port}"


async def test_a_name_that_is_rebound_between_two_tries_is_refused(tmp_path: Path) -> None:
    """Nothing is remembered of a name, nor a connection kept: each try asks and checks anew."""
    async with PushService(tmp_path) as service:
        zone = Zone({"a.push.test": ("127.0.0.1",)})
        pushes = Pushes(DialRules(LOOPBACK, frozenset({service.port})), LIMITS, service.ca_file, zone)
        await pushes.post(service.url(host="a.push.test"), {}, b"{}")
        zone.names["a.push.test"] = ("10.0.0.1",)
        with nothing_connects() as attempts, pytest.raises(NotNotified) as failure:
            await pushes.post(service.url(host="a.push.test"), {}, b"{}")
        assert (failure.value.slug, attempts) == (ADDRESS_REFUSED, [])
        assert zone.asked == ["a.push.test"] * 2
        assert service.connections == 1


async def test_the_port_is_checked_where_it_is_dialled(tmp_path: Path) -> None:
    """A URL that came in while another port was allowed leads nowhere now."""
    async with PushService(tmp_path) as service:
        pushes = Pushes(DialRules(LOOPBACK), LIMITS, service.ca_file)
        with pytest.raises(NotNotified) as failure:
            await pushes.post(service.url(), {}, b"{}")
        assert failure.value.slug == ADDRESS_REFUSED
        assert service.connections == 0


async def test_lookups_that_hang_hold_up_no_other_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name whose servers don't answer: a bounded number of threads waits, and others are looked up."""
    answer = threading.Event()

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host.startswith("dead"):
            answer.wait(10)
            raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"203.0.113.{n}", port)) for n in range(100)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    lookups = Lookups()
    waiting = [asyncio.create_task(lookups.resolve("dead.test")) for _ in range(MAX_LOOKUPS_A_NAME)]
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="too many names"):
        await lookups.resolve("dead.test")
    found = await lookups.resolve("alive.test", 443)
    assert [entry["host"] for entry in found] == [f"203.0.113.{n}" for n in range(8)]
    more = MAX_LOOKUPS - MAX_LOOKUPS_A_NAME
    waiting += [asyncio.create_task(lookups.resolve(f"dead-{number}.test")) for number in range(more)]
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="too many names"):
        await lookups.resolve("alive.test")
    waiting[0].cancel()  # whoever gave up is no trouble when the answer comes
    answer.set()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(ends[0], asyncio.CancelledError)
    assert all(isinstance(end, socket.gaierror) for end in ends[1:])
    assert len(await lookups.resolve("alive.test")) == 8


async def test_a_name_that_can_not_be_one_is_no_fault() -> None:
    """A label of 64 letters, which Python's own encoding refuses in its own way, asks nobody."""
    with pytest.raises(OSError, match="not a host name"):
        await Lookups().resolve("a" * 64 + ".test")


async def test_the_system_knows_this_host() -> None:
    """The real resolver, for the one name that needs no server."""
    found = await Lookups().resolve("localhost", 443)
    assert {entry["host"] for entry in found} <= {"127.0.0.1", "::1"}
    assert found[0]["port"] == 443
