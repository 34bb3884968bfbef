"""A town is built: real LNDs on a chain of their own, the product, LDK peers, and channels between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.harness.beside import URIS
from tests.harness.btcd import Btcd
from tests.harness.chain import Gossiping, Regtest, open_channel
from tests.harness.ldk import LdkPeer, Version
from tests.harness.ldk_lsps5 import LdkLsps5
from tests.harness.lnd_process import Kind, LndProcess
from tests.harness.push_service import PushService
from tests.harness.redis_process import RedisProcess
from tests.harness.relay import Relay
from tests.harness.sidecar_process import SidecarProcess
from tests.ldk.neighbourhood import announced
from tests.settle.ledger import PAIRS, Ledger
from tests.settle.pair import APP, Pair, all_of
from tests.settle.town import Town

SHOWN = 3
"""Offers of each wallet that payers know."""

FOR_PAYER = 500_000
"""Satoshi that a payer has on its side of its channel."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be built."""

    kind: Kind
    name: str
    """Of the LND, as in the table."""
    flags: Sequence[str] = ()
    """More of them for LND."""
    far: bool = False
    """Whether each pair has a payer behind a hub as well."""
    pairs: Sequence[tuple[Version, Version]] = PAIRS
    slots: int = 10
    """Invoice slots of each client, and so offers of each wallet: as many as LDK fills."""
    settled_in: bool = True
    """Whether the wallets are clients already, with offers and a webhook."""


@asynccontextmanager
async def town(plan: Plan, folder: Path, ledger: Ledger) -> AsyncIterator[Town]:
    """All of it, with channels open and known to all."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        chain = await enter(Btcd(folder / "btcd"))
        regtest = await Regtest.begin(chain)
        lnd = announced(LndProcess(plan.kind, folder / "lnd", chain=chain, extra=plan.flags))
        hub = announced(LndProcess("native", folder / "hub", chain=chain)) if plan.far else None
        lnds = [each for each in (lnd, hub) if each]
        for each in lnds:
            stack.push_async_callback(each.stop)
        await all_of(*(each.start() for each in lnds))
        redis = await enter(RedisProcess(folder / "redis"))
        ca = trustme.CA()
        pushes = [await enter(PushService(folder, ca=ca)) for _ in plan.pairs]
        macaroon = await lnd.bake(URIS[plan.kind])
        options = [*_options(redis, pushes), f"--client.slots={plan.slots}"]
        clock = folder / "sidecar-clock"
        sidecar = await enter(
            SidecarProcess(folder / "sidecar", lnd, macaroon=macaroon, options=options, clock=clock)
        )
        ledger.versions[plan.name] = (await sidecar.json("status"))["lnd_version"]
        made = Town(plan.name, regtest, lnd, macaroon, redis, sidecar, ledger)
        for versions, push in zip(plan.pairs, pushes, strict=True):
            place = folder / f"{len(made.pairs)}"
            made.pairs.append(await _pair(made, stack, place, versions, push))
            if hub:
                await _add_far_payer(made.pairs[-1], stack, place, hub)
        await _open_channels(made, hub)
        if plan.settled_in:
            await all_of(*(settle_in(pair, plan.slots) for pair in made.pairs))
        yield made


def _options(redis: RedisProcess, pushes: Sequence[PushService]) -> list[str]:
    """The settings of an operator with a Redis and push services of their own."""
    return [
        f"--redis.url={redis.url}",
        "--lsps5.private_networks=127.0.0.0/8",
        f"--lsps5.ports={','.join(str(push.port) for push in pushes)}",
        f"--lsps5.cafile={pushes[0].ca_file}",
    ]


async def _pair(
    made: Town, stack: AsyncExitStack, place: Path, versions: tuple[Version, Version], push: PushService
) -> Pair:
    """A wallet and a payer, each with a way of its own to LND."""
    tip = await made.regtest.tip()
    wallet = LdkLsps5(versions[0], place / "wallet", state=place / "wallet" / "state", tip=tip, dial=False)
    payer = LdkPeer(versions[1], place / "payer", state=place / "payer" / "state", tip=tip, dial=False)
    await all_of(*(stack.enter_async_context(peer) for peer in (wallet, payer)))
    for peer in (wallet, payer):
        made.ledger.versions[f"LDK {peer.version}"] = peer.release
    ways = [await stack.enter_async_context(Relay(made.lnd.p2p_port)) for _ in range(2)]
    pair = Pair(made, f"wallet-{len(made.pairs)}", wallet, payer, payer, push, ways[0], ways[1])
    await pair.come_back()
    return pair


async def _add_far_payer(pair: Pair, stack: AsyncExitStack, place: Path, hub: LndProcess) -> None:
    tip = await pair.town.regtest.tip()
    far = LdkPeer(pair.payer.version, place / "far", state=place / "far" / "state", tip=tip)
    pair.far_payer = await stack.enter_async_context(far)
    await far.connect(hub.node_id, hub.p2p_port)


async def _open_channels(made: Town, hub: LndProcess | None) -> None:
    """LND opens one to each peer, the hub one to LND and to each payer behind it."""
    lnd, pairs = made.lnd, made.pairs
    near = [peer for pair in pairs for peer in (pair.wallet, pair.payer)]
    far = [pair.far_payer for pair in pairs] if hub else []
    made.regtest.followers += [peer.block for peer in (*near, *far)]
    await made.regtest.fund({lnd: len(near)} | ({hub: 1 + len(far)} if hub else {}))
    funding = []
    for pair in pairs:
        funding.append(await open_channel(lnd, pair.wallet.node_id, private=True))
        funding.append(await open_channel(lnd, pair.payer.node_id, private=True, push=FOR_PAYER))
    if hub:
        funding.append(await open_channel(hub, lnd.node_id, f"127.0.0.1:{lnd.p2p_port}"))
        funding += [await open_channel(hub, payer.node_id, private=True, push=FOR_PAYER) for payer in far]
    await made.regtest.confirm(funding)
    made.regtest.followers.clear()
    await all_of(*(peer.payable(60) for peer in (*near, *far)))
    for peer in near:
        # LND forwards onion messages by what its graph knows, seconds behind the channel.
        await Gossiping(lnd).knows_channel((await peer.channels())[0]["scid"])
    await all_of(*(payer.knows(lnd.node_id, 60) for payer in far))


async def settle_in(pair: Pair, slots: int) -> None:
    """From the printed request paths to offers in all slots, some of them shown; and a push service."""
    town = pair.town
    added = await town.sidecar.json("client", "add", pair.client)
    await pair.wallet.set_paths(added["paths"])
    # Not by the number of answers: LDK serves an invoice again that is not persisted within its minute.
    while len({served["offer"] for served in pair.wallet.seen("sends", msg="serve_static_invoice")}) < slots:
        since = pair.wallet.mark()
        await pair.wallet.minute()
        await pair.wallet.got("static_invoice_persisted", since=since)
    for _ in range(SHOWN):
        pair.offers.append(await pair.wallet.next_offer())
    await pair.wallet.set_webhook(town.lnd.node_id, APP, pair.push.url())
    await pair.told()
