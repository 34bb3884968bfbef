"""The whole product, in a process of its own, beside a simulated LND of both kinds."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.core import offers, paths
from sidecar.core.model import Family
from sidecar.core.paths import BlindedPath, SciddirIntroduction
from tests.harness.asserting import met_with_silence, until
from tests.harness.node import Node
from tests.harness.payer import Payer
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.stage import Stage
from tests.harness.story import a_sleeping_wallet_is_served

SUBSCRIBE = "/lnrpc.Lightning/SubscribeOnionMessages"


@pytest.fixture(params=["native", pytest.param("custom", marks=pytest.mark.slow)])
async def lnd(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SimulatedLnd]:
    """A simulated LND of each kind."""
    async with SimulatedLnd(tmp_path / "lnd", request.param) as simulated:
        yield simulated


@pytest.fixture
async def sidecar(lnd: SimulatedLnd, tmp_path: Path) -> AsyncIterator[SidecarProcess]:
    """`sidecar serve` on it."""
    async with SidecarProcess(tmp_path / "sidecar", lnd) as process:
        yield process


def scid_path(node: Node, lnd: SimulatedLnd, scid: int, path_id: bytes) -> BlindedPath:
    """A path that names its introduction node and its next hop by one and the same channel, as LDK does."""
    next_by_scid = b"\x02\x08" + scid.to_bytes(8, "big")
    hops = [(lnd.node_id, next_by_scid), (node.node_id, paths.path_id_data(path_id))]
    path = paths.build(os.urandom(32), hops)
    direction = 0 if lnd.node_id < node.node_id else 1
    return BlindedPath(SciddirIntroduction(direction, scid), path.path_key, path.hops)


@pytest.mark.parametrize("family", list(Family))
async def test_a_sleeping_wallets_invoice_reaches_a_payer(
    lnd: SimulatedLnd, sidecar: SidecarProcess, family: Family
) -> None:
    """bLIP 66, "Overview", all seven steps, with an offline wallet in the middle."""
    await a_sleeping_wallet_is_served(Stage(lnd), sidecar, family)


async def test_paths_that_name_channels_are_resolved(lnd: SimulatedLnd, sidecar: SidecarProcess) -> None:
    """Compact paths: introduction node as sciddir, next hop as scid or alias (BOLT 4, "Route Blinding")."""
    stage = Stage(lnd)
    scid, alias = 700_000 << 40 | 5 << 16 | 1, 16_000_000 << 40 | 7
    wallet = await stage.wallet(sidecar, "alice")
    lnd.add_channel(scid, wallet.node_id, aliases=[alias])
    wallet.forward_path = scid_path(wallet, lnd, scid, b"forwarded invoice_request")
    offer, _, _ = await wallet.set_up(0)

    payer = await stage.payer()
    payers_scid = scid + (1 << 40)
    lnd.add_channel(payers_scid, payer.node_id)
    await payer.get_invoice(offer, scid_path(payer, lnd, payers_scid, b"payer"))
    await wallet.receive_invoice_request()

    # The alias alone: LDK writes it when LND gave it one.
    next_by_alias = b"\x02\x08" + alias.to_bytes(8, "big")
    hops = [(lnd.node_id, next_by_alias), (wallet.node_id, paths.path_id_data(b"forwarded invoice_request"))]
    wallet.forward_path = paths.build(os.urandom(32), hops)
    offer, _, _ = await wallet.set_up(1)
    await payer.get_invoice(offer)
    await wallet.receive_invoice_request()


async def test_the_sidecar_may_start_before_lnd(lnd: SimulatedLnd, tmp_path: Path) -> None:
    """LND away, then locked: one line for each change, and ready when it serves."""
    await lnd.stop()
    async with SidecarProcess.started(tmp_path / "sidecar", lnd) as sidecar:
        await sidecar.line(lambda line: "LND is not reachable" in line)
        await lnd.start(locked=True)
        await sidecar.line(lambda line: "LND is locked: unlock its wallet" in line)
        lnd.unlock()
        await sidecar.line(lambda line: " ready: " in line)
        for text in ("LND is not reachable", "LND is locked", "LND is back"):
            assert sum(text in line for line in sidecar.lines) == 1


async def test_sigterm_ends_it_cleanly(lnd: SimulatedLnd, tmp_path: Path) -> None:
    """Exit code 0, and the embedded Redis ends with it: what Kubernetes and systemd expect."""
    sidecar = SidecarProcess(tmp_path / "sidecar", lnd)
    await sidecar.start()
    redis = (sidecar.datadir / "redis" / "redis.pid").read_text()
    assert await sidecar.stop() == 0
    assert sidecar.lines[-1].endswith("stopped")
    assert not Path(f"/proc/{redis.strip()}").exists()


@pytest.mark.parametrize("lnd", ["custom"], indirect=True)
async def test_an_upgrade_of_lnd_under_the_running_sidecar_is_served_and_stopped_cleanly(
    lnd: SimulatedLnd, tmp_path: Path
) -> None:
    """From 0.20 to 0.21: the mode changes by itself, old offers are served, and SIGTERM still ends it."""
    sidecar = SidecarProcess(tmp_path / "sidecar", lnd)
    await sidecar.start()
    stage = Stage(lnd)
    offer, _, _ = await (await stage.wallet(sidecar, "alice")).set_up()
    await lnd.restart("native")
    await sidecar.line(lambda line: " ready: " in line and "native" in line)
    await (await stage.payer()).get_invoice(offer)
    async with asyncio.timeout(20):
        assert await sidecar.stop() == 0


@pytest.mark.parametrize("lnd", ["native"], indirect=True)
async def test_at_the_start_a_macaroon_that_lacks_the_stream_ends_it(
    lnd: SimulatedLnd, tmp_path: Path
) -> None:
    """It was baked for another kind of LND: nothing would ever come, and waiting would hide that."""
    lnd.denied = {SUBSCRIBE}
    async with SidecarProcess.started(tmp_path / "sidecar", lnd) as sidecar, asyncio.timeout(20):
        assert await sidecar.wait() == 1
        assert SUBSCRIBE in sidecar.lines[-1]


@pytest.mark.parametrize("lnd", ["custom"], indirect=True)
@pytest.mark.slow
async def test_after_an_upgrade_the_sidecar_waits_for_its_new_macaroon(
    lnd: SimulatedLnd, sidecar: SidecarProcess
) -> None:
    """A macaroon of LND 0.20's does not allow what 0.21 has: said once, and mended without a restart."""
    stage = Stage(lnd)
    offer, _, _ = await (await stage.wallet(sidecar, "alice")).set_up()
    lnd.denied = {SUBSCRIBE}
    await lnd.restart("native")
    line = await sidecar.line(lambda line: "waiting for another macaroon" in line)
    assert SUBSCRIBE in line
    async with asyncio.timeout(20):
        await lnd.until_called("SubscribeOnionMessages", lnd.called["SubscribeOnionMessages"] + 1)
    lnd.denied.clear()
    await sidecar.line(lambda line: " ready: " in line and "native" in line)
    await (await stage.payer()).get_invoice(offer)
    assert sum("waiting for another macaroon" in line for line in sidecar.lines) == 1


async def test_a_dead_stream_and_new_credentials_are_survived(
    lnd: SimulatedLnd, sidecar: SidecarProcess
) -> None:
    """The stream is opened again, tls.cert and macaroon are read again when LND's change."""
    stage = Stage(lnd)
    wallet = await stage.wallet(sidecar, "alice")
    offer, _, _ = await wallet.set_up()
    await wallet.link.close()

    async def served() -> bool:
        payer: Payer = await stage.payer()
        try:
            async with asyncio.timeout(1):
                await payer.get_invoice(offer)
        except TimeoutError:
            return False
        finally:
            await payer.link.close()
        return True

    lnd.cut_streams()
    await until(served)
    lnd.new_macaroon()
    await until(served)
    await lnd.stop()
    lnd.new_certificate()
    await lnd.start()
    await until(served, timeout=30)


async def test_a_second_sidecar_on_one_data_directory_is_refused(
    lnd: SimulatedLnd, sidecar: SidecarProcess
) -> None:
    """One data directory, one server: the second ends with one line, the first serves on."""
    second = SidecarProcess(sidecar.datadir, lnd)
    await second.start(wait=False)
    assert await second.wait() == 1
    assert "another sidecar" in second.lines[-1]
    await sidecar.command("client", "list")


async def test_a_removed_clients_wallet_is_met_with_silence_and_others_are_served(
    lnd: SimulatedLnd, sidecar: SidecarProcess
) -> None:
    """An unknown client's context: silence, counted; the receive loop goes on."""
    stage = Stage(lnd)
    gone, stays = await stage.wallet(sidecar, "gone"), await stage.wallet(sidecar, "stays")
    await sidecar.command("client", "remove", "gone")
    await gone.ask_offer_paths(0)
    await met_with_silence(gone)
    assert (await sidecar.counters())["dropped.unknown-client"] == 1
    await stays.set_up()


@pytest.mark.slow
async def test_quotas_of_client_add_are_kept(lnd: SimulatedLnd, sidecar: SidecarProcess) -> None:
    """`client add --ttl --slots --bytes`: a slot too many is silence; `client show` tells when one ends."""
    stage = Stage(lnd)
    wallet = await stage.wallet(sidecar, "alice", Family.BLIP66, "--ttl", "1h", "--slots", "1")
    await wallet.set_up(0)
    await wallet.ask_offer_paths(1)
    await met_with_silence(wallet)
    assert (await sidecar.counters())["dropped.slot-out-of-range"] == 1
    shown = await sidecar.json("client", "show", "alice")
    (slot,) = shown["slots"]
    assert slot["expires_at"] == slot["stored_at"] + 3600
    assert (shown["slots_used"], shown["quota"]["slots"]) == (1, 1)

    tight = await stage.wallet(sidecar, "bob", Family.LDK, "--bytes", "100")
    await tight.ask_offer_paths(0)
    issued = await tight.receive_offer_paths()
    await tight.leave_invoice(issued, tight.make_invoice(tight.make_offer(issued)))
    await met_with_silence(tight)
    assert (await sidecar.counters())["dropped.quota-exceeded"] == 1


async def test_rubbish_from_the_network_is_counted_and_never_answered(
    lnd: SimulatedLnd, sidecar: SidecarProcess
) -> None:
    """Wrong versions, HMACs and points in onions to our own paths end nothing and are not answered."""
    stage = Stage(lnd)
    wallet = await stage.wallet(sidecar, "alice")
    offer, _, _ = await wallet.set_up()
    payer = await stage.payer()
    path = offers.decode_offer(offer).paths[0]
    good = bytes.fromhex("02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5")
    for packet in (
        b"\x01" + good + bytes(1300 + 32),
        b"\x00" + good + bytes(1300 + 32),
        b"\x00" + b"\x02" + bytes(32) + bytes(1300 + 32),
    ):
        await payer.link.send_onion(path.path_key, packet)
    await payer.get_invoice(offer)
    counters = await sidecar.counters()
    # What a real LND 0.21 can't open it drops itself; on 0.20 it is ours to drop.
    dropped = sum(count for name, count in counters.items() if name.startswith("dropped."))
    assert dropped == (0 if lnd.mode == "native" else 3)
