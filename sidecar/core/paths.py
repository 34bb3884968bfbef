"""Blinded paths: build one, go one hop along it, read and write it (BOLT 4, "Route Blinding").

introduction_node (33-byte point, or 0|1 ‖ u64 scid) ‖ path_key (33) ‖ u8 number of hops (≥ 1)
‖ hops × (blinded_node_id (33) ‖ u16 length ‖ encrypted_recipient_data).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.core import keys
from sidecar.core.errors import BadBigSize, BadInteger, BadPath, BadPoint, BadRecipientData, BadTlvStream
from sidecar.core.wire import decode_tlvs, encode_tlvs, read_uint

SHORT_CHANNEL_ID, NEXT_NODE_ID, PATH_ID, NEXT_PATH_KEY_OVERRIDE, ALLOWED_FEATURES = 2, 4, 6, 8, 14


@dataclass(frozen=True, slots=True)
class SciddirIntroduction:
    """An introduction node named as one end of a channel: 0 is node_id_1, 1 is node_id_2 (BOLT 1)."""

    direction: int
    scid: int


Introduction = bytes | SciddirIntroduction


@dataclass(frozen=True, slots=True)
class BlindedHop:
    """One hop: whom to encrypt its onion layer to, and what only it can read."""

    blinded_node_id: bytes
    encrypted_recipient_data: bytes


@dataclass(frozen=True, slots=True)
class BlindedPath:
    """A path whose hops only its maker knows."""

    introduction_node: Introduction
    path_key: bytes
    hops: tuple[BlindedHop, ...]


@dataclass(frozen=True, slots=True)
class RecipientData:
    """What a hop's encrypted_recipient_data says, of the fields that onion messages use."""

    next_node_id: bytes | None = None
    short_channel_id: int | None = None
    path_id: bytes | None = None
    next_path_key_override: bytes | None = None

    @property
    def names_next_hop(self) -> bool:
        """Whether this is an intermediate hop's."""
        return self.next_node_id is not None or self.short_channel_id is not None


def next_hop_data(node_id: bytes, override: bytes | None = None) -> bytes:
    """The plain data of an intermediate hop: the next node, and its path_key if it is another path's."""
    records = {NEXT_NODE_ID: node_id}
    if override is not None:
        records[NEXT_PATH_KEY_OVERRIDE] = override
    return encode_tlvs(records)


def path_id_data(path_id: bytes) -> bytes:
    """The plain data of a final hop."""
    return encode_tlvs({PATH_ID: path_id})


def blinding_factor(shared_secret: bytes) -> bytes:
    """The scalar between a node id and its blinded_node_id: HMAC256("blinded_node_id", ss)."""
    return keys.purpose_key(b"blinded_node_id", shared_secret)


def blind(point: bytes, shared_secret: bytes) -> bytes:
    """A node id's blinded_node_id, given the ECDH of that node and its path_key. Raises BadPoint.

    Blinding the other side instead, an onion's ephemeral key, gives the point whose ECDH with the
    unblinded key opens the onion: so a key behind a signer, which can't be blinded, serves too.
    """
    return keys.multiply_point(point, blinding_factor(shared_secret))


def encrypt_hop(node_id: bytes, shared_secret: bytes, data: bytes) -> BlindedHop:
    """Blind one hop, given the ECDH of its node id and its path_key."""
    return BlindedHop(blind(node_id, shared_secret), keys.seal(keys.purpose_key(b"rho", shared_secret), data))


def build(session_key: bytes, hops: Sequence[tuple[bytes, bytes]]) -> BlindedPath:
    """A path along `hops` of (node id, plain data), introduction node first.

    `session_key` is a fresh secret of 32 bytes. Raises BadPoint, BadPath for no hops.
    """
    if not hops:
        raise BadPath("a blinded path needs a hop")
    path_key, secrets = keys.shared_secrets(session_key, [node_id for node_id, _ in hops])
    blinded = (encrypt_hop(node_id, ss, data) for (node_id, data), ss in zip(hops, secrets, strict=True))
    return BlindedPath(hops[0][0], path_key, tuple(blinded))


def decrypt_recipient_data(shared_secret: bytes, encrypted: bytes) -> RecipientData:
    """Open a hop's data with the ECDH of its node key and its path_key.

    Raises BadRecipientData: not made for this key, or a field that onion messages must not have.
    """
    plain = keys.unseal(keys.purpose_key(b"rho", shared_secret), encrypted)
    try:
        return _read_recipient_data(decode_tlvs(plain))
    except (BadBigSize, BadTlvStream, BadInteger, BadPoint) as error:
        raise BadRecipientData(f"encrypted_recipient_data: {error}") from None


def _read_recipient_data(records: dict[int, bytes]) -> RecipientData:
    known = {SHORT_CHANNEL_ID, NEXT_NODE_ID, PATH_ID, NEXT_PATH_KEY_OVERRIDE, ALLOWED_FEATURES}
    for type_ in records:
        # "MUST NOT include `payment_relay` or `payment_constraints`" is covered by this too.
        if type_ % 2 == 0 and type_ not in known:
            raise BadRecipientData(f"TLV type {type_} has no place in an onion message")
    # "MUST ignore the message if: `encrypted_data_tlv.allowed_features.features` contains
    # an unknown feature bit (even if it is odd)": we know none.
    if any(records.get(ALLOWED_FEATURES, b"")):
        raise BadRecipientData("allowed_features names a feature that we do not know")
    node_id, override = records.get(NEXT_NODE_ID), records.get(NEXT_PATH_KEY_OVERRIDE)
    for point in (node_id, override):
        if point is not None:
            keys.check_point(point)
    scid = records.get(SHORT_CHANNEL_ID)
    return RecipientData(
        next_node_id=node_id,
        short_channel_id=None if scid is None else read_uint(scid, 8),
        path_id=records.get(PATH_ID),
        next_path_key_override=override,
    )


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where a path goes on behind a hop: the next node, by id or by channel, and its path_key."""

    node_id: bytes | None
    scid: int | None
    path_key: bytes


def follow(path_key: bytes, shared_secret: bytes, data: RecipientData) -> NextHop:
    """Where an intermediate hop forwards to. Raises BadRecipientData when it is no intermediate hop."""
    # "if the `encrypted_data_tlv` contains `path_id`: MUST ignore the message."
    if data.path_id is not None or not data.names_next_hop:
        raise BadRecipientData("an intermediate hop that names no next node, or has a path_id")
    override = data.next_path_key_override
    return NextHop(
        data.next_node_id,
        None if data.next_node_id is not None else data.short_channel_id,
        override if override is not None else keys.next_point(path_key, shared_secret),
    )


def first_hop(path: BlindedPath, shared_secret: bytes) -> NextHop:
    """Where a path goes behind its introduction node, given that node's shared secret.

    Raises BadRecipientData, BadPoint.
    """
    data = decrypt_recipient_data(shared_secret, path.hops[0].encrypted_recipient_data)
    return follow(path.path_key, shared_secret, data)


def advance(path: BlindedPath, hop: NextHop, node_id: bytes) -> BlindedPath:
    """The rest of a path behind its introduction node; `node_id` is `hop`'s, resolved.

    Raises BadPath when the path ends at its introduction node.
    """
    if len(path.hops) < 2:
        raise BadPath("a path that ends at its introduction node can't be advanced")
    return BlindedPath(node_id, hop.path_key, path.hops[1:])


def read_path(data: bytes, position: int = 0) -> tuple[BlindedPath, int]:
    """The path at `position` and the position behind it. Raises BadPath, BadPoint."""
    introduction: Introduction
    first = data[position : position + 1]
    if first in (b"\x00", b"\x01"):
        scid = _take(data, position + 1, 8)
        introduction = SciddirIntroduction(first[0], int.from_bytes(scid, "big"))
        position += 9
    else:
        introduction = keys.check_point(_take(data, position, 33))
        position += 33
    header = _take(data, position, 34)
    path_key, count = keys.check_point(header[:33]), header[33]
    position += 34
    # "if `num_hops` is 0 in any `blinded_path` … MUST NOT respond"
    if count == 0:
        raise BadPath("a blinded path with 0 hops")
    hops = []
    for _ in range(count):
        header = _take(data, position, 35)
        length = header[33] << 8 | header[34]
        hops.append(BlindedHop(keys.check_point(header[:33]), _take(data, position + 35, length)))
        position += 35 + length
    return BlindedPath(introduction, path_key, tuple(hops)), position


def _take(data: bytes, position: int, size: int) -> bytes:
    taken = data[position : position + size]
    if len(taken) != size:
        raise BadPath(f"a blinded path that is cut short: {size} bytes wanted, {len(taken)} left")
    return taken


def decode_path(data: bytes) -> BlindedPath:
    """Exactly one path. Raises BadPath, BadPoint."""
    path, end = read_path(data)
    if end != len(data):
        raise BadPath(f"{len(data) - end} bytes behind a blinded path")
    return path


def decode_paths(data: bytes) -> tuple[BlindedPath, ...]:
    """Paths one behind the other, at least one. Raises BadPath, BadPoint."""
    paths: list[BlindedPath] = []
    position = 0
    while position < len(data) or not paths:
        path, position = read_path(data, position)
        paths.append(path)
    return tuple(paths)


def encode_path(path: BlindedPath) -> bytes:
    """The inverse of `decode_path`."""
    node = path.introduction_node
    if isinstance(node, SciddirIntroduction):
        node = bytes([node.direction]) + node.scid.to_bytes(8, "big")
    hops = b"".join(
        hop.blinded_node_id
        + len(hop.encrypted_recipient_data).to_bytes(2, "big")
        + hop.encrypted_recipient_data
        for hop in path.hops
    )
    return node + path.path_key + bytes([len(path.hops)]) + hops


def encode_path_list(paths: Sequence[BlindedPath]) -> bytes:
    """u16 count ‖ paths: what ldk-node's `set_paths_to_static_invoice_server` takes."""
    return len(paths).to_bytes(2, "big") + b"".join(encode_path(path) for path in paths)


def decode_path_list(data: bytes) -> tuple[BlindedPath, ...]:
    """The inverse of `encode_path_list`. Raises BadPath, BadPoint."""
    paths = decode_paths(data[2:])
    if len(paths) != int.from_bytes(data[:2], "big"):
        raise BadPath(f"{len(paths)} paths in a list that counts otherwise")
    return paths
