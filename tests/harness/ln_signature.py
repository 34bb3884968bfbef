"""Signatures over texts by a node's key, as LND's SignMessage makes them (bLIP 50, LSPS0.ln_signature)."""

import hashlib

from coincurve import PrivateKey, PublicKey

_ALPHABET = "ybndrfg8ejkmcpqxot1uwisza345h769"
_SIZE = 65


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(b"Lightning Signed Message:" + text).digest()).digest()


def sign(secret: bytes, text: bytes) -> str:
    """The zbase32 form of a recoverable signature: 31 and the recovery id, r, s."""
    signature = PrivateKey(secret).sign_recoverable(_digest(text), hasher=None)
    compact = bytes([31 + signature[64]]) + signature[:64]
    bits = "".join(f"{byte:08b}" for byte in compact)
    return "".join(_ALPHABET[int(bits[at : at + 5], 2)] for at in range(0, len(bits), 5))


def signer(signature: str, text: bytes) -> bytes:
    """The node id whose signature over `text` this is (any signature is somebody's). Raises ValueError."""
    bits = "".join(f"{_ALPHABET.index(letter):05b}" for letter in signature)
    compact = int(bits, 2).to_bytes((len(bits) + 7) // 8, "big")
    if len(compact) != _SIZE:
        raise ValueError(f"a signature of {len(compact)} bytes")
    recoverable = compact[1:] + bytes([compact[0] - 31])
    return PublicKey.from_signature_and_message(recoverable, _digest(text), hasher=None).format()
