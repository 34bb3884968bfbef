"""Two wallets and two payers talk with a sidecar while its operator is busy; every packet is recorded."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass

from sidecar.core import messages, offers
from sidecar.core.context import OfferContext
from sidecar.core.limits import TokenBuckets
from sidecar.core.messages import FinalPayload, OfferPaths, OfferPathsRequest, ServeStaticInvoice
from sidecar.core.model import ClientState, StoredInvoice
from sidecar.core.offers import Offer
from sidecar.core.paths import BlindedPath
from tests.core.server_cases import open_own_path
from tests.faults.crossing import UNLIMITED
from tests.harness.fakes import DAY
from tests.harness.node import Node
from tests.harness.payer import make_invoice_request
from tests.harness.wallet import Issued, Wallet
from tests.harness.world import World

NAMES, SLOTS = ("alice", "bob"), (0, 1)
PAST_ALL_PATHS = 366 * DAY


@dataclass(frozen=True, slots=True)
class Deal:
    """An offer of a wallet's, and what was issued for it."""

    context: OfferContext
    wallet: Wallet
    issued: Issued
    offer: Offer


@dataclass(frozen=True, slots=True)
class Packet:
    """One that was recorded: who sent it, and what it says."""

    said: str
    sender: Node
    path_key: bytes
    onion: bytes
    deal: Deal | None = None
    invoice: bytes | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """All that came of a packet: what was kept before and after, by client and slot; who was told what."""

    before: dict[tuple[bytes, int], StoredInvoice]
    after: dict[tuple[bytes, int], StoredInvoice]
    told: list[tuple[Node, FinalPayload]]


class Conversation:
    """Everybody in it. `taken` counts the steps, `ranks` tells in which order the invoices were made."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world, self.chance = world, chance
        self.payers = [world.payer() for _ in range(2)]
        self.strangers = [world.payer() for _ in range(2)]
        self.wallets: dict[str, Wallet] = {}
        self.deals: list[Deal] = []
        self.tape: list[tuple[Packet, Heard]] = []
        self.ranks: dict[bytes, int] = {}
        self.taken: Counter[str] = Counter()
        self._ids: dict[str, bytes] = {}

    async def set_up(self) -> Conversation:
        """Both wallets have an offer in each slot."""
        self.world.service._peers = TokenBuckets(UNLIMITED)
        for name in NAMES:
            self.wallets[name] = await self.world.wallet(name)
            self._ids[name] = (await self.world.store.find_client(name)).client_id
            for slot in SLOTS:
                await self._replace(name, slot)
        return self

    async def step(self) -> None:
        """One thing that somebody does, a moment after the last."""
        self.world.clock.pass_seconds(self.chance.choice((1, 61, 3_600, DAY)))
        name, slot = self.chance.choice(NAMES), self.chance.choice(SLOTS)
        steps = {"ask": 8, "update": 5, "replace": 4, "rotate": 1, "outlive": 1}
        steps |= {"pause": 2, "resume": 2, "revoke": 1, "add_again": 3}
        (step,) = self.chance.choices([*steps], [*steps.values()])
        self.taken[step] += 1
        await self._take(step, name, slot)

    async def _take(self, step: str, name: str, slot: int) -> None:
        revoked = (await self.world.store.find_client(name)).state is ClientState.REVOKED
        match step:
            case "ask":
                await self._ask(self.chance.choice(self.deals), self.chance.choice(self.payers))
            case "update":
                mine = [deal for deal in self.deals if deal.wallet is self.wallets[name]]
                await self._leave(self.chance.choice([mine[-1], *mine]))
            case "replace":
                await self._replace(name, slot)
            case "outlive":
                self.world.clock.pass_seconds(self.chance.choice((2 * DAY, 31 * DAY, PAST_ALL_PATHS)))
            case "pause" | "resume" if not revoked:
                await self.world.pause(name, paused=step == "pause")
            case "rotate" if not revoked:
                client = await self.world.store.rotate_client(self._ids[name])
                self.wallets[name].request_path = self.world.server.request_path(client, os.urandom)
            case "revoke":
                await self.world.store.revoke_client(self._ids[name])
                self.world.clients.forget(self._ids[name])
            case "add_again" if revoked:
                await self._add_again(name)

    async def _add_again(self, name: str) -> None:
        """Under the same name, with the same wallet: another client all the same."""
        await self.world.store.remove_client(self._ids[name])
        client = await self.world.client(name)
        self.world.clients.add(client)
        self._ids[name] = client.client_id
        self.wallets[name].request_path = self.world.server.request_path(client, os.urandom)
        await self._replace(name, 0)

    # --- what they say ------------------------------------------------------------------------------

    async def _replace(self, name: str, slot: int) -> None:
        """Ask for paths, and where some are given leave the first invoice of a newer offer."""
        wallet = self.wallets[name]
        asked = messages.encode(OfferPathsRequest(slot), wallet.family)
        heard = await self._say("offer_paths_request", wallet, wallet.request_path, asked)
        for _, payload in heard.told:
            message, _ = messages.decode(payload.content_type or 0, payload.content)
            assert isinstance(message, OfferPaths)
            assert payload.reply_path is not None
            issued = Issued(slot, message, payload.reply_path)
            context = open_own_path(message.paths[0])
            assert isinstance(context, OfferContext)
            self.deals.append(
                Deal(context, wallet, issued, offers.read_offer_fields(wallet.make_offer(issued)))
            )
            await self._leave(self.deals[-1])

    async def _leave(self, deal: Deal) -> None:
        # Never two in one second: which of them was first could not be told.
        self.world.clock.pass_seconds(1)
        now, lasts = self.world.clock.ms // 1000, self.chance.choice((DAY, 30 * DAY, 300 * DAY))
        invoice = deal.wallet.make_invoice(dict(deal.offer.records), now, lasts)
        self.ranks[invoice] = len(self.ranks)
        served = messages.encode(ServeStaticInvoice(invoice, deal.wallet.forward_path), deal.wallet.family)
        await self._say(
            "serve_static_invoice", deal.wallet, deal.issued.update_path, served, deal=deal, invoice=invoice
        )

    async def _ask(self, deal: Deal, payer: Node) -> None:
        request = (messages.INVOICE_REQUEST, make_invoice_request(deal.offer))
        await self._say("invoice_request", payer, deal.offer.paths[0], request, deal=deal)

    async def _say(
        self,
        said: str,
        sender: Node,
        path: BlindedPath,
        content: tuple[int, bytes],
        *,
        deal: Deal | None = None,
        invoice: bytes | None = None,
    ) -> Heard:
        reply_path = sender.path_to_self(b"answer")
        onion = messages.onion_along(path, os.urandom(32), *content, reply_path)
        packet = Packet(said, sender, path.path_key, onion, deal, invoice)
        heard = await self.play(packet, sender)
        self.tape.append((packet, heard))
        return heard

    # --- and what comes of it -----------------------------------------------------------------------

    def everybody(self) -> list[Node]:
        """All who are connected."""
        return [*self.payers, *self.strangers, *self.wallets.values()]

    async def play(self, packet: Packet, peer: Node) -> Heard:
        """A packet, by whatever peer brings it."""
        before = self.kept()
        self.world.network.arrive(peer.node_id, packet.path_key, packet.onion)
        await self.world.settled()
        told = []
        for node in self.everybody():
            inbox = self.world.network._links[node.node_id].inbox
            while not inbox.empty():
                message = inbox.get_nowait()
                assert message is not None
                told.append((node, node.open(*message).payload))
        return Heard(before, self.kept(), told)

    def kept(self) -> dict[tuple[bytes, int], StoredInvoice]:
        """All invoices that are kept now, by client and slot."""
        self.world.store._expire()
        records = self.world.store._records.items()
        return {
            (client_id, slot): kept for client_id, record in records for slot, kept in record.invoices.items()
        }

    def served(self, client_id: bytes) -> bool:
        """Whether a client is, now."""
        record = self.world.store._records.get(client_id)
        return record is not None and record.client.state is ClientState.ACTIVE
