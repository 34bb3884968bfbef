"""Keys, paths, offers, requests and invoices for tests of the core: bytes alone, always the same ones."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from sidecar.core import bolt12, keys, offers, onion, paths, static_invoices
from sidecar.core.paths import BlindedPath
from sidecar.core.wire import encode_tlvs, write_tu64

REGTEST = bolt12.CHAINS["regtest"]
NO_CHANGES: Mapping[int, bytes | None] = {}

CREATED_AT = 1_800_000_000

# fee_base, fee_proportional, cltv_expiry_delta, htlc_minimum, htlc_maximum, length of features
BLINDEDPAY = bytes(8) + bytes([0, 80]) + bytes(7) + b"\x01" + bytes(7) + b"\xff" + bytes(2)


def secret(number: int) -> bytes:
    """The secret of the test node `number` (1 … 255)."""
    return bytes([number]) * 32


def node(number: int) -> bytes:
    """The node id of the test node `number`."""
    return keys.public_key(secret(number))


def path_to(*numbers: int, path_id: bytes = b"path id", session: int = 99) -> BlindedPath:
    """A blinded path along test nodes, the last one its end."""
    hops = [(node(here), paths.next_hop_data(node(after))) for here, after in itertools.pairwise(numbers)]
    return paths.build(secret(session), [*hops, (node(numbers[-1]), paths.path_id_data(path_id))])


def changed(records: Mapping[int, bytes], changes: Mapping[int, bytes | None]) -> dict[int, bytes]:
    """The records with some set anew, or taken out where the change is None."""
    merged = {**records, **changes}
    return {type_: value for type_, value in merged.items() if value is not None}


ISSUER, PAYER, LND, OWN = 11, 12, 13, 14


def offer_records(changes: Mapping[int, bytes | None] = NO_CHANGES) -> dict[int, bytes]:
    """An offer for regtest with one path and an issuer."""
    return changed(
        {
            offers.OFFER_CHAINS: REGTEST,
            offers.OFFER_PATHS: paths.encode_path(path_to(LND, OWN)),
            offers.OFFER_ISSUER_ID: node(ISSUER),
        },
        changes,
    )


def request_records(changes: Mapping[int, bytes | None] = NO_CHANGES) -> dict[int, bytes]:
    """An unsigned invoice_request for that offer."""
    return changed(
        {
            offers.INVREQ_METADATA: bytes(32),
            **offer_records(),
            offers.INVREQ_CHAIN: REGTEST,
            offers.INVREQ_AMOUNT: write_tu64(1_000),
            offers.INVREQ_PAYER_ID: node(PAYER),
        },
        changes,
    )


def signed_request(changes: Mapping[int, bytes | None] = NO_CHANGES, signer: int = PAYER) -> bytes:
    """An invoice_request, changed and then signed: its signature is right whatever else is wrong."""
    return encode_tlvs(bolt12.sign(request_records(changes), "invoice_request", secret(signer)))


def invoice_records(changes: Mapping[int, bytes | None] = NO_CHANGES) -> dict[int, bytes]:
    """An unsigned static invoice for that offer."""
    return changed(
        {
            **offer_records(),
            static_invoices.INVOICE_PATHS: paths.encode_path(path_to(LND, ISSUER, session=98)),
            static_invoices.INVOICE_BLINDEDPAY: BLINDEDPAY,
            static_invoices.INVOICE_CREATED_AT: write_tu64(CREATED_AT),
            static_invoices.INVOICE_NODE_ID: node(ISSUER),
            static_invoices.STATIC_INVOICE_MESSAGE_PATHS: paths.encode_path(path_to(LND, ISSUER, session=97)),
        },
        changes,
    )


def signed_invoice(changes: Mapping[int, bytes | None] = NO_CHANGES, signer: int = ISSUER) -> bytes:
    """A static invoice, changed and then signed."""
    return encode_tlvs(bolt12.sign(invoice_records(changes), "static_invoice", secret(signer)))


class LocalKey:
    """A NodeKey in process; `asked` are the points it was given."""

    def __init__(self, node_secret: bytes) -> None:
        self._secret = node_secret
        self.asked: list[bytes] = []

    async def ecdh(self, point: bytes) -> bytes:
        """As LND's signer answers."""
        self.asked.append(point)
        return keys.ecdh(self._secret, point)


class RecordedKey:
    """A NodeKey that can say only what LND's signer was recorded to answer; KeyError for the rest."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    async def ecdh(self, point: bytes) -> bytes:
        """The recorded answer."""
        self.asked.append(point.hex())
        return bytes.fromhex(self._answers[point.hex()])


def open_layer(
    node_secret: bytes, path_key: bytes, packet: bytes
) -> tuple[onion.Forward | onion.Final, bytes]:
    """One layer of a packet at the node of a blinded path, and the path's shared secret there."""
    shared = keys.ecdh(node_secret, path_key)
    blinded = paths.blind(onion.check_packet(packet), shared)
    return onion.peel(packet, keys.ecdh(node_secret, blinded)), shared
