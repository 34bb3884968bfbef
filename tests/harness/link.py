"""What a test's wallet or payer speaks through, whether LND behind it is real or simulated."""

from __future__ import annotations

from typing import Protocol


class LinkClosed(ConnectionError):
    """The other side hung up, or the connection broke; nothing more will arrive."""


class Link(Protocol):
    """A peer's connection to LND: what a wallet or payer speaks through."""

    node_id: bytes
    """The peer's own node id (33 bytes), not LND's."""

    async def send_onion(self, path_key: bytes, onion: bytes) -> None:
        """Send an onion message (type 513)."""

    async def receive_onion(self) -> tuple[bytes, bytes]:
        """The next onion message's (path_key, onion); waits. Raises LinkClosed."""

    async def send_custom(self, type_: int, data: bytes) -> None:
        """Send a message of a custom type (>= 32,768)."""

    async def receive_custom(self) -> tuple[int, bytes]:
        """The next custom message's (type, data); waits. Raises LinkClosed."""

    async def close(self) -> None:
        """Hang up; may be called again."""
