"""What the records of an export must say before any of them is believed: shapes, words, and each other.

The hash of an export says that it is as it was written; this says that what was written is a
state that our scripts could have left. An export is checked as it is made, too: none is made that
could not be imported.
"""

import re
from dataclasses import replace

from sidecar.adapters.admin_records import check_name, check_quota
from sidecar.adapters.redis_records import (
    to_client,
    to_delivery,
    to_letter,
    to_letter_entries,
    to_mail_use,
    to_unneeded_since,
    to_webhook,
)
from sidecar.adapters.redis_slots import to_index, to_invoice
from sidecar.core.backup import Record
from sidecar.core.errors import BadExport, OperatorError, StoreUnavailable
from sidecar.core.model import CLIENT_ID_SIZE

SHARED = frozenset({"names", "nodes", "mail", "webhooks"})
"""Keys that hold one entry for each client or wallet: its entry stands behind its own records."""

MAX_ITEMS = 1 << 20
"""Fields and values of one client or wallet: several times what its limits let it have."""

_OWN = re.compile(r"\{([0-9a-f]+)\}((?::[a-z0-9]+)*)")
_SLOT = re.compile(r":(0|[1-9][0-9]{0,4})")
_OWNERS = (2 * CLIENT_ID_SIZE, 2 * 33)


def owner_of(key: str) -> tuple[str, str]:
    """The client or wallet (hex) whose own key it is, and the rest of it. Raises BadExport."""
    own = _OWN.fullmatch(key)
    if own is None or len(own[1]) not in _OWNERS:
        raise BadExport("the export holds a key that this sidecar does not know: update it first")
    return own[1], own[2]


class ExportCheck:
    """Takes all records of an export in their order, then `finish`. Each raises BadExport."""

    def __init__(self) -> None:
        self._owner = ""
        self._group: dict[str, tuple[Record, list[bytes]]] = {}
        self._items = 0
        self._names: set[bytes] = set()
        self._nodes: set[bytes] = set()

    def record(self, record: Record) -> None:
        """The next record. Memory: all of one client, and the names and nodes of all."""
        if record.key in SHARED:
            self._add(record.key, record)
            return
        owner, rest = owner_of(record.key)
        if owner != self._owner:
            self._end_group()
            # In order: so none comes twice, and nothing needs to be remembered to know it.
            if (len(owner), owner) <= (len(self._owner), self._owner):
                raise BadExport("the export's records are not in their order")
            self._owner, self._group, self._items = owner, {}, 0
        self._add(rest, record)

    def finish(self) -> None:
        """There are no more."""
        self._end_group()

    def _add(self, name: str, record: Record) -> None:
        self._items += len(record.items)
        if self._items > MAX_ITEMS:
            raise BadExport(f"the export holds more of {self._owner or 'nobody'} than there can be")
        first, items = self._group.setdefault(name, (record, []))
        if (first.type, first.expires_at_ms) != (record.type, record.expires_at_ms):
            raise BadExport(f"two parts of {record.key} are of two kinds")
        items += record.items

    def _end_group(self) -> None:
        if not self._group:
            return
        group = {name: replace(first, items=tuple(items)) for name, (first, items) in self._group.items()}
        try:
            if len(self._owner) == _OWNERS[0]:
                self._client(bytes.fromhex(self._owner), group)
            else:
                self._wallet(bytes.fromhex(self._owner), group)
        except (StoreUnavailable, OperatorError, KeyError, ValueError) as error:
            raise BadExport(
                f"the export's records of {self._owner or 'nobody'} can't be used: {error}"
            ) from None

    # --- one client -----------------------------------------------------------------------------

    def _client(self, client_id: bytes, group: dict[str, Record]) -> None:
        hex_id = self._owner.encode()
        record = _hash(group.pop(""))
        client = to_client(client_id, record)
        check_name(client.name)
        check_quota(client.quota)
        if _hash(group.pop("names")) != {client.name.encode(): hex_id}:
            raise ValueError("its name is another's")
        _add_once(self._names, client.name.encode(), "its name is given twice")
        if "nodes" in group:
            node_id = (client.node_id or b"").hex().encode()
            if _hash(group.pop("nodes")) != {node_id: hex_id}:
                raise ValueError("its node is another's")
            _add_once(self._nodes, node_id, "its node is bound twice")
        index = to_index(record).slots
        self._mail(int(record.get(b"mail", b"0")), group)
        for name, part in group.items():
            slot = _SLOT.fullmatch(name)
            if slot is None or int(slot[1]) not in index:
                raise ValueError("it has a key that it can't have")
            if part.type != "string":
                raise ValueError("a record is of a wrong kind")
            (packed,) = part.items
            invoice = to_invoice(int(slot[1]), index[int(slot[1])], packed)
            _ends(part, invoice.expires_at * 1_000)

    @staticmethod
    def _mail(changes: int, group: dict[str, Record]) -> None:
        if "mail" in group:
            (use,) = _hash(group.pop("mail")).values()
            to_mail_use(use)
        if (":mail" in group) != (":mail:index" in group):
            raise ValueError("its mailbox has one part of two")
        if ":mail" not in group:
            return
        box, index = group.pop(":mail"), group.pop(":mail:index")
        letters = _hash(box, expiring=True)
        entries = to_letter_entries(_hash(index, expiring=True))
        for entry in entries:
            to_letter(entry, letters.pop(str(entry.number).encode()))
            # Numbers are never used again: the client's record counts them.
            if entry.number > changes:
                raise ValueError("a letter's number is beyond its client's")
        if letters:
            raise ValueError("a letter is not in the index")
        for part in (box, index):
            _ends(part, max(entry.ends_ms for entry in entries))

    # --- one wallet -----------------------------------------------------------------------------

    @staticmethod
    def _wallet(wallet: bytes, group: dict[str, Record]) -> None:
        if ("webhooks" in group) != (":webhooks" in group):
            raise ValueError("its webhooks have one part of two")
        if "webhooks" in group:
            ((node_id, since),) = _hash(group.pop("webhooks")).items()
            if node_id != wallet.hex().encode():
                raise ValueError("its webhooks are another's")
            to_unneeded_since(since)
            for app_name, entry in _hash(group.pop(":webhooks")).items():
                to_webhook(app_name, entry)
        deliveries = group.pop(":deliveries", None)
        if deliveries is not None:
            if deliveries.type != "list" or deliveries.expires_at_ms is None:
                raise ValueError("its deliveries are no list that ends")
            for packed in deliveries.items:
                to_delivery(packed)
        if group:
            raise ValueError("it has a key that it can't have")


def _hash(record: Record, *, expiring: bool = False) -> dict[bytes, bytes]:
    if record.type != "hash" or (record.expires_at_ms is not None) != expiring:
        raise ValueError("a record is of a wrong kind")
    fields = dict(zip(record.items[::2], record.items[1::2], strict=True))
    if 2 * len(fields) != len(record.items):
        raise ValueError("a field comes twice")
    return fields


def _add_once(seen: set[bytes], each: bytes, complaint: str) -> None:
    if each in seen:
        raise ValueError(complaint)
    seen.add(each)


def _ends(record: Record, ends_ms: int) -> None:
    """Its key must go when the record itself says so: our scripts count on both."""
    if record.expires_at_ms != ends_ms:
        raise ValueError("a record ends at another time than it says")
