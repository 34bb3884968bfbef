"""The whole of it on real LNDs: 0.21 (native onion messages) and 0.20 (custom message 513)."""

import asyncio
import os
from pathlib import Path

import pytest

from sidecar.core import offers, paths
from sidecar.core.model import Family
from tests.harness.asserting import met_with_silence, until
from tests.harness.beside import URIS
from tests.harness.lnd_process import Kind, LndProcess
from tests.harness.payer import InvoiceErrorReceived, Payer
from tests.harness.sidecar_process import CommandFailed, SidecarProcess
from tests.harness.stage import Stage
from tests.harness.story import a_sleeping_wallet_is_served
from tests.harness.wallet import Wallet

pytestmark = pytest.mark.real


@pytest.mark.parametrize("family", list(Family))
async def test_a_sleeping_wallets_invoice_reaches_a_payer(
    lnd: LndProcess, sidecar: SidecarProcess, family: Family
) -> None:
    """bLIP 66, "Overview", all seven steps; each family is answered in its own types and framing."""
    await a_sleeping_wallet_is_served(Stage(lnd), sidecar, family)


@pytest.mark.parametrize("dummy_hops", [0, 3])
async def test_reply_paths_that_start_at_the_sender_are_answered(
    lnd: LndProcess, sidecar: SidecarProcess, dummy_hops: int
) -> None:
    """BOLT 4, reply_path: its first node may be the sender itself, a direct peer of LND."""
    stage = Stage(lnd)
    wallet = await stage.wallet(sidecar, "alice")
    wallet.through_lnd, wallet.dummy_hops = False, dummy_hops
    offer, _, _ = await wallet.set_up()
    payer = await stage.payer()
    reply_path = payer.path_to_self(b"payer", through_lnd=False, dummy_hops=dummy_hops)
    await payer.get_invoice(offer, reply_path)


async def test_an_invoice_outlives_kill_9_and_none_is_served_once_revoked(
    lnd: LndProcess, sidecar: SidecarProcess
) -> None:
    """What was acknowledged is served after a crash; once revoked, payers get an error, it gets silence."""
    stage = Stage(lnd)
    wallet = await stage.wallet(sidecar, "alice")
    offer, issued, invoice = await wallet.set_up()
    payer = await stage.payer()
    await payer.get_invoice(offer)

    await sidecar.kill()
    await sidecar.start()
    await payer.get_invoice(offer)

    await sidecar.command("client", "revoke", "alice")
    with pytest.raises(InvoiceErrorReceived, match="not served any more"):
        await payer.get_invoice(offer)
    await drain(wallet)
    await wallet.leave_invoice(issued, invoice)
    await wallet.ask_offer_paths(1)
    await met_with_silence(wallet)
    assert (await sidecar.counters())["dropped.client-revoked"] == 2


async def drain(wallet: Wallet) -> None:
    """Take what was forwarded to the wallet out of the way."""
    while True:
        try:
            async with asyncio.timeout(0.5):
                await wallet.link.receive_onion()
        except TimeoutError:
            return


async def test_a_rotated_request_path_is_met_with_silence_while_offers_go_on(
    lnd: LndProcess, sidecar: SidecarProcess
) -> None:
    """`client rotate` silences the old request paths; the new ones work, and so do old offers."""
    stage = Stage(lnd)
    wallet = await stage.wallet(sidecar, "alice")
    offer, _, _ = await wallet.set_up()
    rotated = await sidecar.json("client", "rotate", "alice")
    await wallet.ask_offer_paths(1)
    await met_with_silence(wallet)
    assert (await sidecar.counters())["dropped.old-generation"] == 1

    wallet.request_path = paths.decode_path_list(bytes.fromhex(rotated["paths"]))[0]
    await wallet.set_up(1)
    await (await stage.payer()).get_invoice(offer)


async def test_an_lnd_that_restarts_is_served_again(lnd: LndProcess, sidecar: SidecarProcess) -> None:
    """The sidecar waits for LND, says so once, and goes on when it is back."""
    stage = Stage(lnd)
    wallet = await stage.wallet(sidecar, "alice")
    offer, _, _ = await wallet.set_up()
    await lnd.stop()
    await sidecar.line(lambda line: "LND is not reachable" in line)
    await lnd.start()
    await sidecar.line(lambda line: "LND is back" in line)

    async def stream_up() -> bool:
        return bool((await sidecar.json("status"))["stream_up"])

    await until(stream_up)
    await (await stage.payer()).get_invoice(offer)
    assert sum("LND is not reachable" in line for line in sidecar.lines) == 1


async def test_a_killed_redis_is_started_again_with_its_invoices(
    lnd: LndProcess, sidecar: SidecarProcess
) -> None:
    """The embedded Redis, killed with -9, comes back with all that was acknowledged."""
    stage = Stage(lnd)
    wallet = await stage.wallet(sidecar, "alice")
    offer, _, _ = await wallet.set_up()
    children = Path(f"/proc/{sidecar.pid}/task/{sidecar.pid}/children").read_text().split()
    redis = [int(pid) for pid in children if "redis" in Path(f"/proc/{pid}/comm").read_text()]
    assert len(redis) == 1
    os.kill(redis[0], 9)

    async def back() -> bool:
        try:
            await sidecar.command("client", "list")
        except CommandFailed:
            return False
        return True

    await until(back)
    await (await stage.payer()).get_invoice(offer)


async def test_an_offer_made_on_0_20_is_served_after_the_upgrade_to_0_21(tmp_path: Path) -> None:
    """LND's directory and the sidecar's, taken from 0.20 to 0.21: contexts and paths live on."""
    lnd = LndProcess("custom", tmp_path / "lnd")
    await lnd.start()
    stage = Stage(lnd)
    try:
        async with SidecarProcess(tmp_path / "sidecar", lnd) as sidecar:
            wallet = await stage.wallet(sidecar, "alice")
            offer, issued, _ = await wallet.set_up()
            await (await stage.payer()).get_invoice(offer)

            # Under the running sidecar: it finds out, and changes its mode.
            await lnd.restart("native")
            await sidecar.line(lambda line: " ready: " in line and "native" in line)
            await (await stage.payer()).get_invoice(offer)

        async with SidecarProcess(tmp_path / "sidecar", lnd) as sidecar:
            await (await stage.payer()).get_invoice(offer)
            wallet.link = await stage.connect(wallet.secret)
            # Its mailbox has come along: what it did not surely get on 0.20, and what came since.
            for _ in range(3):
                await wallet.receive_invoice_request()
            await wallet.leave_invoice(issued, wallet.make_invoice(wallet.make_offer(issued)))
            await wallet.receive_persisted()
    finally:
        await lnd.stop()


async def test_in_custom_mode_other_peoples_messages_are_forwarded(tmp_path: Path) -> None:
    """BOLT 4: "SHOULD forward the message using `onion_message` to the *next peer*": LND 0.20 does not."""
    async with LndProcess("custom", tmp_path / "lnd") as lnd, SidecarProcess(tmp_path / "sidecar", lnd):
        stage = Stage(lnd)
        one, other = await stage.payer(), await stage.payer()
        await one.send_along(other.path_to_self(b"hello"), 65, b"an odd type")
        arrived = await other.receive()
        assert (arrived.path_id, arrived.payload.content) == (b"hello", b"an odd type")


@pytest.mark.parametrize("lnd", ["LND 0.21"], indirect=True)
async def test_a_flooded_offer_leaves_the_others_alone(lnd: LndProcess, sidecar: SidecarProcess) -> None:
    """Each offer has its own limit: 30 requests at once for one are cut, another's is answered."""
    stage = Stage(lnd)
    wallet = await stage.wallet(sidecar, "alice")
    flooded, _, _ = await wallet.set_up(0)
    calm, _, _ = await wallet.set_up(1)
    await wallet.link.close()
    flooder, payer = await stage.payer(), await stage.payer()
    for _ in range(30):
        await flooder.send_request(offers.decode_offer(flooded))
    await payer.get_invoice(calm)

    async def limited() -> bool:
        return (await sidecar.counters()).get("dropped.rate-limited", 0) >= 10

    await until(limited)


async def start_fails(lnd: LndProcess, datadir: Path, macaroon: Path | None = None) -> str:
    """Start a sidecar that can't run; the one line that it ends with."""
    process = SidecarProcess(datadir, lnd, macaroon=macaroon)
    await process.start(wait=False)
    assert await process.wait() == 1
    complaints = [line for line in process.lines if line.startswith("sidecar: ")]
    assert len(complaints) == 1
    assert not any("Traceback" in line for line in process.lines)
    return complaints[0]


async def test_a_wrong_macaroon_is_one_clear_line(lnd: LndProcess, tmp_path: Path) -> None:
    """A macaroon that LND does not know, or that lacks a permission, ends the start with what to do."""
    wrong = tmp_path / "wrong.macaroon"
    wrong.write_bytes(lnd.macaroon_path.read_bytes()[:-1] + b"\x00")
    assert "--lnd.macaroonpath" in await start_fails(lnd, tmp_path / "a", wrong)
    lacking = await lnd.bake([uri for uri in URIS[lnd.kind] if "DeriveSharedKey" not in uri])
    line = await start_fails(lnd, tmp_path / "b", lacking)
    assert "DeriveSharedKey" in line
    assert "macaroon-permissions" in line


@pytest.mark.parametrize(
    ("kind", "flags", "named"),
    [
        ("native", ["--protocol.no-onion-messages"], ["protocol.no-onion-messages"]),
        (
            "custom",
            [],
            ["protocol.custom-message=513", "protocol.custom-init=39", "protocol.custom-nodeann=39"],
        ),
    ],
)
async def test_a_missing_feature_bit_39_names_the_lines_of_lnd_conf(
    kind: Kind, flags: list[str], named: list[str], tmp_path: Path
) -> None:
    """Without bit 39 nobody sends us onion messages: a start-up error that says what to set."""
    async with LndProcess(kind, tmp_path / "lnd", protocol=flags) as lnd:
        line = await start_fails(lnd, tmp_path / "sidecar")
    assert all(each in line for each in named)


async def test_names_that_are_taken_or_bad_are_one_clear_line(sidecar: SidecarProcess) -> None:
    """Commands fail with one line and a non-zero exit."""
    await sidecar.command("client", "add", "alice")
    for name, wanted in (("alice", "already"), ("no spaces", "is no name")):
        with pytest.raises(CommandFailed, match=wanted) as failure:
            await sidecar.command("client", "add", name)
        code, stderr, _ = failure.value.args
        assert code == 1
        assert stderr.count("\n") == 1


async def test_a_payer_of_a_replaced_offer_gets_an_error_and_never_the_newer_invoice(
    lnd: LndProcess, sidecar: SidecarProcess
) -> None:
    """A replaced offer's payer gets invoice_error, never the newer offer's invoice."""
    stage = Stage(lnd)
    wallet = await stage.wallet(sidecar, "alice")
    old, _, _ = await wallet.set_up(0)
    new, _, _ = await wallet.set_up(0)
    payer: Payer = await stage.payer()
    with pytest.raises(InvoiceErrorReceived, match="replaced"):
        await payer.get_invoice(old)
    await payer.get_invoice(new)
