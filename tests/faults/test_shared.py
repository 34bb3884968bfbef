"""One Redis for many: several LNDs with a sidecar each on it, and every script within one Cluster slot."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TypeVar

import pytest
from redis.asyncio import Redis

from sidecar.adapters.admin_client import AdminClient
from sidecar.adapters.redis_connect import connect
from sidecar.adapters.redis_link import Script
from sidecar.adapters.redis_store import RedisStore
from sidecar.core import keys, paths
from sidecar.core.errors import OperatorError
from sidecar.core.model import Family, Quota
from tests.faults.conftest import NewRow
from tests.faults.ledger import Row
from tests.faults.promises import SHARED
from tests.harness import debian_redis
from tests.harness.asserting import until
from tests.harness.backup_scene import backup_of, each, exported, furnish
from tests.harness.payer import InvoiceErrorReceived
from tests.harness.push_service import PushService
from tests.harness.redis_groups import Cluster
from tests.harness.redis_process import RedisProcess
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.stage import Stage
from tests.harness.store_contract import a_node
from tests.harness.waking import push_options
from tests.harness.wallet import Wallet

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

T = TypeVar("T")

HELD_HTLC_AVAILABLE = 72
SECRETS = (b"\x4c" * 32, b"\x4d" * 32, b"\x4e" * 32)
EMPTY = b"\x4f" * 32
"""Of the LND that nobody uses."""

ONE_SERVERS = frozenset({"finish_import", "scan_clients"})
"""Scripts whose keys are in many slots: in a Cluster others take their place, and they are never called."""


@pytest.fixture(scope="module")
def executable() -> Path:
    """Debian's redis-server."""
    return debian_redis.ensure()


async def ask(sidecar: SidecarProcess, what: Callable[[AdminClient], T]) -> T:
    """What a sidecar's admin API answers. Raises OperatorError."""

    def asked() -> T:
        with AdminClient(sidecar.datadir) as server:
            return what(server)

    return await asyncio.to_thread(asked)


# --- several LNDs ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Site:
    """An LND with its sidecar, and the wallet whose client is `alice` there: the same node at every LND."""

    lnd: SimulatedLnd
    sidecar: SidecarProcess
    wallet: Wallet
    offer: str = ""

    @property
    def prefix(self) -> bytes:
        """What its keys should begin with."""
        return prefix_of(self.lnd.secret)

    async def letters(self) -> int:
        """How many wait for its client."""
        return len((await ask(self.sidecar, lambda server: server.mail("alice"))).letters)

    async def clients(self) -> Mapping[str, str]:
        """The ids of its clients, by name."""
        return {each.name: each.client_id for each in (await ask(self.sidecar, AdminClient.clients)).clients}

    @property
    def signer(self) -> bytes:
        """Whose invoice a payer should get."""
        return keys.public_key(self.wallet.issuer_secret)

    async def payer_gets(self) -> bytes:
        """Who signed the invoice that a payer gets."""
        invoice = await (await Stage(self.lnd).payer()).get_invoice(self.offer)
        return invoice.offer.issuer_id or b""


@contextlib.asynccontextmanager
async def sites(folder: Path, url: str, push: PushService) -> AsyncIterator[Sequence[Site]]:
    """One for each of SECRETS, on one Redis."""
    wallet_secret = os.urandom(32)
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for number, secret in enumerate(SECRETS):
            here = folder / str(number)
            lnd = await stack.enter_async_context(SimulatedLnd(here / "lnd", secret=secret))
            options = (f"--redis.url={url}", *push_options(push))
            sidecar = await stack.enter_async_context(SidecarProcess(here / "sidecar", lnd, options=options))
            added = await ask(sidecar, lambda server: server.add("alice", Quota()))
            (path,) = paths.decode_path_list(added.paths)
            link = await lnd.connect_peer(wallet_secret)
            site = Site(lnd, sidecar, Wallet(wallet_secret, link, lnd.node_id, path, Family.LDK))
            site.offer, _, _ = await site.wallet.set_up()
            found.append(site)
        yield found


def prefix_of(secret: bytes) -> bytes:
    """What the keys of the LND with that node key should begin with."""
    return f"sis:{keys.public_key(secret).hex()[:16]}:".encode()


async def kept_of(redis: Redis, prefix: bytes) -> Mapping[bytes, bytes | None]:
    """What one LND's wallets left, and its operator: all keys but those by which it looks after its Redis."""
    found = {}
    async for key in redis.scan_iter(prefix + b"*", count=1_000):
        own = key.removeprefix(prefix)
        if own.startswith(b"{") or own in (b"names", b"nodes", b"mail", b"webhooks"):
            found[key] = await redis.dump(key)
    return found


async def furnish_first(site: Site, push: PushService) -> None:
    """Everything that the first one's client may have: a webhook, limits of its own, a letter."""
    await ask(site.sidecar, lambda server: server.add_webhook("alice", "app", push.url()))
    await push.next(timeout=20)
    await ask(site.sidecar, lambda server: server.update("alice", Quota(slots=3)))
    await ask(site.sidecar, lambda server: server.add("another", Quota()))
    await site.wallet.link.close()
    payer = await Stage(site.lnd).payer()
    await payer.send_along(site.wallet.path_to_self(b"held htlc"), HELD_HTLC_AVAILABLE, b"for the first")

    async def kept() -> bool:
        return await site.letters() == 2

    await until(kept)


async def test_several_lnds_on_one_redis_do_not_see_each_other(
    executable: Path, tmp_path: Path, promise: NewRow
) -> None:
    """The same client, by name and by node, at three LNDs: whatever is done at the first stays there."""
    row = promise(SHARED, "three LNDs, one Redis")
    # Not pytest's own directory: a socket's path may have a hundred bytes.
    async with (
        RedisProcess(tmp_path / "r", executable) as server,
        Redis(unix_socket_path=str(server.socket)) as redis,
        PushService(tmp_path) as push,
        sites(tmp_path, server.url, push) as (first, *others),
    ):
        everyone = [first, *others]
        for site in everyone:
            row.check(await site.payer_gets() == site.signer, "a payer gets another LND's invoice")
            await site.wallet.receive_invoice_request()
        before = [await kept_of(redis, site.prefix) for site in others]
        await furnish_first(first, push)
        for site in others:
            webhooks = await ask(site.sidecar, lambda server: server.webhooks("alice"))
            row.check(not webhooks.webhooks, "another's webhook")
            row.check(await site.letters() == 1, "another's mail")
            names = list(await site.clients())
            row.check(names == ["alice"], f"clients {names}")
        await nobody_else_takes(await exported_of(first, others, row), tmp_path, server.url, row)
        await ask(first.sidecar, lambda server: server.revoke("alice"))
        with pytest.raises(InvoiceErrorReceived):
            await first.payer_gets()
        await ask(first.sidecar, lambda server: server.remove("alice"))
        row.check(
            before == [await kept_of(redis, site.prefix) for site in others], "records of others changed"
        )
        for site in others:
            row.check(await site.payer_gets() == site.signer, "another LND's client is served no more")
        there = [key async for key in redis.scan_iter("*", count=1_000)]
        owners = [[site for site in everyone if key.startswith(site.prefix)] for key in there]
        for key, owned in zip(there, owners, strict=True):
            of_the_empty = key.startswith(prefix_of(EMPTY))
            row.check(len(owned) + of_the_empty == 1, f"the key {key!r} is of {len(owned)} LNDs")
        row.check(all(any(site in owned for owned in owners) for site in everyone), "an LND without a key")


async def exported_of(first: Site, others: Sequence[Site], row: Row) -> Sequence[bytes]:
    """The export of the first one's records, which has nobody else's."""
    parts = await ask(first.sidecar, lambda server: list(server.export()))
    for site in others:
        for client_id in (await site.clients()).values():
            row.check(client_id.encode() not in b"".join(parts), "another's client in an export")
    return parts


async def nobody_else_takes(export: Sequence[bytes], folder: Path, url: str, row: Row) -> None:
    """One more LND has an empty store there, whatever others keep; and refuses what is another's."""
    async with (
        SimulatedLnd(folder / "empty", secret=EMPTY) as lnd,
        SidecarProcess(folder / "sidecar", lnd, options=(f"--redis.url={url}",)) as sidecar,
    ):
        try:
            await ask(sidecar, lambda server: server.import_(export))
        except OperatorError as error:
            row.check("of LND node" in str(error), f"refused with {error}")
        else:
            row.violated("another LND's export was taken")
        row.check(not (await ask(sidecar, AdminClient.clients)).clients, "it has somebody's clients")


# --- scripts --------------------------------------------------------------------------------------


def every_script() -> Mapping[str, str]:
    """The hash of each .lua file, by its name."""
    folder = resources.files("sidecar.adapters").joinpath("lua")
    names = [entry.name.removesuffix(".lua") for entry in folder.iterdir() if entry.name.endswith(".lua")]
    return {name: Script(name).sha for name in sorted(names)}


async def test_every_script_is_called_on_a_cluster_and_stays_in_one_slot(
    executable: Path, tmp_path: Path, promise: NewRow
) -> None:
    """By the server and its stores: a script that nobody calls here has not shown that it is single-slot."""
    row = promise(SHARED, "every script on a Cluster of three masters")
    cluster = Cluster(executable)
    try:
        await asyncio.to_thread(cluster.start)
        await serve_on(cluster, tmp_path)
        await keep_on(cluster)
        called = set()
        for name, sha in every_script().items():
            if any(node.command("SCRIPT", "EXISTS", sha) == [True] for node in cluster.nodes):
                called.add(name)
            row.check((name in called) != (name in ONE_SERVERS), f"{name}.lua: called {name in called}")
        for node in cluster.nodes:
            row.check("errorstat_CROSSSLOT" not in node.client.info("errorstats"), "keys of several slots")
    finally:
        await asyncio.to_thread(cluster.end)


async def serve_on(cluster: Cluster, folder: Path) -> None:
    """What a client's life is, with a wallet, a payer and an operator."""
    async with (
        PushService(folder) as push,
        SimulatedLnd(folder / "lnd") as lnd,
        SidecarProcess(
            folder / "sidecar", lnd, options=(f"--redis.url={cluster.url}", *push_options(push))
        ) as sidecar,
    ):
        stage = Stage(lnd)
        wallet = await stage.wallet(sidecar, "alice")
        offer, _, _ = await wallet.set_up()
        await ask(sidecar, lambda server: server.add_webhook("alice", "app", push.url()))
        await push.next(timeout=20)
        await (await stage.payer()).get_invoice(offer)
        steps: Sequence[Callable[[AdminClient], object]] = (
            lambda server: server.update("alice", Quota(slots=3)),
            lambda server: server.set_timestamps("alice", "z"),
            lambda server: server.pause_webhook("alice", "app", paused=True),
            lambda server: server.rotate("alice"),
            lambda server: server.pause("alice"),
            lambda server: server.remove_webhook("alice", "app"),
            lambda server: server.revoke("alice"),
            lambda server: server.remove("alice"),
        )
        for step in steps:
            await ask(sidecar, step)


async def keep_on(cluster: Cluster) -> None:
    """What a server does after hours, and an import: by its stores."""
    node, wallet, other = a_node(), a_node(), a_node()
    store = RedisStore(connect(cluster.url), node, waitaof=False)
    try:
        await furnish(store)
        await store.webhooks.mark_unneeded(wallet, 1)
        records = await exported(backup_of(store, node))
        await backup_of(store, other).restore(each(records))
        assert await exported(backup_of(store, other)) == records
    finally:
        await store.close()
