"""What the contestants are asked: invoice_requests with fresh reply paths of every shape.

Each request and each reply path is asked once, as payers do: nothing that is remembered from one
question helps with the next, unless it is the server's own (its offer path, its stored invoice).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.core import keys, messages, paths, static_invoices
from sidecar.core.messages import ServeStaticInvoice
from sidecar.core.offers import Offer
from sidecar.core.paths import BlindedPath, SciddirIntroduction
from sidecar.core.wire import encode_tlvs
from tests.core.ldk_recordings import Conversation, LdkNode
from tests.harness.payer import make_invoice_request

CHANNEL, LND_END = 373_833_953_509_376, 1
"""The channel by which compact paths name LND, and which end of it is LND's."""

ALIAS = 17_592_186_044_416_000_001
"""What LND's hop of a compact path calls the payer's channel."""

AMOUNT_MSAT = 100_000
"""What is asked for: a byte less, and some of LDK's requests would fit into a small packet."""

_PADDING = 1
"""LDK pads the data of its hops to one and the same size with this TLV."""
_HOP_DATA = 100
"""Bytes of a hop's data so padded; 116 with its MAC."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What stands on the server's side: LND's key, and what a wallet has left."""

    lnd: LdkNode
    wallet: LdkNode
    invoice: bytes
    forward_path: BlindedPath

    @property
    def offer(self) -> Offer:
        """The invoice's offer."""
        return static_invoices.stored_static_invoice(self.invoice).offer


@dataclass(frozen=True, slots=True)
class Question:
    """An invoice_request, where the answer goes, and who can open that."""

    content: bytes
    reply_path: BlindedPath
    payer: LdkNode


def recorded(talk: Conversation) -> Stored:
    """The server and the wallet of a recorded conversation."""
    _, payload, _ = next(talk.of_type(75_544))
    message, _ = messages.decode(75_544, payload.content)
    assert isinstance(message, ServeStaticInvoice)
    server, wallet = talk.nodes["server"], talk.nodes["recipient"]
    return Stored(server, wallet, message.invoice, message.forward_invoice_request_path)


def recorded_questions(talk: Conversation) -> list[Question]:
    """The recorded requests of the payer, as they are."""
    payer = talk.nodes["payer"]
    asked = [payload for said, payload, _ in talk.of_type(64) if said.sender == "payer"]
    return [Question(payload.content, payload.reply_path, payer) for payload in asked if payload.reply_path]


# --- made here ------------------------------------------------------------------------------------


def _hop(node: LdkNode, type_: int, value: bytes) -> tuple[bytes, bytes]:
    """A hop whose data is one record, padded as LDK does."""
    missing = _HOP_DATA - len(encode_tlvs({type_: value})) - 2
    return node.node_id, encode_tlvs({_PADDING: bytes(missing), type_: value})


def _along(payer: LdkNode, first: list[tuple[bytes, bytes]], dummies: int) -> BlindedPath:
    dummy = _hop(payer, paths.NEXT_NODE_ID, payer.node_id)
    end = _hop(payer, paths.PATH_ID, os.urandom(32))
    return paths.build(os.urandom(32), [*first, *[dummy] * dummies, end])


def _private(lnd: LdkNode, payer: LdkNode, dummies: int) -> BlindedPath:
    return _along(payer, [_hop(lnd, paths.NEXT_NODE_ID, payer.node_id)], dummies)


def _compact(lnd: LdkNode, payer: LdkNode) -> BlindedPath:
    by_alias = _along(payer, [_hop(lnd, paths.SHORT_CHANNEL_ID, ALIAS.to_bytes(8, "big"))], 0)
    return BlindedPath(SciddirIntroduction(LND_END, CHANNEL), by_alias.path_key, by_alias.hops)


SHAPES: dict[str, Callable[[LdkNode, LdkNode], BlindedPath]] = {
    "private-2": lambda lnd, payer: _private(lnd, payer, 0),
    "private-4": lambda lnd, payer: _private(lnd, payer, 2),
    "announced-4": lambda _, payer: _along(payer, [], 3),
    "compact-2": _compact,
}
"""Reply paths by how they begin and how many hops they have, dummy hops (the payer once more) among them."""


def payer() -> LdkNode:
    """A payer; one is enough, for each question has a path of its own."""
    secret = keys.sha256(b"the payer of the benchmark")
    return LdkNode("payer", keys.public_key(secret), secret, bytes(32))


def made(stored: Stored, shape: str, count: int) -> list[Question]:
    """Fresh requests for a stored invoice's offer, each with a reply path of that shape."""
    who, offer = payer(), stored.offer
    return [
        Question(make_invoice_request(offer, AMOUNT_MSAT), SHAPES[shape](stored.lnd, who), who)
        for _ in range(count)
    ]


def now() -> int:
    """Seconds since the epoch: offers expire."""
    return int(time.time())
