"""Waking by the whole product, in a process of its own: on a simulated LND, with a real push service."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.core import keys, webhooks
from tests.harness.asserting import until
from tests.harness.push_service import PushService
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.sim_node import SimLink
from tests.harness.stage import Stage
from tests.harness.waking import check_signature, push_options
from tests.harness.wallet import LspsRefusal, set_webhook

SCID = 700_000 << 40 | 5 << 16 | 1
WAKE = webhooks.ONION_MESSAGE_INCOMING


@pytest.fixture(params=["native", pytest.param("custom", marks=pytest.mark.slow)])
async def lnd(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SimulatedLnd]:
    """A simulated LND of each kind."""
    async with SimulatedLnd(tmp_path / "lnd", request.param) as simulated:
        yield simulated


@pytest.fixture
async def push(tmp_path: Path) -> AsyncIterator[PushService]:
    """A push service."""
    async with PushService(tmp_path) as service:
        yield service


@pytest.fixture
async def sidecar(lnd: SimulatedLnd, push: PushService, tmp_path: Path) -> AsyncIterator[SidecarProcess]:
    """`sidecar serve`, which may tell the push service."""
    async with SidecarProcess(tmp_path / "sidecar", lnd, options=push_options(push)) as process:
        yield process


async def peer(lnd: SimulatedLnd) -> tuple[SimLink, bytes]:
    """Somebody connects; the link and the node id."""
    secret = os.urandom(32)
    return await lnd.connect_peer(secret), keys.public_key(secret)


async def announced(sidecar: SidecarProcess) -> bool:
    """Whether alice's one webhook is known to be reached."""
    (webhook,) = (await sidecar.json("webhook", "list", "alice"))["webhooks"]
    return bool(webhook["announced"])


async def test_a_peer_with_a_channel_may_register_and_a_stranger_may_not(
    lnd: SimulatedLnd, sidecar: SidecarProcess, push: PushService
) -> None:
    """Who may register: peers with a channel, and nodes that are clients."""
    stranger, _ = await peer(lnd)
    with pytest.raises(LspsRefusal, match="1003"):
        await set_webhook(stranger, "app", push.url())
    channel_peer, node_id = await peer(lnd)
    lnd.add_channel(SCID, node_id)
    assert await set_webhook(channel_peer, "app", push.url()) == {
        "num_webhooks": 1,
        "max_webhooks": 10,
        "no_change": False,
    }
    assert check_signature(lnd.node_id, await push.next()) == webhooks.WEBHOOK_REGISTERED
    listed = await sidecar.json("webhook", "list", node_id.hex())
    assert [each["app_name"] for each in listed["webhooks"]] == ["app"]


@pytest.mark.slow
async def test_webhooks_and_mail_outlive_kill_9(
    lnd: SimulatedLnd, sidecar: SidecarProcess, push: PushService
) -> None:
    """Registered, killed, started: the wallet is woken as before, and finds what came."""
    stage = Stage(lnd)
    wallet = await stage.wallet(sidecar, "alice")
    offer, _, _ = await wallet.set_up()
    await set_webhook(wallet.link, "app", push.url())
    assert check_signature(lnd.node_id, await push.next()) == webhooks.WEBHOOK_REGISTERED
    await until(lambda: announced(sidecar))
    await wallet.link.close()
    await sidecar.kill()
    await sidecar.start()
    await (await stage.payer()).get_invoice(offer)
    assert check_signature(lnd.node_id, await push.next()) == WAKE
    await sidecar.kill()
    await sidecar.start()
    # Its mail is fresh, and nobody knows whether it was told.
    assert check_signature(lnd.node_id, await push.next()) == WAKE
    wallet.link = await stage.connect(wallet.secret)
    await wallet.receive_invoice_request()


async def test_a_rotated_and_a_revoked_client(
    lnd: SimulatedLnd, sidecar: SidecarProcess, push: PushService
) -> None:
    """With new request paths it is woken as before; once revoked, nothing is kept, and nobody is told."""
    stage = Stage(lnd)
    wallet = await stage.wallet(sidecar, "alice")
    await wallet.set_up()
    await set_webhook(wallet.link, "app", push.url())
    await push.next()
    await wallet.link.close()
    await sidecar.command("client", "rotate", "alice")
    payer = await stage.payer()
    await payer.send_along(wallet.path_to_self(b"held htlc"), 72, b"")
    assert check_signature(lnd.node_id, await push.next()) == WAKE
    await sidecar.command("client", "revoke", "alice")
    assert (await sidecar.json("client", "show", "alice"))["mailbox"] == {"messages": 0, "bytes": 0}
    before = (await sidecar.counters())["mail.kept"]
    wallet.link = await stage.connect(wallet.secret)
    await wallet.link.close()
    await payer.send_along(wallet.path_to_self(b"held htlc"), 72, b"")
    # A message behind it that is answered: the first was dealt with.
    with pytest.raises(LspsRefusal, match="1003"):
        await set_webhook(payer.link, "app", push.url())
    assert (await sidecar.counters())["mail.kept"] == before
    assert push.count() == 0
