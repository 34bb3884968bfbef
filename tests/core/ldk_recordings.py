"""The conversations recorded from LDK: who said what, and how LDK's nodes open what reaches them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.poly1305 import Poly1305

from sidecar.core import keys, messages, onion
from sidecar.core.messages import FinalPayload
from sidecar.core.wire import decode_tlvs
from tests.core.making import open_layer
from tests.vectors import vectors

FILES = ["ldk027_payer_direct", "ldk027_payer_via_server"]

# What LDK's own paths hold, beside BOLT 4's fields: a mark for dummy hops, and its context.
DUMMY_HOP, LDK_CONTEXT = 65_539, 65_537


@dataclass(frozen=True, slots=True)
class LdkNode:
    """A recorded node with the two keys that it opens messages with."""

    name: str
    node_id: bytes
    secret: bytes
    receive_auth_key: bytes

    def open(self, path_key: bytes, packet: bytes) -> tuple[FinalPayload, bytes]:
        """Peel every layer, dummy hops too: the payload, and the plain data of the path's last hop."""
        while True:
            layer, shared = open_layer(self.secret, path_key, packet)
            if isinstance(layer, onion.Final):
                payload = messages.read_final_payload(layer.payload)
                return payload, self.open_data(shared, payload.encrypted_recipient_data)
            data = self.open_data(shared, messages.read_forward_payload(layer.payload))
            assert DUMMY_HOP in decode_tlvs(data)
            path_key, packet = keys.next_point(path_key, shared), layer.next_packet

    def open_data(self, shared: bytes, encrypted: bytes) -> bytes:
        """LDK's ChaCha20-Poly1305 for its own hops: receive_auth_key is authenticated *behind* the data."""
        rho = keys.hmac_sha256(b"rho", shared)
        stream = keys.chacha20(rho, bytes(64 + len(encrypted)))
        sealed, tag = encrypted[:-16], encrypted[-16:]
        authenticated = (
            sealed
            + bytes(-len(sealed) % 16)
            + self.receive_auth_key
            + struct.pack("<QQ", len(sealed), len(self.receive_auth_key))
        )
        Poly1305.verify_tag(stream[:32], authenticated, tag)
        return bytes(left ^ right for left, right in zip(sealed, stream[64:], strict=False))


@dataclass(frozen=True, slots=True)
class Said:
    """One recorded onion message."""

    sender: str
    to: LdkNode
    content_type: int | None
    path_key: bytes
    packet: bytes
    layers: Any

    @property
    def forwarded(self) -> bool:
        """Whether `to` only handed it on."""
        return self.content_type is None

    def content(self) -> tuple[FinalPayload, bytes]:
        """What `to` reads."""
        return self.to.open(self.path_key, self.packet)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A recording: nodes, messages, and the other events as they stand there."""

    name: str
    nodes: dict[str, LdkNode]
    said: list[Said]
    events: list[Any]

    def of_type(self, content_type: int) -> Iterator[tuple[Said, FinalPayload, bytes]]:
        """The messages of a content type, opened: payload, and the plain data of the path's last hop."""
        found = [said for said in self.said if said.content_type == content_type]
        assert found, content_type
        for said in found:
            yield said, *said.content()

    def event(self, name: str) -> Any:
        """The only event of that name."""
        (found,) = (event for event in self.events if event["event"] == name)
        return found


def conversation(file: str) -> Conversation:
    """A recorded conversation; skips or fails when the vectors are absent."""
    events = [json.loads(line) for line in vectors("ldk", f"{file}.jsonl").read_text().splitlines()]
    nodes = {
        event["name"]: LdkNode(
            event["name"],
            bytes.fromhex(event["node_id"]),
            bytes.fromhex(event["node_secret"]),
            bytes.fromhex(event["receive_auth_key"]),
        )
        for event in events
        if event["event"] == "node"
    }
    said = [
        Said(
            event["from"],
            nodes[event["to"]],
            event["message_type"],
            bytes.fromhex(event["path_key"]),
            bytes.fromhex(event["onion_packet"]),
            event["layers"],
        )
        for event in events
        if event["event"] == "onion_message"
    ]
    return Conversation(file, nodes, said, events)
