"""Webhooks: what a client registers, what is sent to it, and what became of that (bLIP 55, LSPS5).

Times are seconds since the epoch; where a name says `_ms`, milliseconds.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from ipaddress import AddressValueError, IPv6Address

from sidecar.core.errors import BadWebhook
from sidecar.core.model import TimestampForm

WEBHOOK_REGISTERED = "lsps5.webhook_registered"
ONION_MESSAGE_INCOMING = "lsps5.onion_message_incoming"

REMEMBERED = 7 * 86_400
"""Seconds that webhooks are kept at least when nothing speaks for them any more.

"If there are currently no channels with this client, for at least 7 days." (bLIP 55)
"""

MAX_APP_NAME = 64
"""Bytes of an app_name as it is written in JSON. "The `app_name` can be up to 64 bytes" (bLIP 55)."""

MAX_URL = 1024
"""Characters of a URL. "The `webhook` can be up to 1024 ASCII characters" (bLIP 55)."""

HTTPS_PORT = 443

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE | re.ASCII)

# RFC 1738, section 5: hosts are names whose last label starts with a letter, or four numbers. So no
# name is one of the other spellings of an address (2130706433, 0x7f.1, 127.1). Lengths are DNS's.
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_TOP_LABEL = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
# RFC 3986 adds addresses of IPv6, in brackets.
_HOST = rf"(?:{_LABEL}\.)*{_TOP_LABEL}|(?:{_BYTE}\.){{3}}{_BYTE}|\[[0-9a-f:.]{{2,45}}\]"
# What may stand behind the host unescaped; RFC 3986 adds the ~, and / and ? within a query.
_CHARACTER = r"(?:[a-z0-9$_.+!*'(),;:@&=~/-]|%[0-9a-f]{2})"
_HTTPS_URL = re.compile(
    rf"https://(?P<host>{_HOST})(?::(?P<port>0|[1-9][0-9]{{0,4}}))?(?:/{_CHARACTER}*)?(?:\?(?:{_CHARACTER}|\?)*)?",
    # ASCII: else [a-z] without case takes ſ and the Kelvin sign for letters.
    re.IGNORECASE | re.ASCII,
)
_MAX_HOST = 253

_MILLISECOND = timedelta(milliseconds=1)


class WebhookTooLong(BadWebhook):
    """`too_long`: "Either `app_name` or `webhook` or both are too long." (bLIP 55)."""

    reason = "webhook-too-long"


class BadUrl(BadWebhook):
    """`url_parse_error`: "The `webhook` failed to parse as a valid URL as per RFC 1738." (bLIP 55)."""

    reason = "bad-url"


class UnsupportedProtocol(BadWebhook):
    """`unsupported_protocol`: "The `webhook` is not a protocol that the LSP supports." (bLIP 55)."""

    reason = "unsupported-protocol"


@dataclass(frozen=True, slots=True)
class WebhookState:
    """How a webhook fares.

    `announced`: webhook_registered has reached it, and other notifications may go there.
    `failures`: notifications in a row that did not arrive. `paused_until`: set when it keeps failing.
    `paused`: by the operator, until the operator says otherwise.
    """

    announced: bool = False
    failures: int = 0
    paused_until: int = 0
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where one app of a node wants to be notified. `url` holds secrets: it goes into no log."""

    app_name: str
    url: str = field(repr=False)
    registered_at: int
    state: WebhookState = WebhookState()


@dataclass(frozen=True, slots=True)
class WebhookSet:
    """What became of a registration: how many webhooks the node has now, and whether it was there already."""

    count: int
    no_change: bool


@dataclass(frozen=True, slots=True)
class Delivery:
    """One notification as it went: `outcome` is `ok` or the slug of what went wrong; `tries` at least 1."""

    at_ms: int
    app_name: str
    method: str
    outcome: str
    tries: int


# --- what may be registered ---------------------------------------------------------------------


def check_app_name(name: str, raw_size: int) -> None:
    """Refuse an app_name of more than 64 bytes, `raw_size` being counted as it is written in JSON.

    bLIP 55 allows all else, nothing at all and control characters too: `printable` is for showing
    them. Raises WebhookTooLong, and BadWebhook for what is no Unicode text.
    """
    if raw_size > MAX_APP_NAME:
        raise WebhookTooLong(f"the app_name has more than {MAX_APP_NAME} bytes")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise BadWebhook("the app_name is no Unicode text") from None


def check_url(url: str, raw_size: int, ports: Collection[int]) -> None:
    """Refuse what is no https URL of at most 1024 ASCII characters, or goes to a port not in `ports`.

    RFC 1738's grammar with RFC 3986's additions, and nothing that two readers could read differently.
    A fragment is refused, not cut off: it is no part of a URL (RFC 1738), nothing would be done with
    it, and a wallet that sends one should hear so. To which addresses a host may lead is seen when it
    is dialled. Raises WebhookTooLong, BadUrl, UnsupportedProtocol; no text of theirs holds the URL.
    """
    if raw_size > MAX_URL or len(url) > MAX_URL:
        raise WebhookTooLong(f"the webhook has more than {MAX_URL} characters")
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise BadUrl("the webhook is no URL: it does not start with https://")
    if scheme[1].lower() != "https":
        raise UnsupportedProtocol("the webhook is not https")
    # "No user name or password is allowed." (RFC 1738, section 3.3): the grammar has no place for them.
    parts = _HTTPS_URL.fullmatch(url)
    if parts is None:
        raise BadUrl("the webhook is no URL by RFC 1738 (for https: no user, no fragment, ASCII only)")
    if len(parts["host"]) > _MAX_HOST:
        raise BadUrl("the webhook's host is longer than a name can be")
    if parts["host"].startswith("["):
        try:
            IPv6Address(parts["host"][1:-1])
        except AddressValueError:
            raise BadUrl("the webhook's host is no address of IPv6") from None
    port = HTTPS_PORT if parts["port"] is None else int(parts["port"])
    if not 0 < port <= 65_535:
        raise BadUrl("the webhook's port is not within 1 to 65535")
    if port not in ports:
        allowed = ", ".join(map(str, sorted(ports)))
        raise UnsupportedProtocol(f"the webhook's port {port} is not allowed here; allowed: {allowed}")


def host_of(url: str) -> str:
    """The host and port of a URL, in small letters: all of it that may be logged."""
    parts = _HTTPS_URL.fullmatch(url)
    if parts is None:
        return "?"
    return str(parts["host"] if parts["port"] is None else f"{parts['host']}:{parts['port']}").lower()


def printable(name: str) -> str:
    """A name as a log or terminal may show it: what would not be seen, or act there, is escaped."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in name
    )


# --- notifications ------------------------------------------------------------------------------


def notification_body(method: str) -> bytes:
    """The body of a notification that has no parameters, byte for byte as LDK's validator writes it."""
    return f'{{"jsonrpc":"2.0","method":"{method}","params":{{}}}}'.encode("ascii")


def timestamp(at_ms: int, form: TimestampForm) -> str:
    """The time of a notification, in UTC.

    Z: "in ISO8601 date format `YYYY-MM-DDThh:mm:ss.uuuZ`" (bLIP 55). OFFSET: as LDK's validator prints
    what it has read before it checks the signature: `+00:00`, and no fraction when that is 0.
    """
    at = datetime.fromtimestamp(at_ms // 1000, UTC) + at_ms % 1000 * _MILLISECOND
    if form is TimestampForm.Z:
        return at.strftime("%Y-%m-%dT%H:%M:%S") + f".{at_ms % 1000:03}Z"
    return at.isoformat(timespec="milliseconds" if at_ms % 1000 else "seconds")


def signed_text(timestamp: str, body: bytes) -> bytes:
    """What the node signs: "`${body}` is the exact and complete JSON serialization" (bLIP 55)."""
    at = timestamp.encode("ascii")
    return b"LSPS5: DO NOT SIGN THIS MESSAGE MANUALLY: LSP: At " + at + b" I notify " + body


# --- how long webhooks are kept -----------------------------------------------------------------


class Fate(Enum):
    """What becomes of a node's webhooks when it is looked whether anything speaks for them."""

    KEEP = "keep"
    MARK = "mark"
    UNMARK = "unmark"
    FORGET = "forget"


def fate(since: int | None, *, needed: bool, now: int) -> Fate:
    """What to do with webhooks for which nothing has spoken since `since` (None: not marked so).

    "If there is at least one open channel with this client, indefinitely remember them, until for at
    least 7 days after the last channel with the client is closed." (bLIP 55). The seven days count from
    when it is first seen that nothing speaks for them, which is never too early.
    """
    if needed:
        return Fate.KEEP if since is None else Fate.UNMARK
    # A clock that was stepped back: count from now.
    if since is None or since > now:
        return Fate.MARK
    return Fate.FORGET if now - since >= REMEMBERED else Fate.KEEP
