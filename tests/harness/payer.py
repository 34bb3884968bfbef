"""A payer: asks for the invoice of an offer, and checks what it gets."""

import os
from collections.abc import Mapping

from sidecar.core import bolt12, keys, messages, offers, static_invoices
from sidecar.core.model import Family
from sidecar.core.offers import Offer
from sidecar.core.paths import BlindedPath
from sidecar.core.static_invoices import StaticInvoice
from sidecar.core.wire import decode_tlvs, encode_tlvs, write_tu64
from tests.harness.node import Node
from tests.harness.wallet import CHAIN, NO_MORE


class InvoiceErrorReceived(Exception):
    """The server answered with invoice_error; `args[0]` is its text."""


def make_invoice_request(
    offer: Offer, amount_msat: int = 1_000, extra: Mapping[int, bytes] = NO_MORE
) -> bytes:
    """A signed invoice_request for an offer, with a fresh payer id."""
    payer_secret = os.urandom(32)
    records = {
        offers.INVREQ_METADATA: os.urandom(32),
        **offer.records,
        offers.INVREQ_CHAIN: CHAIN,
        offers.INVREQ_AMOUNT: write_tu64(amount_msat),
        offers.INVREQ_PAYER_ID: keys.public_key(payer_secret),
        **extra,
    }
    return encode_tlvs(bolt12.sign(records, "invoice_request", payer_secret))


class Payer(Node):
    """Pays no one: it wants the invoice."""

    async def send_request(
        self, offer: Offer, request: bytes | None = None, reply_path: BlindedPath | None = None
    ) -> bytes:
        """Send an invoice_request over the offer's first path; its bytes."""
        request = request or make_invoice_request(offer)
        reply_path = reply_path or self.path_to_self(b"payer")
        await self.send_along(offer.paths[0], messages.INVOICE_REQUEST, request, reply_path)
        return request

    async def receive_answer(self, offer: Offer) -> StaticInvoice:
        """Wait for the static invoice, its signature and offer checked. Raises InvoiceErrorReceived."""
        arrived = await self.receive()
        assert arrived.path_id == b"payer"
        content_type, content = arrived.payload.content_type, arrived.payload.content
        if content_type == messages.INVOICE_ERROR:
            # It comes twice, as BOLT 12 writes it and as LDK does; no payer can read both.
            text = decode_tlvs(content)[messages.INVOICE_ERROR_TEXT].decode()
            again = (await self.receive()).payload
            assert again.content_type == messages.INVOICE_ERROR
            assert again.content == messages.invoice_error(text, Family.LDK)
            raise InvoiceErrorReceived(text)
        assert content_type == messages.STATIC_INVOICE
        invoice = static_invoices.read_static_invoice(content, CHAIN)
        assert invoice.offer.records == offer.records
        return invoice

    async def get_invoice(self, offer_string: str, reply_path: BlindedPath | None = None) -> StaticInvoice:
        """Ask for an offer's invoice and wait for it."""
        offer = offers.decode_offer(offer_string)
        await self.send_request(offer, reply_path=reply_path)
        return await self.receive_answer(offer)
