"""How large offers and requests are: an LDK payer puts the whole request into its payment onion."""

from pathlib import Path

import pytest

from tests.harness.ldk import LdkPeer
from tests.harness.lnd_process import Kind, LndProcess
from tests.harness.matrix import Matrix
from tests.harness.sidecar_process import SidecarProcess
from tests.ldk.build import VERSIONS

pytestmark = pytest.mark.ldk

MAX_OFFER = 300
"""Bytes: 483 characters, a QR code that phones still read with ease."""

MAX_REQUEST = 600
"""Bytes: past about 800 an LDK payer can't pay any more."""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["native", "custom"])
async def test_on_mainnets_chain_offers_and_requests_stay_small(
    kind: Kind, version: str, matrix: Matrix, tmp_path: Path
) -> None:
    """An offer over our paths is at most 300 bytes, the invoice_request for it at most 600."""
    async with (
        LndProcess(kind, tmp_path / "lnd", network="mainnet") as lnd,
        SidecarProcess(tmp_path / "sidecar", lnd) as sidecar,
        LdkPeer(version, tmp_path / "wallet", network="bitcoin") as wallet,
        LdkPeer(version, tmp_path / "payer", network="bitcoin") as payer,
    ):
        added = await sidecar.json("client", "add", "alice")
        await wallet.set_paths(added["paths"])
        await wallet.connect(lnd.node_id, lnd.p2p_port)
        offer = await wallet.offer()
        await payer.connect(lnd.node_id, lnd.p2p_port)
        await payer.pay(offer["offer"])
        request = await payer.sent("invoice_request")
        await payer.got("static_invoice")
    matrix.notes.append(
        f"sizes on mainnet, {kind}, LDK {version}: offer {offer['bytes']} bytes "
        f"({offer['chars']} characters), invoice_request {request['bytes']} bytes"
    )
    assert offer["bytes"] <= MAX_OFFER
    assert request["bytes"] <= MAX_REQUEST
