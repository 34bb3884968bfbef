"""Every context × every message × with a reply path or without: that one's invoice, or nothing."""

from __future__ import annotations

import pytest

from sidecar.core import messages
from sidecar.core.context import Kind, OfferContext, RequestContext
from sidecar.core.messages import FinalPayload, OfferPaths, StaticInvoicePersisted
from sidecar.core.wire import decode_tlvs
from tests.core.server_cases import open_own_path
from tests.faults.conftest import NewRow
from tests.faults.crossing import SLOTS, WITHOUT_LIMITS, Age, Content, Crossing, Outcome, Route, Standing
from tests.faults.promises import OWN
from tests.harness.world import World

pytestmark = pytest.mark.faults

SILENCE: tuple[object, ...] = ()
GONE = (Standing.REVOKED, Standing.REMOVED)


def expected(route: Route, content: Content, *, reply: bool) -> tuple[object, ...]:
    """What is to come of it: by bLIP 66, in the words of `seen`."""
    if not route.believed or not reply or route.standing is Standing.PAUSED:
        return SILENCE
    if content.slot is not None and isinstance(route.context, RequestContext):
        right = route.standing is Standing.SERVED and route.generations == 0 and content.slot < SLOTS
        return ("offer_paths", content.family, route.context.client_id, content.slot) if right else SILENCE
    if content.deal is None or route.deal is None or not isinstance(route.context, OfferContext):
        return SILENCE
    if content.family is not None:
        if route.context.kind is not Kind.SERVE_STATIC_INVOICE or route.standing is not Standing.SERVED:
            return SILENCE
        # Only over its own path, while that is good, and not once a newer offer has its slot.
        right = content.deal is route.deal and not route.deal.expired and route.deal.age is not Age.OLDER
        return ("persisted", content.family, content.deal.invoice) if right else SILENCE
    if route.context.kind is not Kind.INVOICE_REQUEST:
        return SILENCE
    if route.standing in GONE:
        return ("invoice_error", "This offer is not served any more.")
    if route.deal.expired:
        return ("invoice_error", "This offer has expired.")
    if route.deal.age is Age.OLDER:
        return ("invoice_error", "This offer was replaced by a newer one.")
    # Of the newer offer there is no invoice yet.
    right = content.deal is route.deal and route.deal.age is Age.SAME
    return ("static_invoice", content.deal.invoice, content.content) if right else SILENCE


def seen(crossing: Crossing, route: Route, outcome: Outcome) -> tuple[object, ...]:
    """What came of it, in the same words; all that does not fit in, as it is."""
    sender, wallet = crossing.sender.node_id, crossing.wallets[route.standing.value].node_id
    match [(node, payload.content_type, payload) for node, payload in outcome.told], outcome.stored:
        case [], []:
            return SILENCE
        case [(one, messages.INVOICE_ERROR, error), (other, messages.INVOICE_ERROR, _)], [] if (
            one == other == sender
        ):
            return ("invoice_error", decode_tlvs(error.content)[messages.INVOICE_ERROR_TEXT].decode())
        case [
            (to, messages.STATIC_INVOICE, invoice),
            (by, messages.INVOICE_REQUEST, request),
        ], [] if (to, by) == (sender, wallet):
            return ("static_invoice", invoice.content, request.content)
        case [(to, _, payload)], [*stored] if to == sender:
            return _of_blip66(payload, stored)
    return ("something else", [(node.hex()[:8], payload.content_type) for node, payload in outcome.told])


def _of_blip66(payload: FinalPayload, stored: list[bytes]) -> tuple[object, ...]:
    assert payload.content_type is not None
    if not messages.is_blip66(payload.content_type):
        return ("another type", payload.content_type)
    message, family = messages.decode(payload.content_type, payload.content)
    match message, stored:
        case StaticInvoicePersisted(), [invoice]:
            return ("persisted", family, invoice)
        case OfferPaths((path,), _), [] if payload.reply_path is not None:
            ends = open_own_path(path), open_own_path(payload.reply_path)
            match ends:
                case (
                    OfferContext(Kind.INVOICE_REQUEST, client_id, slot, tag),
                    OfferContext(Kind.SERVE_STATIC_INVOICE, also, same_slot, same_tag),
                ) if (client_id, slot, tag) == (also, same_slot, same_tag):
                    return ("offer_paths", family, client_id, slot)
    return ("something else", message, stored)


def _told(result: tuple[object, ...]) -> str:
    """For people: whole invoices are by their ends, which are signatures."""
    return " ".join(each[-8:].hex() if isinstance(each, bytes) else str(each) for each in result) or "silence"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("native", [True, False], ids=["native", "custom"])
async def test_every_message_over_every_path_gets_its_own_or_nothing(promise: NewRow, native: bool) -> None:
    """Exhaustive: each cell answers with exactly whose invoice, or silence, or invoice_error."""
    row = promise(OWN, "every context × every message")
    async with World(native=native, limits=WITHOUT_LIMITS) as world:
        crossing = await Crossing(world).set_up()
        answered = set()
        for route in crossing.routes():
            for content in crossing.contents(route.standing):
                for reply in (True, False) if native else (True,):
                    outcome = await crossing.send(route, content, reply=reply)
                    found, right = seen(crossing, route, outcome), expected(route, content, reply=reply)
                    answered.add(right[:1])
                    row.check(
                        found == right, f"{content.name} over {route}: {_told(found)}, not {_told(right)}"
                    )
        faults = [name for name in world.counters if "internal" in name or "timeout" in name]
        row.check(not faults, f"{faults}")
    # The table is worth nothing where all is silence.
    assert answered == {
        (),
        *((each,) for each in ("invoice_error", "offer_paths", "persisted", "static_invoice")),
    }
