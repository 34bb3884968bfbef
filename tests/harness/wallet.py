"""An often-offline wallet: asks for offer paths, makes an offer and a static invoice, leaves it."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.core import bolt12, keys, messages, offers, paths, static_invoices
from sidecar.core.lsps0 import LSPS_MESSAGE
from sidecar.core.messages import OfferPaths, OfferPathsRequest, ServeStaticInvoice, StaticInvoicePersisted
from sidecar.core.model import Family
from sidecar.core.paths import BlindedPath
from sidecar.core.wire import encode_tlvs, write_tu64
from tests.harness.link import Link
from tests.harness.node import Arrived, Node

NO_MORE: Mapping[int, bytes] = {}
CHAIN = bolt12.CHAINS["regtest"]

# fee_base, fee_proportional, cltv_expiry_delta, htlc_minimum, htlc_maximum, no features
BLINDEDPAY = (
    bytes(8) + (80).to_bytes(2, "big") + (1).to_bytes(8, "big") + (10**11).to_bytes(8, "big") + bytes(2)
)


@dataclass(frozen=True, slots=True)
class Issued:
    """What the server gave for one slot: offer paths, and the path over which to leave invoices."""

    slot: int
    message: OfferPaths
    update_path: BlindedPath


class LspsRefusal(Exception):
    """An LSPS error; its text is the code and the message."""


async def set_webhook(link: Link, app_name: str, url: str) -> dict[str, object]:
    """Register a webhook by LSPS5, over a peer's connection; the result. Raises LspsRefusal."""
    params = {"app_name": app_name, "webhook": url}
    request = {"jsonrpc": "2.0", "id": os.urandom(10).hex(), "method": "lsps5.set_webhook", "params": params}
    await link.send_custom(LSPS_MESSAGE, json.dumps(request).encode())
    type_, answer = await link.receive_custom()
    assert type_ == LSPS_MESSAGE
    members = json.loads(answer)
    assert members["id"] == request["id"]
    if "error" in members:
        raise LspsRefusal(f"{members['error']['code']}: {members['error']['message']}")
    result: dict[str, object] = members["result"]
    return result


class Wallet(Node):
    """The client of a static invoice server, in either family."""

    def __init__(
        self, secret: bytes, link: Link, lnd_node_id: bytes, request_path: BlindedPath, family: Family
    ) -> None:
        super().__init__(secret, link, lnd_node_id)
        self.request_path = request_path
        self.family = family
        self.issuer_secret = os.urandom(32)
        self.forward_path = self.path_to_self(b"forwarded invoice_request")
        self.through_lnd = True
        self.dummy_hops = 0

    def _reply_path(self, path_id: bytes) -> BlindedPath:
        return self.path_to_self(path_id, through_lnd=self.through_lnd, dummy_hops=self.dummy_hops)

    async def ask_offer_paths(self, slot: int) -> None:
        """Send offer_paths_request."""
        request = messages.encode(OfferPathsRequest(slot), self.family)
        await self.send_along(self.request_path, *request, self._reply_path(b"slot" + bytes([slot])))

    async def issue(self, slot: int = 0) -> Issued:
        """Ask for offer paths, and wait for them."""
        await self.ask_offer_paths(slot)
        return await self.receive_offer_paths()

    async def receive_offer_paths(self) -> Issued:
        """Wait for offer_paths."""
        arrived = await self.receive()
        message, family = self.decode(arrived)
        assert isinstance(message, OfferPaths)
        assert family is self.family
        assert arrived.path_id is not None
        assert arrived.path_id[:4] == b"slot"
        assert arrived.payload.reply_path is not None
        return Issued(arrived.path_id[4], message, arrived.payload.reply_path)

    @staticmethod
    def decode(arrived: Arrived) -> tuple[messages.Message, Family]:
        """One of bLIP 66's messages."""
        assert arrived.payload.content_type is not None
        return messages.decode(arrived.payload.content_type, arrived.payload.content)

    def make_offer(self, issued: Issued, extra: Mapping[int, bytes] = NO_MORE) -> dict[int, bytes]:
        """The records of an offer over the issued paths, as LDK's wallets make it."""
        expiry = issued.message.paths_absolute_expiry
        return {
            offers.OFFER_CHAINS: CHAIN,
            **({} if expiry is None else {offers.OFFER_ABSOLUTE_EXPIRY: write_tu64(expiry)}),
            offers.OFFER_PATHS: b"".join(paths.encode_path(path) for path in issued.message.paths),
            offers.OFFER_ISSUER_ID: keys.public_key(self.issuer_secret),
            **extra,
        }

    def make_invoice(
        self, offer: dict[int, bytes], created_at: int | None = None, relative_expiry: int | None = None
    ) -> bytes:
        """A signed static invoice for an offer; times in seconds."""
        path = paths.encode_path(self.path_to_self(b"payment"))
        records = {
            **offer,
            static_invoices.INVOICE_PATHS: path,
            static_invoices.INVOICE_BLINDEDPAY: BLINDEDPAY,
            static_invoices.INVOICE_CREATED_AT: write_tu64(
                int(time.time()) if created_at is None else created_at
            ),
            static_invoices.INVOICE_NODE_ID: keys.public_key(self.issuer_secret),
            static_invoices.STATIC_INVOICE_MESSAGE_PATHS: paths.encode_path(self.path_to_self(b"held htlc")),
        }
        if relative_expiry is not None:
            records[static_invoices.INVOICE_RELATIVE_EXPIRY] = write_tu64(relative_expiry)
        return encode_tlvs(bolt12.sign(records, "static_invoice", self.issuer_secret))

    async def leave_invoice(self, issued: Issued, invoice: bytes) -> None:
        """Send serve_static_invoice."""
        content = messages.encode(ServeStaticInvoice(invoice, self.forward_path), self.family)
        await self.send_along(
            issued.update_path, *content, self._reply_path(b"persisted" + bytes([issued.slot]))
        )

    async def receive_persisted(self) -> None:
        """Wait for static_invoice_persisted."""
        arrived = await self.receive()
        message, family = self.decode(arrived)
        assert message == StaticInvoicePersisted()
        assert family is self.family
        assert arrived.path_id is not None
        assert arrived.path_id.startswith(b"persisted")

    async def set_up(self, slot: int = 0) -> tuple[str, Issued, bytes]:
        """From nothing to an offer that is ready: its string, what was issued, the invoice."""
        issued = await self.issue(slot)
        offer = self.make_offer(issued)
        invoice = self.make_invoice(offer)
        await self.leave_invoice(issued, invoice)
        await self.receive_persisted()
        return self.offer_string(offer), issued, invoice

    @staticmethod
    def offer_string(offer: dict[int, bytes]) -> str:
        """What a payer scans."""
        return bolt12.encode_string("lno", encode_tlvs(offer))

    async def receive_invoice_request(self) -> Arrived:
        """Wait for a forwarded invoice_request, verified."""
        arrived = await self.receive()
        assert arrived.payload.content_type == messages.INVOICE_REQUEST
        assert arrived.path_id == b"forwarded invoice_request"
        offers.read_invoice_request(arrived.payload.content)
        return arrived
