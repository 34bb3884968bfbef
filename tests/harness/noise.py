"""BOLT 8's handshake and ciphers, Noise_XK_secp256k1_ChaChaPoly_SHA256, without I/O; for tests."""

from __future__ import annotations

import hashlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from sidecar.core import keys
from sidecar.core.errors import BadPoint
from tests.harness.link import LinkClosed

_PROTOCOL = b"Noise_XK_secp256k1_ChaChaPoly_SHA256"
_PROLOGUE = b"lightning"
_ROTATE_AT = 1000
_MAX_MESSAGE = 65535

TAG = 16
ACT_ONE = ACT_TWO = 1 + 33 + TAG
ACT_THREE = 1 + 33 + TAG + TAG


class HandshakeError(ConnectionError):
    """The other side broke a rule of BOLT 8's handshake, or is not who it should be."""


class CipherState:
    """One direction of an open connection: its key, chaining key and nonce."""

    def __init__(self, chaining_key: bytes, key: bytes) -> None:
        self._chaining_key = chaining_key
        self._key = key
        self._nonce = 0

    def encrypt(self, message: bytes) -> bytes:
        """The packet of a message: sealed length, sealed message."""
        if len(message) > _MAX_MESSAGE:
            raise ValueError(f"a message of {len(message)} bytes; BOLT 8 allows {_MAX_MESSAGE}")
        length = len(message).to_bytes(2, "big")
        return self._seal(length) + self._seal(message)

    def decrypt(self, sealed: bytes) -> bytes:
        """One sealed part. Raises LinkClosed when its MAC is wrong: the connection is of no more use."""
        key, nonce = self._turn()
        try:
            return ChaCha20Poly1305(key).decrypt(nonce, sealed, b"")
        except InvalidTag:
            raise LinkClosed("a part of a message has a wrong MAC") from None

    def _seal(self, part: bytes) -> bytes:
        key, nonce = self._turn()
        return ChaCha20Poly1305(key).encrypt(nonce, part, b"")

    def _turn(self) -> tuple[bytes, bytes]:
        """BOLT 8, "Lightning Message Key Rotation": a key does 1,000 turns, 500 messages."""
        if self._nonce == _ROTATE_AT:
            self._chaining_key, self._key = _hkdf(self._chaining_key, self._key)
            self._nonce = 0
        nonce = _nonce(self._nonce)
        self._nonce += 1
        return self._key, nonce


class Handshake:
    """Both sides' state of Noise_XK, act by act (BOLT 8, "Handshake State"); does no I/O."""

    def __init__(self, secret: bytes, responder: bytes, ephemeral: bytes | None = None) -> None:
        """`secret` is ours, `responder` the node id that is dialled; `ephemeral` is for test vectors."""
        self._secret = secret
        self._responder = responder
        self._ephemeral = ephemeral or new_secret()
        self._their_ephemeral = b""
        self._temp_key = b""
        self._chaining_key = hashlib.sha256(_PROTOCOL).digest()
        self._hash = self._chaining_key
        self._mix_hash(_PROLOGUE)
        self._mix_hash(responder)

    def write_act_one(self) -> bytes:
        """Initiator: e, es."""
        return self._write_ephemeral(keys.ecdh(self._ephemeral, self._responder))

    def read_act_one(self, act: bytes) -> None:
        """Responder: takes e, es. Raises HandshakeError, as all readers here do."""
        self._read_ephemeral(act, self._secret)

    def write_act_two(self) -> bytes:
        """Responder: e, ee."""
        return self._write_ephemeral(keys.ecdh(self._ephemeral, self._their_ephemeral))

    def read_act_two(self, act: bytes) -> None:
        """Initiator: takes e, ee."""
        self._read_ephemeral(act, self._ephemeral)

    def write_act_three(self) -> tuple[bytes, CipherState, CipherState]:
        """Initiator: s, se; and the ciphers for sending and receiving."""
        sealed = self._seal(1, keys.public_key(self._secret))
        self._mix_key(keys.ecdh(self._secret, self._their_ephemeral))
        act = b"\0" + sealed + self._seal(0, b"")
        first, second = _hkdf(self._chaining_key, b"")
        return act, CipherState(self._chaining_key, first), CipherState(self._chaining_key, second)

    def read_act_three(self, act: bytes) -> tuple[bytes, CipherState, CipherState]:
        """Responder: takes s, se; the initiator's node id, and the ciphers for sending and receiving."""
        _check_version(act)
        initiator = self._open(1, act[1:50])
        self._mix_key(_ecdh(self._ephemeral, initiator))
        self._open(0, act[50:])
        first, second = _hkdf(self._chaining_key, b"")
        return initiator, CipherState(self._chaining_key, second), CipherState(self._chaining_key, first)

    def _write_ephemeral(self, shared: bytes) -> bytes:
        point = keys.public_key(self._ephemeral)
        self._mix_hash(point)
        self._mix_key(shared)
        return b"\0" + point + self._seal(0, b"")

    def _read_ephemeral(self, act: bytes, secret: bytes) -> None:
        _check_version(act)
        self._their_ephemeral = act[1:34]
        self._mix_hash(self._their_ephemeral)
        self._mix_key(_ecdh(secret, self._their_ephemeral))
        self._open(0, act[34:])

    def _mix_hash(self, data: bytes) -> None:
        self._hash = hashlib.sha256(self._hash + data).digest()

    def _mix_key(self, shared: bytes) -> None:
        self._chaining_key, self._temp_key = _hkdf(self._chaining_key, shared)

    def _seal(self, nonce: int, plain: bytes) -> bytes:
        sealed = ChaCha20Poly1305(self._temp_key).encrypt(_nonce(nonce), plain, self._hash)
        self._mix_hash(sealed)
        return sealed

    def _open(self, nonce: int, sealed: bytes) -> bytes:
        try:
            plain = ChaCha20Poly1305(self._temp_key).decrypt(_nonce(nonce), sealed, self._hash)
        except InvalidTag:
            raise HandshakeError("an act has a wrong MAC: it is for another key, or was altered") from None
        self._mix_hash(sealed)
        return plain


def new_secret() -> bytes:
    """32 random bytes that are a key: all but one in 2^127 are."""
    return secrets.token_bytes(32)


def _check_version(act: bytes) -> None:
    if act[:1] != b"\0":
        raise HandshakeError("an act of an unknown handshake version")


def _ecdh(secret: bytes, point: bytes) -> bytes:
    try:
        return keys.ecdh(secret, point)
    except BadPoint as error:
        raise HandshakeError(str(error)) from error


def _hkdf(salt: bytes, material: bytes) -> tuple[bytes, bytes]:
    """RFC 5869 with SHA-256 and no info: 64 bytes, as two keys."""
    key = keys.hmac_sha256(salt, material)
    first = keys.hmac_sha256(key, b"\x01")
    return first, keys.hmac_sha256(key, first + b"\x02")


def _nonce(number: int) -> bytes:
    return bytes(4) + number.to_bytes(8, "little")
