"""The story of an invoice that is served: our own wallet and payer, on an LND that may be simulated."""

import asyncio
import os
import tempfile
import time
from pathlib import Path

from sidecar.core import offers, paths
from sidecar.core.model import Family
from sidecar.core.offers import Offer
from tests.demo.teller import Teller
from tests.harness.lnd_process import VERSIONS, Kind
from tests.harness.payer import Payer
from tests.harness.push_service import PushService
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.stage import Stage, real, simulated
from tests.harness.waking import check_signature, push_options
from tests.harness.wallet import Wallet, set_webhook

STORY_TIMEOUT = 60
"""Seconds after which the demo gives up."""


async def leave_invoice(tell: Teller, wallet: Wallet) -> str:
    """The wallet's part: from its request path to an offer that is ready. Returns the offer string."""
    tell.say("wallet", "connects to LND, and asks for offer paths: offer_paths_request, slot 0")
    await wallet.ask_offer_paths(0)
    issued = await wallet.receive_offer_paths()
    days = ((issued.message.paths_absolute_expiry or 0) - time.time()) / 86_400
    tell.say(
        "sidecar", f"gives {len(issued.message.paths)} offer path, good for {days:.0f} days: offer_paths"
    )
    offer = wallet.make_offer(issued)
    invoice = wallet.make_invoice(offer)
    await wallet.leave_invoice(issued, invoice)
    text = wallet.offer_string(offer)
    tell.say("wallet", f"leaves a static invoice of {len(invoice)} bytes: serve_static_invoice")
    await wallet.receive_persisted()
    tell.say("sidecar", "has it on disk, and says so: static_invoice_persisted")
    tell.say("wallet", f"shows its offer: {text[:24]}… ({len(text)} characters)")
    return text


async def ask_for_invoice(tell: Teller, payer: Payer, offer: Offer) -> None:
    """The payer's part: from the offer to the invoice in its hands."""
    await payer.send_request(offer)
    tell.say("payer", "asks for the invoice: invoice_request")
    invoice = await payer.receive_answer(offer)
    hours = (invoice.expires_at - time.time()) / 3600
    tell.say("payer", f"has the static invoice: signature right, offer the same, good for {hours:.0f} hours")


async def hear_of_it(tell: Teller, push: PushService, lnd_node_id: bytes) -> None:
    """The push service's part: a notification that LND signed."""
    method = check_signature(lnd_node_id, await push.next(STORY_TIMEOUT))
    tell.say("push", f"receives {method}, signed by LND: signature right")


async def story(tell: Teller, stage: Stage, sidecar: SidecarProcess, push: PushService) -> None:
    """All of it."""
    ready = await sidecar.line(lambda line: " ready: " in line)
    tell.say("sidecar", ready[ready.index("ready: ") :])
    added = await sidecar.json("client", "add", "alice")
    tell.say("operator", f"sidecar client add alice: client {added['client_id']}")
    request_path = paths.decode_path_list(bytes.fromhex(added["paths"]))[0]
    tell.say("operator", f"hands the wallet its request paths ({len(added['paths']) // 2} bytes)")

    secret = os.urandom(32)
    link = await stage.connect(secret)
    wallet = Wallet(secret, link, stage.lnd.node_id, request_path, Family.LDK)
    offer = offers.decode_offer(await leave_invoice(tell, wallet))
    tell.say("wallet", "registers its push service: lsps5.set_webhook")
    await set_webhook(wallet.link, "demo", push.url())
    await hear_of_it(tell, push, stage.lnd.node_id)
    await wallet.link.close()
    tell.say("wallet", "goes offline")

    payer = await stage.payer()
    tell.say("payer", "scans the offer, and connects to LND")
    await ask_for_invoice(tell, payer, offer)
    await hear_of_it(tell, push, stage.lnd.node_id)

    wallet.link = await stage.connect(secret)
    tell.say("wallet", "is woken, and connects")
    await wallet.receive_invoice_request()
    tell.say("wallet", "finds the invoice_request that waited for it, with the payer's reply path")
    await wallet.link.close()
    await payer.link.close()


async def run(kind: Kind | None) -> None:
    """Set the stage and tell the story; no kind is a simulated LND."""
    tell = Teller()
    with tempfile.TemporaryDirectory(prefix="sis-demo-") as folder:
        base = Path(folder)
        if kind is None:
            set_up, what = simulated(base / "lnd", "native"), "simulated: it drops what LND 0.21 drops"
        else:
            set_up, what = real(base / "lnd", kind), f"a real {VERSIONS[kind]} on regtest"
        async with set_up as stage, PushService(base) as push:
            tell.say("LND", f"is up ({what}), node {stage.lnd.node_id.hex()}")
            tell.say("push", "a push service listens, over HTTPS with a certificate of its own CA")
            options = push_options(push)
            async with SidecarProcess(base / "sidecar", stage.lnd, options=options) as sidecar:
                async with asyncio.timeout(STORY_TIMEOUT):
                    await story(tell, stage, sidecar, push)
                tell.say("done", "the wallet slept, its payer was served, and it was woken")
