"""The story of a payment: LDK's own wallet and payer, with real channels to a real LND on regtest."""

from __future__ import annotations

import asyncio
import hashlib
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.demo.teller import Teller
from tests.harness.asserting import until
from tests.harness.events import Event
from tests.harness.ldk import Version
from tests.harness.lnd_process import Kind
from tests.harness.waking import check_signature
from tests.settle.build import Plan, town
from tests.settle.ledger import Ledger
from tests.settle.pair import APP, HELD, INVOICE, RELEASE, REQUEST, Pair
from tests.settle.town import Town

WALLET: Version = "0.2"
PAYER: Version = "0.3"
NAME = "LND"
CLIENT = "alice"
MSAT = 21_000_000
"""What is paid."""

STORY_TIMEOUT = 120
"""Seconds after which the demo gives up, once all that it is told of is up."""

PROOF = re.compile(r"payment_preimage: (?P<preimage>[0-9a-f]{64}), payment_hash: (?P<hash>[0-9a-f]{64})")
"""In LDK's PaymentSent."""


@dataclass(frozen=True, slots=True)
class Told:
    """Who tells it, and of whom."""

    tell: Teller
    town: Town
    pair: Pair

    # What is there

    async def introduce(self) -> None:
        """Chain, LND, channels and sidecar, as they say themselves that they are."""
        lnd = self.town.lnd
        self.tell.say("btcd", f"has mined {await self.town.regtest.chain.tip()} blocks of regtest")
        version = self.town.ledger.versions[NAME]
        self.tell.say("LND", f"is up (a real LND {version}, following btcd), node {lnd.node_id.hex()}")
        channels = (await lnd.lncli("listchannels", "--active_only"))["channels"]
        for who, peer in (("wallet", self.pair.wallet), ("payer", self.pair.payer)):
            (channel,) = (one for one in channels if one["remote_pubkey"] == peer.node_id.hex())
            whole, own = int(channel["capacity"]), int(channel["remote_balance"])
            self.tell.say(
                who, f"is LDK {peer.release}, with a channel to LND: {own:,} of {whole:,} sat are its own"
            )
        ready = await self.town.sidecar.line(lambda line: " ready: " in line)
        folder = str(self.town.sidecar.datadir.parent)
        self.tell.say("sidecar", ready[ready.index("ready: ") :].replace(folder, "…"))

    # The wallet becomes a client

    async def leave_invoice(self) -> None:
        """From the operator's command to an offer that is ready."""
        wallet, tell = self.pair.wallet, self.tell
        added = await self.town.sidecar.json("client", "add", CLIENT)
        tell.say("operator", f"sidecar client add {CLIENT}: client {added['client_id']}")
        await wallet.set_paths(added["paths"])
        tell.say("operator", f"hands the wallet its request paths ({len(added['paths']) // 2} bytes)")
        asked = await wallet.sent("offer_paths_request")
        tell.say("wallet", f"asks for offer paths: offer_paths_request, slot {asked['slot']}")
        issued = await wallet.got("offer_paths")
        days = ((issued["expiry"] or 0) - time.time()) / 86_400
        tell.say("sidecar", f"gives {len(issued['paths'])} offer path, good for {days:.0f} days: offer_paths")
        served = await wallet.sent("serve_static_invoice")
        size = served["invoice_bytes"]
        tell.say("wallet", f"leaves a static invoice of {size} bytes: serve_static_invoice")
        await wallet.got("static_invoice_persisted")
        tell.say("sidecar", "has it on disk, and says so: static_invoice_persisted")
        offer = await wallet.next_offer()
        self.pair.offers.append(offer)
        tell.say("wallet", f"shows its offer: {offer[:24]}… ({len(offer)} characters)")

    async def register(self) -> None:
        """The wallet's push service gets to know of it, and the wallet goes."""
        await self.pair.wallet.set_webhook(self.town.lnd.node_id, APP, self.pair.push.url())
        self.tell.say("wallet", "has registered its push service: lsps5.set_webhook")
        await self.hear_of_it("lsps5.webhook_registered")
        await self.pair.sleep()
        self.tell.say("wallet", "goes offline")

    async def hear_of_it(self, expected: str) -> None:
        """The push service gets a notification, which the wallet's own LDK has to believe."""
        notification = await self.pair.push.next(STORY_TIMEOUT)
        method = check_signature(self.town.lnd.node_id, notification)
        assert method == expected, f"{method} came, and not {expected}"
        verdict = await self.pair.wallet.verdict_of(self.town.lnd.node_id, notification)
        assert verdict.method == method, verdict
        self.tell.say("push", f"receives {method}, signed by LND: LDK's validator takes it")

    # The payment

    async def begin(self) -> Paying:
        """The payer pays the offer, and holds its HTLC back."""
        payer, tell = self.pair.payer, self.tell
        paying = Paying(payer.mark(), time.monotonic())
        payment = (await payer.pay(self.pair.offer, MSAT))["payment"]
        await payer.sent(REQUEST, since=paying.since)
        tell.say("payer", f"scans the offer, to pay {sat(MSAT)}, and asks for the invoice: invoice_request")
        invoice = await payer.got(INVOICE, since=paying.since, payment=payment)
        days = (invoice["expiry"] - time.time()) / 86_400
        tell.say("payer", f"has the static invoice, good for {days:.0f} days")
        await payer.sent(HELD, since=paying.since)
        tell.say("payer", "holds its HTLC back until the wallet is there, and says so: held_htlc_available")
        return paying

    async def wake(self) -> None:
        """The wallet connects because of the signed wake-up, and lets the payer go on."""
        wallet, tell = self.pair.wallet, self.tell
        await self.hear_of_it("lsps5.onion_message_incoming")
        since = wallet.mark()
        await self.pair.wake()
        tell.say("wallet", "is woken, and connects")
        for message in (REQUEST, HELD):
            await wallet.got(message, since=since)
        tell.say("wallet", "finds invoice_request and held_htlc_available, sent while it slept")
        await wallet.sent(RELEASE, since=since)
        tell.say("wallet", "is there to be paid, and says so: release_held_htlc")

    async def settle(self, paying: Paying) -> float:
        """The money; the seconds from `pay` to the payer's PaymentSent."""
        wallet, payer, tell = self.pair.wallet, self.pair.payer, self.tell
        await payer.got(RELEASE, since=paying.since)
        tell.say("payer", "hears it, and lets its HTLC go")
        await wallet.event("PaymentClaimable", msat=MSAT)
        tell.say("wallet", f"receives the HTLC through LND: {sat(MSAT)}")
        await wallet.event("PaymentClaimed", msat=MSAT)
        tell.say("wallet", f"has claimed {sat(MSAT)}: PaymentClaimed")
        sent = await payer.event("PaymentSent", since=paying.since)
        seconds = time.monotonic() - paying.began_at
        tell.say("payer", f"gets the preimage back, {preimage(sent)[:16]}…: PaymentSent")
        await until(lambda: self.town.forwarded_once(MSAT), STORY_TIMEOUT)
        (forward,) = (await self.town.lnd.lncli("fwdinghistory", "--start_time=-1d"))["forwarding_events"]
        out, fee = int(forward["amt_out_msat"]), int(forward["fee_msat"])
        tell.say("LND", f"has in its forwarding history: forwarded {sat(out)}, for a fee of {fee:,} msat")
        await self.town.nothing_is_stuck()
        return seconds


@dataclass(frozen=True, slots=True)
class Paying:
    """A payment that was begun."""

    since: int
    """Where the payer's events about it begin."""
    began_at: float
    """On the monotonic clock."""


def sat(msat: int) -> str:
    """An amount, for people."""
    return f"{msat / 1000:,.3f}".rstrip("0").rstrip(".") + " sat"


def preimage(sent: Event) -> str:
    """What opened the HTLC, in hex. Raises AssertionError for one that does not."""
    found = PROOF.search(sent["detail"])
    assert found, sent
    assert hashlib.sha256(bytes.fromhex(found["preimage"])).hexdigest() == found["hash"], sent
    return found["preimage"]


async def story(told: Told) -> float:
    """All of it; the seconds that the payment took."""
    await told.introduce()
    await told.leave_invoice()
    await told.register()
    paying = await told.begin()
    await told.wake()
    return await told.settle(paying)


async def run(kind: Kind) -> None:
    """Build a town with one wallet and one payer, and tell the story."""
    tell = Teller()
    tell.say("town", "is being built: btcd, LND, Redis, the sidecar, a wallet, a payer, and their channels")
    plan = Plan(kind, NAME, pairs=((WALLET, PAYER),), settled_in=False)
    with tempfile.TemporaryDirectory(prefix="sis-demo-") as folder:
        async with town(plan, Path(folder), Ledger()) as made:
            (pair,) = made.pairs
            async with asyncio.timeout(STORY_TIMEOUT):
                seconds = await story(Told(tell, made, pair))
            tell.say(
                "done", f"the wallet slept, and it was paid: {seconds:.2f} s after the payer began to pay"
            )
