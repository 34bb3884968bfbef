"""What clients may use in tests, as an operator's settings would say it."""

from sidecar.allowances import Defaults
from sidecar.core.limits import Rate
from sidecar.core.model import Limits

DAY = 86_400

LIMITS = Limits(
    slots=10,
    bytes=131_072,
    ttl=365 * DAY,
    requests_per_second=50,
    requests_burst=50,
    stores_per_minute=60,
    offer_paths_per_minute=60,
    mailbox_letters=200,
    mailbox_bytes=4_194_304,
)
"""What holds where a client has no limit of its own: the settings' defaults."""

DEFAULTS = Defaults(
    client=LIMITS, offer=Rate(per_second=10, burst=5), mail_ttl=7 * DAY, mail_total_bytes=1 << 29
)
