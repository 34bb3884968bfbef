"""What must hold on every LND, real or simulated."""

from sidecar.core import offers
from sidecar.core.model import Family
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.stage import Stage


async def a_sleeping_wallet_is_served(stage: Stage, sidecar: SidecarProcess, family: Family) -> None:
    """All seven steps of bLIP 66's overview, with the wallet offline in the middle."""
    wallet = await stage.wallet(sidecar, "alice", family)
    offer, _, _ = await wallet.set_up()
    await wallet.link.close()
    payer = await stage.payer()
    invoice = await payer.get_invoice(offer)
    assert invoice.offer.records == offers.decode_offer(offer).records
    assert "kept.invoice_request" in await sidecar.counters()

    wallet.link = await stage.connect(wallet.secret)
    forwarded = await wallet.receive_invoice_request()
    assert forwarded.payload.reply_path is not None
