"""Records as the admin service says them, and what it is told of a client's limits."""

import re
from collections.abc import Iterable, Mapping

from sidecar.core.diagnosis import Finding
from sidecar.core.errors import BadName, ConfigError
from sidecar.core.mailbox import LetterNote, MailUse
from sidecar.core.model import (
    CLIENT_ID_HEX,
    CLIENT_ID_SIZE,
    MAX_A_MINUTE,
    MAX_BURST,
    MAX_BYTES,
    MAX_LETTERS,
    MAX_RATE,
    MAX_SLOTS,
    MAX_TTL,
    MIN_TTL,
    Client,
    ClientState,
    Limits,
    Quota,
    StoredInvoice,
    Usage,
)
from sidecar.rpc.sidecar.v1 import admin_pb2
from sidecar.timings import Seconds

_STATES = {
    ClientState.ACTIVE: admin_pb2.CLIENT_STATE_ACTIVE,
    ClientState.PAUSED: admin_pb2.CLIENT_STATE_PAUSED,
    ClientState.REVOKED: admin_pb2.CLIENT_STATE_REVOKED,
}

_BOUNDS: Mapping[str, tuple[int, int]] = {
    "slots": (1, MAX_SLOTS),
    "bytes": (1, MAX_BYTES),
    "ttl": (MIN_TTL, MAX_TTL),
    "requests_burst": (1, MAX_BURST),
    "stores_per_minute": (1, MAX_A_MINUTE),
    "offer_paths_per_minute": (1, MAX_A_MINUTE),
    "mailbox_letters": (1, MAX_LETTERS),
    "mailbox_bytes": (1, MAX_BYTES),
}

# Of all fields, one says its unit in the API and not in the model.
_FIELDS = {
    each.name: "ttl" if each.name == "ttl_seconds" else each.name
    for each in admin_pb2.Quota.DESCRIPTOR.fields
}


_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")

# --- limits -------------------------------------------------------------------------------------


def check_quota(quota: Quota) -> None:
    """Refuse a quota that no client should have; its ttl is in seconds. Raises ConfigError."""
    own = quota.own()
    for name, (low, high) in _BOUNDS.items():
        if name in own and not low <= own[name] <= high:
            unit = " seconds" if name == "ttl" else ""
            raise ConfigError(f"{name}: {own[name]} is not allowed: give {low} to {high}{unit}")
    rate = quota.requests_per_second
    # Written so that it refuses what is no number, too.
    if rate is not None and not 0 < rate <= MAX_RATE:
        raise ConfigError(
            f"requests_per_second: {rate} is not allowed: give a number above 0 and up to {MAX_RATE}"
        )


def read_quota(message: admin_pb2.Quota) -> Quota:
    """The limits that a message sets. Raises ConfigError for one out of bounds."""
    # What is 0 and was said is in the list: it is out of bounds, not the server's default.
    quota = Quota(**{_FIELDS[field.name]: value for field, value in message.ListFields()})
    check_quota(quota)
    return quota


def read_reset(names: Iterable[str], changes: Quota) -> list[str]:
    """The limits that shall be the server's again. Raises ConfigError for what is none, or is set too."""
    found = []
    for each in names:
        if each not in _FIELDS:
            raise ConfigError(f"reset: {each!r} is no limit of a client: give one of {', '.join(_FIELDS)}")
        if _FIELDS[each] in changes.own():
            raise ConfigError(f"reset: {each} can't be set and reset at once")
        found.append(_FIELDS[each])
    return found


def quota_message(quota: Quota | Limits) -> admin_pb2.Quota:
    """Limits; a field that is None is absent."""
    values = ((field, getattr(quota, name)) for field, name in _FIELDS.items())
    return admin_pb2.Quota(**{field: value for field, value in values if value is not None})


# --- names ------------------------------------------------------------------------------------


def check_name(name: str) -> None:
    """Refuse a client name that is not 1 to 64 of a-z A-Z 0-9 . _ -, or could be an id. Raises BadName."""
    if not _NAME.fullmatch(name):
        raise BadName(f"{name!r} is no name: give 1 to 64 of a-z, A-Z, 0-9, `.`, `_` and `-`")
    if CLIENT_ID_HEX.fullmatch(name):
        # Else `client remove` could mean either of two clients.
        raise BadName(f"{name!r} is no name: {2 * CLIENT_ID_SIZE} hex digits are a client id")


# --- records ------------------------------------------------------------------------------------


def client_message(
    client: Client, usage: Usage, mail: MailUse | None, limits: Limits, refused: Mapping[str, int]
) -> admin_pb2.Client:
    """A client with what it uses, what holds for it, and what it was refused."""
    return admin_pb2.Client(
        client_id=client.client_id.hex(),
        name=client.name,
        state=_STATES[client.state],
        generation=client.generation,
        created_at=client.created_at,
        quota=quota_message(client.quota),
        slots_used=usage.slots,
        bytes_used=usage.bytes,
        node_id=client.node_id.hex() if client.node_id else "",
        bound_by=client.bound_by.value if client.bound_by else "",
        timestamps=client.timestamps.value if client.timestamps else "",
        mail_letters=mail.letters if mail else 0,
        mail_bytes=mail.bytes if mail else 0,
        limits=quota_message(limits),
        refused=refused,
    )


def slot_message(invoice: StoredInvoice) -> admin_pb2.Slot:
    """A slot whose invoice is stored."""
    return admin_pb2.Slot(
        slot=invoice.slot,
        expires_at=invoice.expires_at,
        invoice_created_at=invoice.created_at,
        stored_at=invoice.stored_at,
        bytes=invoice.size,
        family=invoice.family.value,
    )


def letter_message(letter: LetterNote) -> admin_pb2.MailLetter:
    """A letter that waits."""
    return admin_pb2.MailLetter(
        number=letter.number,
        queue=letter.queue.value,
        bytes=letter.size,
        kept_at_ms=letter.kept_at_ms,
        sender=letter.sender.hex(),
    )


def finding_message(finding: Finding) -> admin_pb2.Finding:
    """A line of the doctor."""
    return admin_pb2.Finding(
        name=finding.name, level=finding.level.value, seen=_text(finding.seen), advice=_text(finding.advice)
    )


def _text(text: str) -> str:
    # Names of files may hold bytes that are no Unicode, which can't be sent.
    return text.encode(errors="replace").decode()


def seconds_message(seconds: Seconds) -> admin_pb2.Seconds:
    """How long something took."""
    return admin_pb2.Seconds(
        name=seconds.name,
        count=seconds.count,
        sum=seconds.total,
        bounds=seconds.bounds,
        buckets=seconds.buckets,
    )
