"""BOLT 12's form, held to the BOLT's own vectors: strings, offers, merkle roots, signatures."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core import bolt12, keys, offers
from sidecar.core.errors import BadOffer, BadPoint, BadSignature
from sidecar.core.wire import decode_tlvs, encode_tlvs, write_bigsize
from tests.core.making import node, secret
from tests.vectors import load


def each(*parts: str) -> list[Any]:
    """The cases of a vectors file; skips or fails with its absence."""
    cases: list[Any] = load(*parts)
    assert cases
    return cases


# --- strings --------------------------------------------------------------------------------------


def test_every_format_string_of_bolt_12_is_judged_as_it_says() -> None:
    """BOLT 12's format-string-test.json: case, `+`, whitespace."""
    judged = {True: 0, False: 0}
    for case in each("bolt12", "format-string-test.json"):
        judged[case["valid"]] += 1
        if case["valid"]:
            assert offers.decode_offer(case["string"]).records, case["comment"]
        else:
            with pytest.raises(BadOffer):
                offers.decode_offer(case["string"])
    assert judged == {True: 6, False: 6}


def test_every_offer_of_bolt_12_is_judged_as_it_says() -> None:
    """BOLT 12's offers-test.json: fields of the valid ones to the byte, and BadOffer for all others."""
    judged = {True: 0, False: 0}
    for case in each("bolt12", "offers-test.json"):
        judged[case["valid"]] += 1
        if case["valid"]:
            fields = {field["type"]: bytes.fromhex(field["hex"]) for field in case["fields"]}
            assert offers.decode_offer(case["bolt12"]).records == fields, case["description"]
            assert bolt12.encode_string("lno", encode_tlvs(fields)) == case["bolt12"].lower()
        else:
            try:
                offers.decode_offer(case["bolt12"])
            except BadOffer:
                continue
            pytest.fail(f"let through: {case['description']}")
    assert judged == {True: 20, False: 33}


@given(st.binary(min_size=1, max_size=200))
def test_a_string_survives_the_way_there_and_back(data: bytes) -> None:
    """Bech32 without a checksum (BOLT 12, "Encoding"), in either case."""
    text = bolt12.encode_string("lno", data)
    assert re.fullmatch("lno1[02-9ac-hj-np-z]+", text)
    assert bolt12.decode_string(text) == ("lno", data)
    assert bolt12.decode_string(text.upper()) == ("lno", data)


@given(st.text(alphabet="lno1qpzry9x8gf2tvdw0s3jn54khce6mua7lQP+ \n", max_size=40) | st.text(max_size=20))
def test_a_string_that_is_accepted_has_one_encoding(text: str) -> None:
    """Any text is the one encoding of its bytes, joined by `+` or not, or a BadOffer."""
    try:
        prefix, data = bolt12.decode_string(text)
    except BadOffer:
        return
    assert bolt12.encode_string(prefix, data) == re.sub(r"\+\s*", "", text).lower()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "nothing"),
        ("lno1", "no data"),
        ("1qq", "no prefix"),
        ("lno", "no separator"),
        ("lno1qb", "b is no bech32 character"),
        ("lno1qo", "o is no bech32 character"),
        ("lno1q", "5 bits are no byte"),
        ("lno1qqq", "15 bits: 7 are left over"),
        ("lno1ql", "bits left over that are not zero"),
        ("lno1qQ", "lower and upper case"),
        ("lno1q q", "whitespace without a +"),
        ("lno1qq+", "nothing to join"),
        ("LNO1QQQQQQQ\u212a", "the Kelvin sign, whose lower case is k"),
    ],
)
def test_a_string_that_breaks_a_rule_is_refused(text: str, why: str) -> None:
    """BOLT 12, "Encoding", and BIP 173's rules for bech32 data."""
    with pytest.raises(BadOffer):
        bolt12.decode_string(text)
    assert why


def test_an_offer_has_the_prefix_lno() -> None:
    """An invoice_request's string is no offer (BOLT 12)."""
    data = encode_tlvs({22: node(1)})
    assert offers.decode_offer(bolt12.encode_string("lno", data)).issuer_id == node(1)
    for prefix in ("lnr", "lni", "ln", "xlno"):
        with pytest.raises(BadOffer):
            offers.decode_offer(bolt12.encode_string(prefix, data))


# --- signatures -----------------------------------------------------------------------------------


def named(leaf_or_branch: dict[str, str], name: str) -> tuple[str, str]:
    """The arguments and the result of the one hash of that name."""
    (found,) = ((key, value) for key, value in leaf_or_branch.items() if key.startswith(f"H(`{name}`"))
    return found[0].partition(",")[2].rstrip(")"), found[1]


def test_every_merkle_root_of_bolt_12_is_ours() -> None:
    """BOLT 12's signature-test.json: leaves with their nonces, branches, root."""
    for case in each("bolt12", "signature-test.json"):
        nonce_tag = b"LnNonce" + bytes.fromhex(case["first-tlv"])
        stream = b""
        for leaf in case["leaves"]:
            tlv, leaf_hash = named(leaf, "LnLeaf")
            stream += bytes.fromhex(tlv)
            (type_,) = decode_tlvs(bytes.fromhex(tlv))
            assert keys.tagged_hash(b"LnLeaf", bytes.fromhex(tlv)).hex() == leaf_hash
            nonce = keys.tagged_hash(nonce_tag, bytes([type_]))
            assert nonce.hex() == named(leaf, "LnNonce")[1]
            branch = bolt12._branch(bytes.fromhex(leaf_hash), nonce)
            assert branch.hex() == named(leaf, "LnBranch")[1]
        for branch_case in case["branches"]:
            both, result = named(branch_case, "LnBranch")
            left, right = bytes.fromhex(both)[:32], bytes.fromhex(both)[32:]
            assert bolt12._branch(right, left).hex() == result == bolt12._branch(left, right).hex()
        assert bolt12.merkle_root(decode_tlvs(stream)).hex() == case["merkle"], case["comment"]


def root_by_the_word(records: dict[int, bytes]) -> bytes:
    """BOLT 12, "Signature Calculation", with a tagged hash for each of its H(tag, …)."""

    def branch(left: bytes, right: bytes) -> bytes:
        return keys.tagged_hash(b"LnBranch", min(left, right) + max(left, right))

    tlvs = {type_: encode_tlvs({type_: records[type_]}) for type_ in sorted(records)}
    nonce = b"LnNonce" + next(iter(tlvs.values()))
    level = [
        branch(keys.tagged_hash(b"LnLeaf", tlv), keys.tagged_hash(nonce, write_bigsize(type_)))
        for type_, tlv in tlvs.items()
    ]
    while len(level) > 1:
        level = [
            branch(*level[at : at + 2]) if level[at + 1 :] else level[at] for at in range(0, len(level), 2)
        ]
    return level[0]


@given(
    st.dictionaries(
        st.integers(0, 239) | st.integers(1_001, 2**64 - 1), st.binary(max_size=260), min_size=1, max_size=9
    )
)
def test_a_merkle_root_is_that_of_bolt_12s_words(records: dict[int, bytes]) -> None:
    """Any number of fields, any types: states that were copied give the hashes that were made anew."""
    ordered = {type_: records[type_] for type_ in sorted(records)}
    assert bolt12.merkle_root(ordered) == root_by_the_word(records)


def test_the_invoice_request_of_bolt_12_verifies() -> None:
    """BOLT 12's signature-test.json: Bob's signature, over the hash that stands there, is right."""
    (case,) = (case for case in each("bolt12", "signature-test.json") if case["tlv"] == "invoice_request")
    prefix, data = bolt12.decode_string(case["bolt12"])
    assert prefix == "lnr"
    records = decode_tlvs(data)
    assert bolt12.merkle_root(records).hex() == case["merkle"]
    assert bolt12._signature_hash(records, "invoice_request").hex() == case["H(signature_tag,merkle)"]
    assert records[bolt12.SIGNATURE].hex() == case["signature"]
    bolt12.verify(records, "invoice_request", keys.public_key(b"\x42" * 32))


RECORDS = {1: b"one", 22: b"two", 176: b"three", 239: b"four", 1_001: b"five", 1_000_000_001: b"six"}


def test_what_is_signed_verifies() -> None:
    """A signature holds for its signer and its message's name, and for no others (BOLT 12)."""
    signed = bolt12.sign(RECORDS, "static_invoice", secret(1))
    assert list(signed) == sorted(signed)
    bolt12.verify(signed, "static_invoice", node(1))
    for name, signer in (("invoice", node(1)), ("invoice_request", node(1)), ("static_invoice", node(2))):
        with pytest.raises(BadSignature):
            bolt12.verify(signed, name, signer)


@pytest.mark.parametrize("type_", sorted(RECORDS))
def test_every_field_is_signed(type_: int) -> None:
    """Altering, dropping or adding any TLV outside 240 … 1000 breaks the signature (BOLT 12)."""
    signed = bolt12.sign(RECORDS, "static_invoice", secret(1))
    without = {kept: value for kept, value in signed.items() if kept != type_}
    added = dict(sorted({**signed, type_ + 2: b""}.items()))
    if type_ == 239:
        added = dict(sorted({**signed, type_ - 2: b""}.items()))
    for altered in ({**signed, type_: b"other"}, without, added):
        with pytest.raises(BadSignature):
            bolt12.verify(altered, "static_invoice", node(1))


def test_signature_tlvs_are_not_signed() -> None:
    """BOLT 12: the TLVs 240 … 1000 are not in the merkle tree; 239 and 1001 are."""
    root = bolt12.merkle_root(RECORDS)
    for type_ in (240, 241, 500, 1_000):
        assert bolt12.merkle_root(dict(sorted({**RECORDS, type_: b"x"}.items()))) == root
    for type_ in (238, 1_002):
        assert bolt12.merkle_root(dict(sorted({**RECORDS, type_: b"x"}.items()))) != root


@pytest.mark.parametrize("size", [0, 1, 63, 65, 128])
def test_a_signature_of_another_size_is_refused(size: int) -> None:
    """A BIP 340 signature is 64 bytes."""
    signed = bolt12.sign(RECORDS, "static_invoice", secret(1))
    wrong = (signed[bolt12.SIGNATURE] * 2)[:size]
    with pytest.raises(BadSignature):
        bolt12.verify({**signed, bolt12.SIGNATURE: wrong}, "static_invoice", node(1))


def test_a_missing_signature_or_signer_is_refused() -> None:
    """Nothing signed, no signature, a signer that is no point: refused, never let through."""
    signed = bolt12.sign(RECORDS, "static_invoice", secret(1))
    with pytest.raises(BadSignature):
        bolt12.verify(RECORDS, "static_invoice", node(1))
    with pytest.raises(BadSignature):
        bolt12.verify({bolt12.SIGNATURE: bytes(64)}, "static_invoice", node(1))
    for signer in (b"", node(1)[1:], node(1) + b"\x00"):
        with pytest.raises(BadSignature):
            bolt12.verify(signed, "static_invoice", signer)
    with pytest.raises((BadPoint, BadSignature)):
        bolt12.verify(signed, "static_invoice", b"\x02" + b"\xff" * 32)
