"""Curve, hashes and ciphers: the only module that imports coincurve and cryptography.

A secret is 32 bytes, a point 33 (compressed). Arithmetic on secrets is done by
libsecp256k1 (through coincurve) and OpenSSL (through cryptography).
"""

import hashlib
import hmac as _hmac
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from coincurve import GLOBAL_CONTEXT, PrivateKey, PublicKey, PublicKeyXOnly

# Not public; for `multiply_secret` and `ecdh` alone.
from coincurve._libsecp256k1 import ffi, lib  # type: ignore[import-not-found]
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from sidecar.core.errors import BadPoint, BadRecipientData, BadSignature, ForbiddenPoint

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

_ZERO_NONCE = bytes(12)
_CHACHA_START = bytes(16)  # OpenSSL's form: 4 bytes of counter before the 12 of the nonce
_CHACHA_BLOCK = 64


def sha256(data: bytes) -> bytes:
    """32 bytes."""
    return hashlib.sha256(data).digest()


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """32 bytes; BOLT 4 writes it HMAC256(key, data)."""
    return _hmac.digest(key, data, "sha256")


@lru_cache(maxsize=8)
def _hmac_midstates(key: bytes) -> "tuple[hashlib._Hash, hashlib._Hash]":
    padded = key.ljust(64, b"\0")
    inner, outer = (hashlib.sha256(bytes(byte ^ pad for byte in padded)) for pad in (0x36, 0x5C))
    return inner, outer


def purpose_key(purpose: bytes, shared_secret: bytes) -> bytes:
    """HMAC256(purpose, shared secret): BOLT 4's keys rho, mu, pad and blinded_node_id, 32 bytes each.

    As `hmac_sha256`, in half the time: the few purposes are hashed once.
    """
    inner, outer = _hmac_midstates(purpose)
    state = inner.copy()
    state.update(shared_secret)
    digest = state.digest()
    state = outer.copy()
    state.update(digest)
    return state.digest()


def equal(left: bytes, right: bytes) -> bool:
    """Compare in constant time."""
    return _hmac.compare_digest(left, right)


def tagged_state(tag: bytes) -> "hashlib._Hash":
    """The state of `tagged_hash` before its data; copied, it hashes any number of them."""
    return hashlib.sha256(sha256(tag) * 2)


def tagged_hash(tag: bytes, data: bytes) -> bytes:
    """SHA256(SHA256(tag) ‖ SHA256(tag) ‖ data) (BIP 340)."""
    state = tagged_state(tag)
    state.update(data)
    return state.digest()


def derive_key(secret: bytes, purpose: str) -> bytes:
    """32 bytes for one purpose: HKDF-SHA256 (RFC 5869) with an empty salt and one block."""
    pseudo_random_key = hmac_sha256(bytes(32), secret)
    return hmac_sha256(pseudo_random_key, purpose.encode() + b"\x01")


class KeyStream:
    """The ChaCha20 stream of a key, with a zero nonce (BOLT 4, "Pseudo Random Byte Stream")."""

    __slots__ = ("_cipher", "xor")

    def __init__(self, key: bytes) -> None:
        self._cipher = Cipher(ChaCha20(key, _CHACHA_START), mode=None).encryptor()
        self.xor = self._cipher.update
        """XOR bytes with the stream, from where the last ones ended."""

    def seek(self, position: int) -> None:
        """Go on from a byte of the stream."""
        block, skipped = divmod(position, _CHACHA_BLOCK)
        self._cipher.reset_nonce(block.to_bytes(4, "little") + _ZERO_NONCE)
        self.xor(bytes(skipped))


def chacha20(key: bytes, data: bytes) -> bytes:
    """XOR `data` with the ChaCha20 stream of `key` from its start."""
    return KeyStream(key).xor(data)


def seal(key: bytes, plain: bytes) -> bytes:
    """ChaCha20-Poly1305 with a zero nonce: `plain` and 16 bytes (BOLT 4, "Route Blinding")."""
    return ChaCha20Poly1305(key).encrypt(_ZERO_NONCE, plain, None)


def unseal(key: bytes, sealed: bytes) -> bytes:
    """The inverse of `seal`. Raises BadRecipientData when it was not sealed with `key`."""
    if len(sealed) < 16:
        raise BadRecipientData(f"encrypted_recipient_data of {len(sealed)} bytes is shorter than its MAC")
    try:
        return ChaCha20Poly1305(key).decrypt(_ZERO_NONCE, sealed, None)
    except InvalidTag:
        raise BadRecipientData("encrypted_recipient_data was not made with this path_key") from None


# Most points are used more than once: an onion's ephemeral key for LND's layer and for ours, the points of
# an offer and of a forward path for each of its payers.
@lru_cache(maxsize=1_024)
def _point(point: bytes) -> PublicKey:
    # coincurve takes uncompressed points as well; BOLTs know only 33 bytes.
    if len(point) != 33:
        raise BadPoint(f"a point of {len(point)} bytes where 33 are due")
    try:
        return PublicKey(point)
    except ValueError:
        raise BadPoint("33 bytes that are no point of secp256k1") from None


def check_point(point: bytes) -> bytes:
    """`point` itself. Raises BadPoint when it is no compressed point."""
    _point(point)
    return point


def check_point_form(point: bytes) -> bytes:
    """`point` itself, which may yet be none: for what is parsed where it is used.

    Raises BadPoint when it has not the length and the first byte of a compressed point.
    """
    if len(point) != 33 or point[0] not in (2, 3):
        raise BadPoint("a point is 33 bytes, the first of them 2 or 3")
    return point


def public_key(secret: bytes) -> bytes:
    """The 33-byte point of a secret. Raises ValueError for 0 or ≥ the curve's order."""
    return PublicKey.from_valid_secret(secret).format()


def multiply_point(point: bytes, scalar: bytes) -> bytes:
    """Scalar · point. Raises BadPoint."""
    parsed = _point(point)
    try:
        return parsed.multiply(scalar).format()
    except ValueError:
        raise BadPoint("a point times zero") from None


def multiply_secret(secret: bytes, scalar: bytes) -> bytes:
    """Scalar · secret modulo the curve's order.

    Raises BadPoint for zero, ValueError unless both are 32 bytes. One of them may be our node's: so it is
    libsecp256k1 that multiplies, in constant time. It is called directly, for PrivateKey.multiply derives
    public keys on the way: 80 µs instead of one.
    """
    if len(secret) != 32 or len(scalar) != 32:
        raise ValueError("secrets and scalars have 32 bytes")  # the library would read on behind them
    product = bytearray(secret)
    if not lib.secp256k1_ec_seckey_tweak_mul(GLOBAL_CONTEXT.ctx, ffi.from_buffer(product), scalar):
        raise BadPoint("a secret times zero")
    return bytes(product)


def ecdh(secret: bytes, point: bytes) -> bytes:
    """SHA256 of the compressed product: BOLT 4's and LND's ECDH.

    Raises BadPoint, ValueError for what is no secret. In constant time, for a stranger chooses the point:
    PublicKey.multiply is not. Called directly as PrivateKey.ecdh derives the public key first.
    """
    if len(secret) != 32:
        raise ValueError("a secret has 32 bytes")  # the library would read on behind it
    shared, parsed = bytearray(32), _point(point).public_key
    done = lib.secp256k1_ecdh(GLOBAL_CONTEXT.ctx, ffi.from_buffer(shared), parsed, secret, ffi.NULL, ffi.NULL)
    if not done:
        raise ValueError("0, or not less than the curve's order")
    return bytes(shared)


def _ecdh_once(secret: bytes, point: bytes) -> bytes:
    # As `ecdh`, in two thirds of the time, for a key of one packet or path: nobody can time it twice.
    return sha256(_point(point).multiply(secret).format())


def next_factor(point: bytes, shared_secret: bytes) -> bytes:
    """SHA256(E_i ‖ ss_i), the scalar between E_i and E_{i+1}."""
    return sha256(point + shared_secret)


def next_point(point: bytes, shared_secret: bytes) -> bytes:
    """E_{i+1} = SHA256(E_i ‖ ss_i) · E_i, of onions' ephemeral keys and path_keys alike. Raises BadPoint."""
    return multiply_point(point, next_factor(point, shared_secret))


def shared_secrets(session_key: bytes, nodes: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    """E_0 and the ECDH of each node with its own E_i (BOLT 4, "Route Blinding" and "Packet Structure").

    `session_key` is used once. Raises BadPoint.
    """
    secret, point = session_key, public_key(session_key)
    first, shared = point, []
    for index, node in enumerate(nodes):
        shared.append(_ecdh_once(secret, node))
        if index + 1 < len(nodes):
            secret = multiply_secret(secret, next_factor(point, shared[-1]))
            point = public_key(secret)
    return first, shared


def verify_schnorr(x_only: bytes, message: bytes, signature: bytes) -> None:
    """Check a 64-byte BIP 340 signature over a 32-byte message. Raises BadPoint, BadSignature."""
    if len(signature) != 64:
        raise BadSignature(f"a signature of {len(signature)} bytes where 64 are due")
    try:
        key = PublicKeyXOnly(x_only)
    except ValueError:
        raise BadPoint("32 bytes that are no x coordinate of secp256k1") from None
    if not key.verify(signature, message):
        raise BadSignature("the signature does not verify")


def sign_schnorr(secret: bytes, message: bytes) -> bytes:
    """A 64-byte BIP 340 signature over a 32-byte message."""
    return PrivateKey(secret).sign_schnorr(message)


def _nothing_up_my_sleeve(seed: bytes) -> bytes:
    """The first point whose x coordinate is SHA256(seed ‖ counter): nobody knows its logarithm."""
    for counter in range(256):
        candidate = b"\x02" + sha256(seed + bytes([counter]))
        try:
            return check_point(candidate)
        except BadPoint:
            continue
    raise AssertionError("unreachable: half of all x coordinates are on the curve")


NUMS_POINT = _nothing_up_my_sleeve(b"static-invoice-sidecar/v1/nums")
"""The point whose ECDH with LND's key is the root of all our secrets. Changing it voids every path."""


def refuse_nums(point: bytes) -> None:
    """Raise ForbiddenPoint for the root point and its negative; nothing honest asks for their ECDH."""
    if point[1:] == NUMS_POINT[1:]:
        raise ForbiddenPoint("the point that the sidecar's own keys are derived from")


@dataclass(frozen=True, slots=True, repr=False)
class SidecarKeys:
    """The sidecar's own secrets, all derived from LND's key: nothing to store or back up."""

    node_secret: bytes
    node_id: bytes
    context_key: bytes

    @classmethod
    def derive(cls, root: bytes) -> "SidecarKeys":
        """From the 32-byte ECDH of LND's node key and NUMS_POINT."""
        purpose = "static-invoice-sidecar/v1/node-key"
        node_secret = derive_key(root, purpose)
        # Never seen in practice (chance 2^-128): a key that is no valid secret.
        while not 0 < int.from_bytes(node_secret, "big") < CURVE_ORDER:
            node_secret = derive_key(node_secret, purpose)
        context_key = derive_key(root, "static-invoice-sidecar/v1/path-context")
        return cls(node_secret, public_key(node_secret), context_key)

    def ecdh(self, point: bytes) -> bytes:
        """BOLT 4's ECDH with the sidecar's node key. Raises BadPoint."""
        return ecdh(self.node_secret, point)
