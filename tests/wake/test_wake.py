"""On real LNDs, with LDK's own wallet, payer, LSPS5 client and validator: the sleeping wallet is woken."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sidecar.core import webhooks
from tests.harness.beside import LNDS, sidecar_beside
from tests.harness.hostile_addresses import try_all
from tests.harness.ldk import LdkPeer
from tests.harness.ldk_lsps5 import LdkLsps5, LspsError
from tests.harness.lnd_process import LndProcess
from tests.harness.push_service import PushService
from tests.harness.sidecar_process import CommandFailed
from tests.harness.waking import check_signature, push_options
from tests.harness.woken import APP, HELD, REQUEST, woken
from tests.ldk.build import VERSIONS

pytestmark = pytest.mark.wake

WAKE = webhooks.ONION_MESSAGE_INCOMING

# LND notices a dead peer after 60 s and 30 s more, tripled on loopback; and then it is looked at.
UNTIL_LND_NOTICES = 330


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_sleeping_wallet_is_woken_and_finds_its_messages(
    lnd: LndProcess, tmp_path: Path, version: str
) -> None:
    """Registered by LSPS5, asleep, asked for and paid: the signed wake-up comes, and all that waited."""
    async with woken(lnd, tmp_path, version=version) as scene:
        await scene.sleep()
        await scene.pay()
        assert await scene.told() == WAKE
        since = scene.wallet.mark()
        await scene.connect()
        await scene.wallet.got(REQUEST, since=since)
        await scene.wallet.got(HELD, since=since)
        # LDK lets the payer's HTLC go: the payment may come.
        await scene.wallet.sent("release_held_htlc", since=since)


async def test_kill_9_between_mailbox_and_delivery_loses_no_message(lnd: LndProcess, tmp_path: Path) -> None:
    """What was kept is on disk: the server is killed before the wallet comes, and once more after that."""
    async with woken(lnd, tmp_path) as scene:
        await scene.sleep()
        await scene.pay()
        await scene.sidecar.kill()
        await scene.sidecar.start()
        for _ in range(2):
            since = scene.wallet.mark()
            await scene.connect()
            for what in (REQUEST, HELD):
                await scene.wallet.got(what, since=since)
            await scene.sidecar.kill()
            await scene.sleep()
            await scene.sidecar.start()
        assert await scene.mail() == 2


async def test_a_server_that_was_killed_before_it_could_wake_does_so_after(
    lnd: LndProcess, tmp_path: Path
) -> None:
    """The letter was kept and the wake-up lost with the process: fresh mail wakes at the start."""
    async with woken(lnd, tmp_path) as scene:
        await scene.sleep()
        await scene.pay()
        assert await scene.told() == WAKE
        await scene.sidecar.kill()
        await scene.sidecar.start()
        assert await scene.told() == WAKE


@pytest.mark.parametrize("version", VERSIONS)
async def test_lsps5_through_a_real_lnd(lnd: LndProcess, tmp_path: Path, version: str) -> None:
    """LDK's client and our LSP agree on every method, limit and error that LDK lets one send."""
    async with woken(lnd, tmp_path, ["--lsps5.max_webhooks=2"], version=version) as scene:
        wallet, lsp = scene.wallet, lnd.node_id
        assert await wallet.list_protocols(lsp) == [5]
        again = await wallet.set_webhook(lsp, APP, scene.push.url())
        assert (again.num_webhooks, again.max_webhooks, again.no_change) == (1, 2, True)
        second = await wallet.set_webhook(lsp, "x" * 64, scene.push.url("/second"))
        assert (second.num_webhooks, second.no_change) == (2, False)
        assert await scene.told() == webhooks.WEBHOOK_REGISTERED
        assert set((await wallet.list_webhooks(lsp)).app_names) == {APP, "x" * 64}
        with pytest.raises(LspsError, match="AppNameNotFound"):
            await wallet.remove_webhook(lsp, "not there")
        with pytest.raises(LspsError, match="UrlParse"):
            await wallet.set_webhook(lsp, "b", "https://127.0.0.1:0/")
        with pytest.raises(LspsError, match="UrlParse") as refused:
            await wallet.set_webhook(lsp, "b", "https://push.example.org/a b")
        # LDK 0.3 leaves it to the LSP to see that this is no URL.
        assert refused.value.sent == (version == "0.3")
        await wallet.remove_webhook(lsp, "x" * 64)
        assert (await wallet.list_webhooks(lsp)).app_names == (APP,)
        listed = await scene.sidecar.json("webhook", "list", "alice")
        assert [hook["app_name"] for hook in listed["webhooks"]] == [APP]
        assert "token" not in str(listed)


async def test_a_stranger_may_not_register(lnd: LndProcess, tmp_path: Path) -> None:
    """No channel and no client: LDK's wallet reads why, and nobody is notified."""
    async with woken(lnd, tmp_path) as scene, LdkLsps5("0.2", tmp_path / "stranger") as stranger:
        await stranger.connect(lnd.node_id, lnd.p2p_port)
        with pytest.raises(LspsError, match="NoPriorActivity"):
            await stranger.set_webhook(lnd.node_id, APP, scene.push.url())
        assert scene.push.count() == 0


async def test_an_operator_registers_for_a_wallet_that_can_not(lnd: LndProcess, tmp_path: Path) -> None:
    """ldk-node has no LSPS5 client: `sidecar webhook add` does the same, and the wallet is woken."""
    async with (
        PushService(tmp_path) as push,
        sidecar_beside(lnd, tmp_path, [*push_options(push), "--lsps5.timestamps=z"]) as sidecar,
        LdkPeer("0.3", tmp_path / "wallet") as wallet,
        LdkPeer("0.2", tmp_path / "payer") as payer,
    ):
        added = await sidecar.json("client", "add", "alice")
        with pytest.raises(CommandFailed, match="not known yet"):
            await sidecar.command("webhook", "add", "alice", APP, push.url())
        offer = await wallet.set_up(added["paths"], lnd.node_id, lnd.p2p_port)
        await sidecar.command("webhook", "add", "alice", APP, push.url())
        assert check_signature(lnd.node_id, await push.next()) == webhooks.WEBHOOK_REGISTERED
        (tested,) = (await sidecar.json("webhook", "test", "alice"))["deliveries"]
        assert tested["outcome"] == "ok"
        assert check_signature(lnd.node_id, await push.next()) == WAKE
        await wallet.disconnect(lnd.node_id)
        await payer.connect(lnd.node_id, lnd.p2p_port)
        await payer.pay(offer)
        notification = await push.next(30)
        assert check_signature(lnd.node_id, notification) == WAKE
        # bLIP 55's own form, which the operator chose.
        assert notification.headers["x-lsps5-timestamp"].endswith("Z")


async def test_a_client_may_have_a_form_of_its_own(lnd: LndProcess, tmp_path: Path) -> None:
    """LDK's validator refuses bLIP 55's own form, whoever signs it; each client can have its own."""
    async with woken(lnd, tmp_path) as scene:
        await scene.sidecar.command("client", "timestamps", "alice", "z")
        await scene.sidecar.command("webhook", "test", "alice")
        notification = await scene.push.next()
        assert check_signature(lnd.node_id, notification) == WAKE
        stamp, signature = (notification.headers[f"x-lsps5-{name}"] for name in ("timestamp", "signature"))
        assert stamp.endswith("Z")
        verdict = await scene.wallet.validate(lnd.node_id, stamp, signature, notification.body.decode())
        assert verdict.error == "InvalidSignature"
        await scene.sidecar.command("client", "timestamps", "alice", "default")
        await scene.sidecar.command("webhook", "test", "alice")
        assert await scene.told() == WAKE


@pytest.mark.timeout(UNTIL_LND_NOTICES + 120)
async def test_a_frozen_wallet_gets_every_message(tmp_path: Path, notes: list[str]) -> None:
    """SIGSTOP: LND sends into a dead socket until it notices. The wallet is woken, thawed, and has it all."""

    async def freeze(name: str) -> str:
        folder = tmp_path / name.replace(" ", "-")
        async with AsyncExitStack() as stack:
            lnd = await stack.enter_async_context(LndProcess(LNDS[name], folder / "lnd"))
            scene = await stack.enter_async_context(woken(lnd, folder))
            clock, since = asyncio.get_running_loop().time, scene.wallet.mark()
            scene.freeze()
            stack.callback(scene.thaw)
            frozen_at = clock()
            await scene.pay()
            assert await scene.told(60) == WAKE
            woken_after = clock() - frozen_at
            await scene.pay()
            await scene.until_lnd_drops_it(UNTIL_LND_NOTICES)
            noticed_after = clock() - frozen_at
            await scene.pay()
            scene.thaw()
            await scene.wallet.named("disconnected", since=since)
            await scene.connect()
            for what in (REQUEST, HELD):
                await scene.wallet.got(what, since=since, count=3)
            return f"{name}: woken after {woken_after:.0f} s, LND noticed after {noticed_after:.0f} s"

    notes += await asyncio.gather(*(freeze(name) for name in LNDS))


async def test_no_hostile_address_is_dialled(notes: list[str]) -> None:
    """Every URL of the list is refused before a connection is tried."""
    tried, refused = await try_all()
    notes.append(f"SSRF: {tried} addresses tried, {refused} refused")
    assert tried == refused > 60


async def test_a_hostile_webhook_is_refused_by_the_running_server(lnd: LndProcess, tmp_path: Path) -> None:
    """With the default settings nothing on this machine or its networks is told anything."""
    node = "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
    async with sidecar_beside(lnd, tmp_path) as sidecar:
        await sidecar.command("client", "add", "alice", "--node-id", node)
        for number, host in enumerate(
            ("127.0.0.1", "localhost", "[::1]", "169.254.169.254", "[::ffff:7f00:1]")
        ):
            await sidecar.command("webhook", "add", "alice", str(number), f"https://{host}/wake?token=secret")
        with pytest.raises(CommandFailed) as failed:
            await sidecar.command("webhook", "test", "alice", "--json")
        deliveries = json.loads(failed.value.args[2])["deliveries"]
        assert [each["outcome"] for each in deliveries] == ["address-refused"] * 5
        with pytest.raises(CommandFailed, match="https"):
            await sidecar.command("webhook", "add", "alice", "plain", "http://push.example/")
        with pytest.raises(CommandFailed, match="port"):
            await sidecar.command("webhook", "add", "alice", "redis", "https://push.example:6379/")
        assert not [line for line in sidecar.lines if "token" in line]
