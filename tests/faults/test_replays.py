"""A whole conversation is played again: in any order, by anyone, whatever came after it.

An old serve_static_invoice brings no old invoice back, and an old request gets what a new one would.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sidecar.core import messages
from sidecar.core.messages import FinalPayload, OfferPaths, StaticInvoicePersisted
from tests.faults.conftest import NewRow
from tests.faults.conversation import Conversation, Heard, Packet
from tests.faults.crossing import WITHOUT_LIMITS
from tests.faults.ledger import Row
from tests.faults.promises import OWN
from tests.harness.node import Node
from tests.harness.world import World

pytestmark = pytest.mark.faults

STEPS = 40
"""Of one conversation."""

REPLAYS = 10
"""Packets that are played again after each step."""


class Judge:
    """Looks at all that comes of a packet, said for the first time or again. `answers` counts what it saw."""

    def __init__(self, conversation: Conversation, row: Row, what: str) -> None:
        self._all, self._row, self._what = conversation, row, what
        self._newest: dict[tuple[bytes, int], int] = {}
        self.answers: Counter[str] = Counter()

    def judge(self, packet: Packet, heard: Heard) -> None:
        """One packet: a try."""
        self._row.tried()
        for (client_id, slot), kept in heard.after.items():
            rank = self._all.ranks[kept.invoice]
            if rank < self._newest.get((client_id, slot), 0):
                self._violated(packet, f"invoice {rank} is back in slot {slot}")
            self._newest[client_id, slot] = rank
            if kept != heard.before.get((client_id, slot)) and not self._all.served(client_id):
                self._violated(packet, "an invoice was kept of a client that is not served")
        for node, payload in heard.told:
            if (wrong := self._wrong(packet, heard, node, payload)) is not None:
                self._violated(packet, wrong)

    def _wrong(self, packet: Packet, heard: Heard, node: Node, payload: FinalPayload) -> str | None:
        """What is wrong with a message that somebody got; None where nothing is."""
        type_, deal = payload.content_type, packet.deal
        assert type_ is not None
        self.answers[messages.name_of(type_) if type_ != messages.STATIC_INVOICE else "static_invoice"] += 1
        if packet.said == "invoice_request":
            assert deal is not None
            if type_ == messages.INVOICE_ERROR:
                return None if node is packet.sender else "another one was told of an error"
            kept = heard.before.get((deal.context.client_id, deal.context.slot))
            if kept is None or kept.tag != deal.context.tag or not self._all.served(deal.context.client_id):
                return f"an offer without an invoice was served: type {type_}"
            if type_ == messages.STATIC_INVOICE and node is packet.sender:
                return None if payload.content == kept.invoice else "not that offer's invoice"
            right = type_ == messages.INVOICE_REQUEST and node is deal.wallet
            return None if right else f"{type_} to one whom it is not for"
        if not messages.is_blip66(type_) or node is not packet.sender:
            return f"{type_} to one whom it is not for"
        message, _ = messages.decode(type_, payload.content)
        if isinstance(message, OfferPaths) and packet.said == "offer_paths_request":
            return None
        invoices = [kept.invoice for kept in heard.after.values()]
        right = isinstance(message, StaticInvoicePersisted) and packet.invoice in invoices
        return None if right else "acknowledged, and not kept"

    def _violated(self, packet: Packet, what: str) -> None:
        taken = f"{self._what}, after {dict(self._all.taken)}"
        self._row.violated(f"{packet.said} {packet.path_key.hex()[:8]}: {what}; {taken}")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("native", [True, False], ids=["native", "custom"])
async def test_a_conversation_played_again_gets_nothing_that_is_not_its_own_now(
    promise: NewRow, rounds: int, native: bool
) -> None:
    """After replacement, rotation, pause, revocation, removal and a new start, and the end of everything."""
    row = promise(OWN, "recorded packets, played again")
    answers: Counter[str] = Counter()
    for seed in range(rounds):
        chance = random.Random(seed)
        async with World(native=native, limits=WITHOUT_LIMITS) as world:
            conversation = await Conversation(world, chance).set_up()
            judge, judged = Judge(conversation, row, f"seed {seed}, native {native}"), 0
            for step in range(STEPS + 1):
                if step:
                    await conversation.step()
                for said, heard in conversation.tape[judged:]:
                    judge.judge(said, heard)
                judged = len(conversation.tape)
                for _ in range(REPLAYS):
                    packet, _ = chance.choice(conversation.tape)
                    judge.judge(
                        packet, await conversation.play(packet, chance.choice(conversation.everybody()))
                    )
            assert not [name for name in world.counters if "internal" in name or "timeout" in name]
        answers += judge.answers
    assert set(answers) >= {"static_invoice", "invoice_request", "other"}
