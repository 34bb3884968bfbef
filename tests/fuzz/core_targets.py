"""The core's decoders: bytes of BOLT 1, 4 and 12, of bLIP 66, and of an export."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from sidecar.adapters.backup_check import ExportCheck
from sidecar.core import backup, bolt12, context, keys, messages, offers, onion, paths, static_invoices, wire
from sidecar.core.context import Kind, OfferContext, RequestContext
from sidecar.core.errors import BadContext, BadExport, InvoiceTooLarge, Malformed, WrongChain, WrongOffer
from sidecar.core.messages import OfferPaths, OfferPathsRequest, ServeStaticInvoice, StaticInvoicePersisted
from sidecar.core.model import Family, OfferTag
from sidecar.core.paths import BlindedHop, BlindedPath, SciddirIntroduction
from tests.core import making
from tests.fuzz.target import Pieces, Target, edited

POINTS = [making.node(number) for number in (making.ISSUER, making.PAYER, making.LND, making.OWN)]
TOKENS = [*POINTS, keys.NUMS_POINT, bytes(33), b"\x02" + b"\xff" * 32, making.REGTEST, b"", b"\xff" * 64]
KEY = bytes(range(32))
PATH = making.path_to(making.LND, making.OWN)
COMPACT = BlindedPath(SciddirIntroduction(1, 7), POINTS[0], (BlindedHop(POINTS[1], b"data"),))


# --- BOLT 1 ---------------------------------------------------------------------------------------


def read_wire(data: bytes) -> None:
    """A TLV stream, and its values as all kinds of integers; what is accepted is its only encoding."""
    if data:
        number, end = wire.read_bigsize(data, 0)
        assert wire.write_bigsize(number) == data[:end]
    records = wire.decode_tlvs(data)
    assert wire.encode_tlvs(records) == data
    wire.refuse_unknown_even(records, offers.OFFER_EVEN)
    for value in records.values():
        assert wire.write_tu64(wire.read_tu64(value)) == value


def wire_seeds() -> Iterator[bytes]:
    """Streams with types and lengths of each size."""
    yield b""
    yield wire.encode_tlvs({1: b"\x01", 3: b"", 253: b"\x01\x00", 65_537: bytes([9]) * 8, 2**40 + 1: b"\xff"})
    yield wire.encode_tlvs({2: making.REGTEST, 0xFFFF_FFFF_FFFF_FFFF: b"\x07" * 300})


# --- onion packets --------------------------------------------------------------------------------

_SMALL, _LARGE = onion.SMALL_PACKET, onion.LARGE_PACKET


def read_onion(data: bytes) -> None:
    """A packet as it came; one with right HMACs and any frame; or a whole one with any two payloads."""
    pieces = Pieces(data)
    how = pieces.number() % 4
    secrets = [making.secret(number) for number in (making.LND, making.OWN)]
    nodes = [keys.public_key(each) for each in secrets]
    if how == 0:
        packet = pieces.rest()
    elif how == 1:
        size = _LARGE if pieces.number() & 1 else _SMALL
        head = b"\0" + nodes[0] if pieces.number() & 1 else b""
        packet = (head + pieces.rest()).ljust(size, b"\0")[:size]
    elif how == 2:
        first = wire.write_bigsize(3) + b"abc"
        packet = onion._wrap(KEY, nodes, [first, pieces.rest()[:1_000]], onion.SMALL_HOP_DATA)
    else:
        payloads = [pieces.some(), pieces.rest()]
        packet = onion.build(KEY, list(zip(nodes, payloads, strict=True)))
        opened = _peeled(packet, secrets)
        assert [layer.payload for layer in opened] == payloads
        return
    _peeled(packet, secrets)


def _peeled(packet: bytes, secrets: list[bytes]) -> list[onion.Forward | onion.Final]:
    ephemeral = onion.check_packet(packet)
    first = onion.peel(packet, keys.ecdh(secrets[0], keys.check_point(ephemeral)))
    if isinstance(first, onion.Final):
        return [first]
    following = first.next_packet
    secret = keys.ecdh(secrets[1], onion.check_packet(following))
    last = onion.peel_last(first, secret)
    assert onion.peel(following, secret) == last
    return [first, last]


def onion_seeds() -> Iterator[bytes]:
    """Each way to make one."""
    yield b"\x00" + bytes(80)
    yield b"\x01\x00\x01" + bytes(40)
    yield b"\x02" + wire.write_bigsize(4) + b"\x04\x02hi"
    yield b"\x02\xfd\x05\x14"
    yield b"\x03\x00\x02ab" + b"payload" * 3
    yield b"\x03\x04\x00" + bytes(1_100)


# --- blinded paths --------------------------------------------------------------------------------


def read_paths(data: bytes) -> None:
    """Paths in each of their forms, and the recipient data of a hop, sealed as it must be."""
    pieces = Pieces(data)
    how = pieces.number() % 4
    if how == 0:
        encoded = pieces.rest()
        assert paths.encode_path(paths.decode_path(encoded)) == encoded
    elif how == 1:
        encoded = pieces.rest()
        assert paths.encode_path_list(paths.decode_path_list(encoded)) == encoded
    elif how == 2:
        secret = keys.ecdh(making.secret(making.LND), PATH.path_key)
        plain = pieces.rest()
        hop = paths.encrypt_hop(POINTS[2], secret, plain)
        path = BlindedPath(POINTS[2], PATH.path_key, (hop, *PATH.hops[1:]))
        following = paths.first_hop(path, secret)
        paths.advance(path, following, following.node_id or POINTS[0])
    else:
        paths.decrypt_recipient_data(KEY, pieces.rest())


def paths_seeds() -> Iterator[bytes]:
    """A path by a node and one by a channel, a list of both, and data of each kind of hop."""
    for path in (PATH, COMPACT):
        yield b"\0" + paths.encode_path(path)
    yield b"\x01" + paths.encode_path_list((PATH, COMPACT))
    yield b"\x02" + paths.next_hop_data(POINTS[0], override=POINTS[1])
    yield b"\x02" + wire.encode_tlvs({paths.SHORT_CHANNEL_ID: bytes(8), paths.ALLOWED_FEATURES: b"\0"})
    yield b"\x02" + paths.path_id_data(b"id")
    yield b"\x03" + PATH.hops[0].encrypted_recipient_data


# --- messages -------------------------------------------------------------------------------------

BLIP66 = (65540, 65542, 65544, 65546, 75540, 75542, 75544, 75546)


def read_messages(data: bytes) -> None:
    """A hop's payload, or one of bLIP 66's messages in either family."""
    pieces = Pieces(data)
    how = pieces.number() % 4
    if how == 0:
        payload = messages.read_final_payload(pieces.rest())
        if payload.content_type is not None and messages.is_blip66(payload.content_type):
            _read_blip66(payload.content_type, payload.content)
    elif how == 1:
        messages.read_forward_payload(pieces.rest())
    else:
        _read_blip66(pieces.choice(BLIP66), pieces.rest())


def _read_blip66(content_type: int, content: bytes) -> None:
    message, family = messages.decode(content_type, content)
    # Odd fields that are not known are dropped: what is written of it is read as the same again.
    assert messages.decode(*messages.encode(message, family)) == (message, family)


def messages_seeds() -> Iterator[bytes]:
    """Both payloads, and the four messages in both families."""
    yield b"\0" + messages.final_payload(b"sealed", 64, b"request", PATH)
    yield b"\0" + messages.final_payload(b"s", *messages.encode(OfferPathsRequest(3), Family.LDK), COMPACT)
    yield b"\x01" + messages.hop_payload(b"sealed")
    serve = ServeStaticInvoice(b"invoice", PATH)
    four = (OfferPathsRequest(1), OfferPaths((PATH, COMPACT), 9), serve, StaticInvoicePersisted())
    for message in four:
        for family in Family:
            number, content = messages.encode(message, family)
            yield bytes([2, BLIP66.index(number)]) + content


# --- BOLT 12 --------------------------------------------------------------------------------------


def read_offer(data: bytes) -> None:
    """An offer as text, as bytes, or a good one that was changed."""
    pieces = Pieces(data)
    how = pieces.number() % 3
    if how == 0:
        text = pieces.rest().decode("latin-1")
        prefix, decoded = bolt12.decode_string(text)
        assert bolt12.decode_string(bolt12.encode_string(prefix, decoded)) == (prefix, decoded)
        offers.decode_offer(text)
    elif how == 1:
        offers.read_offer(pieces.rest())
    else:
        records = edited(FULL_OFFER, pieces, TOKENS)
        offer = offers.decode_offer(bolt12.encode_string("lno", wire.encode_tlvs(records)))
        assert offer.records == records


FULL_OFFER = making.offer_records(
    {
        offers.OFFER_CURRENCY: b"EUR",
        offers.OFFER_AMOUNT: wire.write_tu64(1_000),
        offers.OFFER_DESCRIPTION: "Käse".encode(),
        offers.OFFER_FEATURES: b"\x02",
        offers.OFFER_ABSOLUTE_EXPIRY: wire.write_tu64(2_000_000_000),
        offers.OFFER_ISSUER: b"issuer",
        offers.OFFER_QUANTITY_MAX: wire.write_tu64(5),
        79: b"odd",
        1_000_000_001: b"later",
    }
)


def offer_seeds() -> Iterator[bytes]:
    """One as it is scanned, one in two lines, and its records."""
    encoded = wire.encode_tlvs(making.offer_records({offers.OFFER_DESCRIPTION: b"x"}))
    text = bolt12.encode_string("lno", encoded).encode()
    yield b"\0" + text
    yield b"\0" + text[:30].upper() + b"+\n " + text[30:].upper()
    yield b"\x01" + encoded
    yield b"\x02\x01\x02\x00\x03USD"


def read_invoice_request(data: bytes) -> None:
    """A request as it came, or a good one that was changed and then signed."""
    pieces = Pieces(data)
    if pieces.number() % 2:
        records = edited(FULL_REQUEST, pieces, TOKENS)
        signed = bolt12.sign(records, "invoice_request", making.secret(making.PAYER))
        request = offers.read_invoice_request(wire.encode_tlvs(signed))
    else:
        request = offers.read_invoice_request(pieces.rest())
    static_invoices.check_offer(request, making.offer_records(), making.CREATED_AT)


FULL_REQUEST = making.request_records(
    {
        offers.INVREQ_PAYER_NOTE: b"thanks",
        offers.INVREQ_FEATURES: b"\x02",
        offers.INVREQ_BIP_353_NAME: b"\x05alice\x0bexample.com",
    }
)


def request_seeds() -> Iterator[bytes]:
    """Good ones, and changes of each kind."""
    yield b"\0" + making.signed_request()
    yield b"\x01"
    yield b"\x01\x00\x05\x01\x04\x00\x02ab\x02\x02\x00\x05\x01z\x03\x03\x01"
    yield b"\x01\x04\x00" + (20).to_bytes(8, "big") + b"\x00\x01\x05" + b"\x04\x00" + (86).to_bytes(8, "big")


def read_static_invoice(data: bytes) -> None:
    """An invoice as it came, or a good one that was changed and then signed; and as one that is stored."""
    pieces = Pieces(data)
    if pieces.number() % 2:
        records = edited(making.invoice_records(), pieces, TOKENS)
        encoded = wire.encode_tlvs(bolt12.sign(records, "static_invoice", making.secret(making.ISSUER)))
    else:
        encoded = pieces.rest()
    invoice = static_invoices.read_static_invoice(encoded, making.REGTEST)
    assert static_invoices.stored_static_invoice(encoded) == invoice
    assert static_invoices.stored_offer(encoded) == invoice.offer.records


def invoice_seeds() -> Iterator[bytes]:
    """Good ones, and changes of each kind."""
    yield b"\0" + making.signed_invoice()
    yield b"\x01"
    yield b"\x01\x00\x01\x01\x05\x00\x04\x00\x00\x00\x07\x02\x03\x00\x10\x02xy"


# --- contexts -------------------------------------------------------------------------------------


def read_context(data: bytes) -> None:
    """A path_id as it came, or any fields under a MAC of ours."""
    pieces = Pieces(data)
    how = pieces.number() % 2
    body = pieces.rest()
    sealed = body + keys.hmac_sha256(KEY, body)[:16] if how else body
    assert context.seal(KEY, context.unseal(KEY, sealed)) == sealed


def context_seeds() -> Iterator[bytes]:
    """Each kind, sealed and not."""
    tag = OfferTag(1_800_000_000_000, b"nonce!")
    kinds = (Kind.SERVE_STATIC_INVOICE, Kind.INVOICE_REQUEST)
    offer = [OfferContext(kind, b"0123456789", 2, tag, 1_900_000_000) for kind in kinds]
    every: tuple[context.Context, ...] = (RequestContext(b"0123456789", 3), *offer)
    for each in every:
        sealed = context.seal(KEY, each)
        yield b"\0" + sealed
        yield b"\x01" + sealed[:-16]


# --- exports --------------------------------------------------------------------------------------


def read_export(data: bytes) -> None:
    """A file, line by line; each line as it came, or a record whose form is right."""
    reader, check = backup.ExportReader(), ExportCheck()
    lines = data.split(b"\n")
    ended = False
    for number, line in enumerate(lines):
        if line == b"END":
            reader.line(backup._end(reader.records, reader._hash.hexdigest()))
            ended = True
            continue
        if number == len(lines) - 1 and not line:
            break
        record = reader.line(line + b"\n")
        if record is not None:
            check.record(record)
    check.finish()
    if ended:
        reader.finish()


def export_seeds() -> Iterator[bytes]:
    """A client with all that it may have, and a wallet."""
    writer = backup.ExportWriter()
    first = writer.header(backup.Header(POINTS[2], "regtest", "0.1.0", 1_800_000_000))
    lines = [first, *(line for record in export_records() for line in writer.record(record))]
    yield b"".join(lines) + writer.end()
    yield b"".join(lines) + b"END"
    yield first + b"END\n"
    yield json.dumps({"format": backup.FORMAT, "version": 2}).encode() + b"\n"


def export_records() -> list[backup.Record]:
    """Of one client with a slot, a node and a letter, and of one wallet with a webhook."""
    client, wallet = b"c1" * 10, POINTS[0].hex().encode()
    own, hooks = f"{{{client.decode()}}}", f"{{{wallet.decode()}}}"
    fields = {b"name": b"alice", b"state": b"active", b"generation": b"1", b"created_at": b"1800000000"}
    fields |= {b"slots": b"3", b"requests_per_second": b"2.5", b"node_id": POINTS[1], b"mail": b"1"}
    fields |= {b"bound_by": b"learnt", b"timestamps": b"z"}
    letter = POINTS[0] + POINTS[1] + b"onion"
    entry = b"messages:" + POINTS[1].hex().encode() + b":5:1800000000000:1800000001000:6b"

    def of(mapping: dict[bytes, bytes]) -> tuple[bytes, ...]:
        return tuple(item for field in sorted(mapping) for item in (field, mapping[field]))

    return [
        backup.Record(own, "hash", of(fields)),
        backup.Record("names", "hash", (b"alice", client)),
        backup.Record("nodes", "hash", (POINTS[1].hex().encode(), client)),
        backup.Record(f"{own}:mail:index", "hash", (b"1", entry), 1_800_000_001_000),
        backup.Record(f"{own}:mail", "hash", (b"1", letter), 1_800_000_001_000),
        backup.Record("mail", "hash", (client, b"1:71:1800000000000:1")),
        backup.Record(f"{hooks}:webhooks", "hash", (b"app", b"1:0:0:0:1800000000:https://push.example.org/")),
        backup.Record("webhooks", "hash", (wallet, b"")),
        backup.Record(f"{hooks}:deliveries", "list", (b"1800000000000:1:ok:m:app",), 1_800_000_060_000),
    ]


def _targets() -> Iterable[Target]:
    yield Target("wire", "TLV streams and integers", read_wire, (Malformed,), wire_seeds)
    yield Target("onion", "onion packets", read_onion, (Malformed,), onion_seeds, longest=40_000)
    yield Target("paths", "blinded paths", read_paths, (Malformed,), paths_seeds)
    yield Target("messages", "payloads and bLIP 66's messages", read_messages, (Malformed,), messages_seeds)
    yield Target("offer", "offers", read_offer, (Malformed,), offer_seeds)
    may_raise: tuple[type[Exception], ...] = (Malformed, WrongOffer)
    yield Target("invoice_request", "invoice_requests", read_invoice_request, may_raise, request_seeds)
    may_raise = (Malformed, InvoiceTooLarge, WrongChain)
    yield Target("static_invoice", "static invoices", read_static_invoice, may_raise, invoice_seeds, 6_000)
    yield Target("context", "path contexts", read_context, (BadContext,), context_seeds)
    yield Target("export", "exports", read_export, (BadExport,), export_seeds)


TARGETS = tuple(_targets())
