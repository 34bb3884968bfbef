"""BOLT 12's form: strings, merkle root, signatures, chains. What the fields mean is in offers.py."""

from collections.abc import Iterable, Mapping

from sidecar.core import keys
from sidecar.core.errors import BadOffer, BadSignature
from sidecar.core.wire import encode_tlv, write_bigsize

CHAINS: dict[str, bytes] = {
    "mainnet": bytes.fromhex("6fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000"),
    "testnet": bytes.fromhex("43497fd7f826957108f4a30fd9cec3aeba79972084e90ead01ea330900000000"),
    "testnet4": bytes.fromhex("43f08bdab050e35b567c864b91f47f50ae725ae2de53bcfbbaf284da00000000"),
    "signet": bytes.fromhex("f61eee3b63a380a477a063af32b2bbc97c9ff9f01f2c4225e973988108000000"),
    "regtest": bytes.fromhex("06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f"),
    "simnet": bytes.fromhex("f67ad7695d9b662a72ff3d8edbbb2de0bfa67b13974bb9910d116d5cbd863e68"),
}
"""LND's name of a network → BOLT's chain_hash (the genesis block's hash)."""

BITCOIN = CHAINS["mainnet"]
"""The chain that is meant where none is named."""

SIGNATURE = 240
_SIGNATURE_TYPES = range(240, 1001)

# --- strings --------------------------------------------------------------------------------------

_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_VALUE = {letter: value for value, letter in enumerate(_BECH32)}


def decode_string(text: str) -> tuple[str, bytes]:
    """A BOLT 12 string as (prefix, bytes): bech32 without a checksum (BOLT 12, "Encoding").

    Raises BadOffer.
    """
    # "if it encounters a `+` followed by zero or more whitespace characters between
    # two bech32 characters: MUST remove the `+` and whitespace."
    pieces = text.split("+")
    parts = [pieces[0], *(piece.lstrip() for piece in pieces[1:])]
    if not all(parts):
        raise BadOffer("a `+` in an offer string must join two of its characters")
    joined = "".join(parts)
    # ASCII first: the Kelvin sign, for one, has a bech32 character for its lower case.
    if not joined.isascii():
        raise BadOffer("an offer string with characters that are not ASCII")
    # "MUST be either all uppercase, or all lowercase"
    if joined not in (joined.lower(), joined.upper()):
        raise BadOffer("an offer string that mixes upper and lower case")
    prefix, separator, data = joined.lower().partition("1")
    if not separator or not prefix or not data:
        raise BadOffer("an offer string has a prefix, `1` and data")
    try:
        values = [_BECH32_VALUE[letter] for letter in data]
    except KeyError as error:
        raise BadOffer(f"{error.args[0]!r} is no bech32 character") from None
    bits = len(values) * 5
    number = _join(values)
    spare = bits % 8
    # BIP 173's rule for the bits left over: fewer than 5, all zero.
    if spare > 4 or number & ((1 << spare) - 1):
        raise BadOffer("an offer string whose last bits are not padding")
    return prefix, (number >> spare).to_bytes(bits // 8, "big")


def _join(values: Iterable[int]) -> int:
    number = 0
    for value in values:
        number = number << 5 | value
    return number


def encode_string(prefix: str, data: bytes) -> str:
    """The inverse of `decode_string`, in lower case."""
    bits = len(data) * 8
    padding = -bits % 5
    number = int.from_bytes(data, "big") << padding
    letters = [_BECH32[number >> shift & 31] for shift in range(bits + padding - 5, -1, -5)]
    return f"{prefix}1{''.join(letters)}"


# --- signatures -----------------------------------------------------------------------------------


_LEAF, _BRANCH = keys.tagged_state(b"LnLeaf"), keys.tagged_state(b"LnBranch")


def merkle_root(records: Mapping[int, bytes]) -> bytes:
    """The 32-byte root over all but the signature TLVs (BOLT 12, "Signature Calculation").

    `records` are in ascending order of type, as `decode_tlvs` gives them.
    """
    signed = [
        (type_, encode_tlv(type_, value)) for type_, value in records.items() if type_ not in _SIGNATURE_TYPES
    ]
    if not signed:
        raise BadSignature("nothing is signed")
    # H("LnNonce" ‖ first-tlv, tlv-type): "first-tlv is the numerically-first TLV entry".
    nonce = keys.tagged_state(b"LnNonce" + signed[0][1])
    level = []
    for type_, tlv in signed:
        # Tagged hashes without a call for each: there are some thirty of them to a request.
        left, right = _LEAF.copy(), nonce.copy()
        left.update(tlv)
        right.update(write_bigsize(type_))
        level.append(_branch(left.digest(), right.digest()))
    while len(level) > 1:
        # "the tree depth will be uneven, with the deepest tree on the lowest-order leaves"
        odd = level[len(level) & ~1 :]
        level = [_branch(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)] + odd
    return level[0]


def _branch(left: bytes, right: bytes) -> bytes:
    # "H("LnBranch", lesser-SHA256||greater-SHA256)"
    state = _BRANCH.copy()
    state.update(left + right if left < right else right + left)
    return state.digest()


def _signature_hash(records: Mapping[int, bytes], message_name: str) -> bytes:
    return keys.tagged_hash(f"lightning{message_name}signature".encode(), merkle_root(records))


def verify(records: Mapping[int, bytes], message_name: str, signer: bytes) -> None:
    """Check TLV 240 against a 33-byte `signer`. Raises BadSignature, BadPoint."""
    signature = records.get(SIGNATURE)
    if signature is None:
        raise BadSignature(f"{message_name} without a signature")
    if len(signer) != 33:
        raise BadSignature("a signer that is no point")
    keys.verify_schnorr(signer[1:], _signature_hash(records, message_name), signature)


def sign(records: Mapping[int, bytes], message_name: str, secret: bytes) -> dict[int, bytes]:
    """The records with TLV 240 set."""
    unsigned = {type_: records[type_] for type_ in sorted(records) if type_ != SIGNATURE}
    signature = keys.sign_schnorr(secret, _signature_hash(unsigned, message_name))
    signed = unsigned | {SIGNATURE: signature}
    return {type_: signed[type_] for type_ in sorted(signed)}
