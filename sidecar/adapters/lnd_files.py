"""The two files that open LND: as LND writes them, or as text, as secrets are often kept."""

import base64
import binascii
import re
from pathlib import Path

_PEM = b"-----BEGIN"
_MACAROON_V2 = b"\x02"
"""What LND's macaroons begin with: the version of their form."""


def certificate(path: Path) -> bytes:
    """LND's tls.cert in PEM, out of a file that holds it or its base64. Raises OSError."""
    data = path.read_bytes()
    if data.lstrip().startswith(_PEM):
        return data
    decoded = _base64(data)
    return decoded if decoded.startswith(_PEM) else data


def macaroon(path: Path) -> bytes:
    """A macaroon as LND bakes it, out of a file that holds it, or its hex or base64. Raises OSError."""
    data = path.read_bytes()
    if not data.startswith(_MACAROON_V2):
        for decoded in (_hex(data), _base64(data)):
            if decoded.startswith(_MACAROON_V2):
                return decoded
    # Whatever it is: LND says what it thinks of it.
    return data


def _hex(data: bytes) -> bytes:
    text = data.strip()
    return bytes.fromhex(text.decode()) if re.fullmatch(rb"(?:[0-9a-fA-F]{2})+", text) else b""


def _base64(data: bytes) -> bytes:
    """What it decodes to, line by line or in one; nothing when it is no base64, or its URL form."""
    try:
        return base64.b64decode(b"".join(data.split()).translate(_FROM_URL_FORM), validate=True)
    except binascii.Error:
        return b""


_FROM_URL_FORM = bytes.maketrans(b"-_", b"+/")
