"""What onion messages carry: BOLT 4's payloads, and bLIP 66's four messages in both families."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core import messages, paths
from sidecar.core.errors import BadMessage, BadPath, BadPoint, NoForwardPath
from sidecar.core.messages import (
    FinalPayload,
    Message,
    OfferPaths,
    OfferPathsRequest,
    ServeStaticInvoice,
    StaticInvoicePersisted,
)
from sidecar.core.model import Family
from sidecar.core.wire import decode_tlvs, encode_tlvs, write_bigsize
from tests.core.making import path_to

PATH, OTHER_PATH = path_to(1, 2), path_to(3, 4, session=98)
BYTES, OTHER_BYTES = paths.encode_path(PATH), paths.encode_path(OTHER_PATH)

# Message, its number in bLIP 66, its TLV records; LDK's number is 10,000 higher.
MESSAGES: list[tuple[Message, int, dict[int, bytes]]] = [
    (OfferPathsRequest(0), 65_540, {0: b"\x00\x00"}),
    (OfferPathsRequest(0x0102), 65_540, {0: b"\x01\x02"}),
    (OfferPaths((PATH,), None), 65_542, {0: BYTES}),
    (
        OfferPaths((PATH, OTHER_PATH), 0x0102030405060708),
        65_542,
        {0: BYTES + OTHER_BYTES, 2: bytes(range(1, 9))},
    ),
    (ServeStaticInvoice(b"an invoice", PATH), 65_544, {0: b"an invoice", 2: BYTES}),
    (ServeStaticInvoice(bytes(5_120), OTHER_PATH), 65_544, {0: bytes(5_120), 2: OTHER_BYTES}),
    (StaticInvoicePersisted(), 65_546, {}),
]


def framed(content_type: int, stream: bytes) -> bytes:
    """A stream as the family of a type frames it."""
    return write_bigsize(len(stream)) + stream if content_type >= 75_540 else stream


@pytest.mark.parametrize(("message", "number", "records"), MESSAGES)
def test_each_message_is_written_and_read_in_both_families(
    message: Message, number: int, records: dict[int, bytes]
) -> None:
    """In bLIP 66 65540 …, a bare TLV stream; in LDK 75540 …, with its length before it."""
    for family, type_ in ((Family.BLIP66, number), (Family.LDK, number + 10_000)):
        content = framed(type_, encode_tlvs(records))
        assert messages.encode(message, family) == (type_, content)
        assert messages.decode(type_, content) == (message, family)
        assert messages.is_blip66(type_)


@pytest.mark.parametrize(
    ("type_", "content", "message"),
    [
        (75_540, "0400020000", OfferPathsRequest(0)),
        (75_546, "00", StaticInvoicePersisted()),
        (65_540, "00020000", OfferPathsRequest(0)),
        (65_546, "", StaticInvoicePersisted()),
    ],
)
def test_a_message_is_the_very_bytes_that_ldk_sends(type_: int, content: str, message: Message) -> None:
    """LDK 0.2.7: `04 00 02 0000` asks for slot 0, and an empty message is the one byte 00."""
    data = bytes.fromhex(content)
    family = Family.LDK if type_ > 75_000 else Family.BLIP66
    assert messages.decode(type_, data) == (message, family)
    assert messages.encode(message, family) == (type_, data)


@pytest.mark.parametrize(("message", "number", "records"), MESSAGES)
def test_a_bare_stream_is_refused_in_ldks_family(
    message: Message, number: int, records: dict[int, bytes]
) -> None:
    """LDK drops a stream under 7554x that has no length before it, an empty one too; so do we."""
    with pytest.raises(BadMessage):
        messages.decode(number + 10_000, encode_tlvs(records))
    assert message


@pytest.mark.parametrize(("message", "number", "records"), MESSAGES)
def test_a_framed_stream_is_refused_in_blip_66s_family(
    message: Message, number: int, records: dict[int, bytes]
) -> None:
    """Under 6554x a length before the stream is no TLV stream of that message."""
    with pytest.raises((BadMessage, BadPath, BadPoint)):
        messages.decode(number, framed(75_540, encode_tlvs(records)))
    assert message


def test_ldks_length_is_the_streams_to_the_byte() -> None:
    """A record behind the end that the length gives is no part of the message, and spoils it."""
    stream, odd = encode_tlvs({0: bytes(2)}), encode_tlvs({5: b""})
    assert messages.decode(75_540, b"\x06" + stream + odd)[0] == OfferPathsRequest(0)
    for length in (0, 4, 5, 7, 255):
        with pytest.raises(BadMessage):
            messages.decode(75_540, write_bigsize(length) + stream + odd)


@pytest.mark.parametrize("behind", [b"\x00", b"\x04", b"\xfd", bytes(9)])
@pytest.mark.parametrize(("message", "number", "records"), MESSAGES)
def test_bytes_behind_a_message_are_refused(
    message: Message, number: int, records: dict[int, bytes], behind: bytes
) -> None:
    """A message ends with its last record (BOLT 1), and in LDK's family where its length says."""
    for type_ in (number, number + 10_000):
        with pytest.raises(BadMessage):
            messages.decode(type_, framed(type_, encode_tlvs(records)) + behind)
    assert message


@pytest.mark.parametrize(("message", "number", "records"), MESSAGES)
def test_a_message_cut_short_is_refused(message: Message, number: int, records: dict[int, bytes]) -> None:
    """Cut anywhere, no message is taken for another one that is whole."""
    for type_ in (number, number + 10_000):
        content = framed(type_, encode_tlvs(records))
        for end in range(0, len(content), 1 if len(content) < 1_000 else 41):
            try:
                read, _ = messages.decode(type_, content[:end])
            except BadMessage:
                continue
            # An OfferPaths that ends before its optional expiry is whole.
            assert type_ == 65_542
            assert read == OfferPaths((PATH, OTHER_PATH), None)
            assert isinstance(message, OfferPaths)
            assert message.paths_absolute_expiry is not None


@pytest.mark.parametrize("extra", [4, 6, 65_540])
@pytest.mark.parametrize(("message", "number", "records"), MESSAGES)
def test_an_unknown_even_field_is_refused_and_an_odd_one_is_not(
    message: Message, number: int, records: dict[int, bytes], extra: int
) -> None:
    """BOLT 1: it's OK to be odd, in all four messages of both families."""
    for type_, family in ((number, Family.BLIP66), (number + 10_000, Family.LDK)):
        with pytest.raises(BadMessage, match="unknown even"):
            messages.decode(type_, framed(type_, encode_tlvs({**records, extra: b""})))
        odd = framed(type_, encode_tlvs({**records, extra + 1: b"?"}))
        assert messages.decode(type_, odd) == (message, family)


@pytest.mark.parametrize(
    ("number", "records", "error"),
    [
        (65_540, {}, BadMessage),
        (65_542, {}, BadMessage),
        (65_542, {2: bytes(8)}, BadMessage),
        (65_544, {}, BadMessage),
        (65_544, {2: BYTES}, BadMessage),
        (65_544, {0: b"an invoice"}, NoForwardPath),
        (65_546, {0: b""}, BadMessage),
        (65_546, {2: b""}, BadMessage),
        (65_540, {0: b""}, BadMessage),
        (65_540, {0: b"\x00"}, BadMessage),
        (65_540, {0: b"\x00\x00\x00"}, BadMessage),
        (65_542, {0: BYTES, 2: b""}, BadMessage),
        (65_542, {0: BYTES, 2: bytes(7)}, BadMessage),
        (65_542, {0: BYTES, 2: bytes(9)}, BadMessage),
        (65_542, {0: b""}, BadPath),
        (65_542, {0: BYTES + OTHER_BYTES[:-1]}, BadPath),
        (65_544, {0: b"an invoice", 2: b""}, BadPath),
        (65_544, {0: b"an invoice", 2: BYTES + OTHER_BYTES}, BadPath),
        (65_544, {0: b"an invoice", 2: b"\x05" * 33 + BYTES[33:]}, BadPoint),
    ],
)
def test_a_message_with_a_field_missing_or_of_a_wrong_size_is_refused(
    number: int, records: dict[int, bytes], error: type[Exception]
) -> None:
    """By bLIP 66 slot_number is a u16, the expiry a u64, invoice and forward path both "MUST" be there."""
    for type_ in (number, number + 10_000):
        with pytest.raises(error) as caught:
            messages.decode(type_, framed(type_, encode_tlvs(records)))
        assert caught.type is error


@given(st.sampled_from([65_540, 65_542, 65_544, 65_546]), st.booleans(), st.binary(max_size=60), st.binary())
@settings(deadline=None)
def test_a_message_that_is_accepted_has_one_encoding(
    number: int, ldk: bool, stream: bytes, first: bytes
) -> None:
    """Any bytes are one message to the byte (unknown odd fields aside), or a declared error."""
    type_ = number + 10_000 if ldk else number
    for content in (framed(type_, stream), framed(type_, encode_tlvs({0: first})), stream):
        try:
            message, family = messages.decode(type_, content)
        except (BadMessage, BadPath, BadPoint):
            continue
        inner = content if family is Family.BLIP66 else content[len(write_bigsize(len(content) - 1)) :]
        if set(decode_tlvs(inner)) <= {0, 2}:
            assert messages.encode(message, family) == (type_, content)


def test_other_content_types_are_not_blip_66s() -> None:
    """Eight numbers and no more: their neighbours are somebody else's."""
    served = {number for number in range(65_500, 75_600) if messages.is_blip66(number)}
    assert served == {65_540, 65_542, 65_544, 65_546, 75_540, 75_542, 75_544, 75_546}
    with pytest.raises(KeyError):
        messages.decode(64, b"")


# --- BOLT 4's payloads ----------------------------------------------------------------------------


@pytest.mark.parametrize("reply_path", [None, PATH])
def test_a_final_payload_is_read_as_it_was_written(reply_path: paths.BlindedPath | None) -> None:
    """BOLT 4's onionmsg_tlv: reply_path 2, encrypted_recipient_data 4, and the content by its type."""
    payload = messages.final_payload(b"sealed", 64, b"request", reply_path)
    assert messages.read_final_payload(payload) == FinalPayload(b"sealed", 64, b"request", reply_path)
    expected = {4: b"sealed", 64: b"request"} | ({} if reply_path is None else {2: BYTES})
    assert payload == encode_tlvs(expected)


def test_a_payload_without_content_is_a_message_that_says_nothing() -> None:
    """An empty message has no content type, and unknown odd types below 64 are none (BOLT 4)."""
    payload = encode_tlvs({1: b"hello", 4: b"sealed", 63: b"?"})
    assert messages.read_final_payload(payload) == FinalPayload(b"sealed", None, b"", None)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (encode_tlvs({4: b"sealed", 64: b"", 66: b""}), "two contents"),
        (encode_tlvs({4: b"sealed", 64: b"", 75_540: b""}), "two contents, one of them bLIP 66's"),
        (encode_tlvs({4: b"sealed", 65_540: b"", 75_540: b""}), "both families at once"),
        (encode_tlvs({64: b""}), "no encrypted_recipient_data"),
        (b"", "nothing"),
        (encode_tlvs({4: b"sealed", 6: b"", 64: b""}), "an unknown even type"),
        (encode_tlvs({4: b"sealed", 62: b"", 64: b""}), "the last unknown even type below the contents"),
        (encode_tlvs({4: b"sealed", 64: b""})[:-1], "cut short"),
        (encode_tlvs({64: b""}) + encode_tlvs({4: b"sealed"}), "out of order"),
        (encode_tlvs({4: b"sealed"}) * 2, "a type twice"),
    ],
)
def test_a_final_payload_that_breaks_a_rule_is_refused(payload: bytes, why: str) -> None:
    """BOLT 4: "if the onionmsg_tlv contains more than one payload field: MUST ignore the message"."""
    with pytest.raises(BadMessage):
        messages.read_final_payload(payload)
    assert why


def test_a_bad_reply_path_spoils_the_message() -> None:
    """A reply_path that can't be read is BadPath or BadPoint: no answer could go over it."""
    for wrong in (b"", BYTES[:-1], BYTES + b"\x00", BYTES + OTHER_BYTES):
        with pytest.raises(BadPath):
            messages.read_final_payload(encode_tlvs({2: wrong, 4: b"sealed", 64: b""}))
    with pytest.raises(BadPoint):
        messages.read_final_payload(encode_tlvs({2: b"\x05" * 33 + BYTES[33:], 4: b"sealed", 64: b""}))


def test_an_intermediate_payload_is_encrypted_recipient_data_alone() -> None:
    """BOLT 4: "if the onionmsg_tlv contains other tlv fields than encrypted_recipient_data: MUST ignore"."""
    assert messages.hop_payload(b"sealed") == b"\x04\x06sealed"
    assert messages.read_forward_payload(b"\x04\x06sealed") == b"sealed"
    for wrong in ({}, {4: b"", 64: b""}, {4: b"", 2: BYTES}, {4: b"", 5: b""}, {64: b""}):
        with pytest.raises(BadMessage):
            messages.read_forward_payload(encode_tlvs(wrong))
    for wrong_bytes in (b"\x04", b"\x04\x07sealed", b"\x04\x00\x04\x00"):
        with pytest.raises(BadMessage):
            messages.read_forward_payload(wrong_bytes)


def test_an_invoice_error_gives_its_reason_in_field_5() -> None:
    """BOLT 12, "Invoice Errors": `error` is type 5, UTF-8, and the only field that must be there."""
    assert messages.invoice_error("Grüße", Family.BLIP66) == b"\x05\x07Gr\xc3\xbc\xc3\x9fe"


def test_ldks_invoice_error_has_its_length_before_it() -> None:
    """What LDK 0.2.7 writes for "no", and the only form that it reads."""
    assert messages.invoice_error("no", Family.LDK) == bytes.fromhex("0405026e6f")


@given(st.binary(max_size=80))
def test_any_payload_is_read_or_a_declared_error(payload: bytes) -> None:
    """No bytes raise anything but what the readers declare."""
    with suppress(BadMessage, BadPath, BadPoint):
        messages.read_final_payload(payload)
    with suppress(BadMessage):
        assert messages.hop_payload(messages.read_forward_payload(payload)) == payload
