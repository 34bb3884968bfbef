"""The load: wallets and payers of one LND in a process of their own, over BOLT 8.

A request is made before it is sent, and told by the path_key that its answer comes with.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sidecar.core import bolt12, keys, messages, offers, paths, static_invoices
from sidecar.core.errors import SidecarError
from sidecar.core.model import Family
from sidecar.core.offers import Offer
from sidecar.core.paths import BlindedPath
from sidecar.core.wire import decode_tlvs, encode_tlvs
from tests.bench.children import serve
from tests.harness import bolt8
from tests.harness.link import LinkClosed
from tests.harness.node import Node
from tests.harness.payer import make_invoice_request
from tests.harness.wallet import BLINDEDPAY, Wallet

PAYERS = 8
PATHS = 3
"""Payment paths of an invoice, as LDK's wallets make it: it does not fit into a small packet."""

_QUIET = 1.0
"""Seconds without an answer after which no more are waited for."""
_EPHEMERAL = slice(1, 34)
_FORWARDED = 500
"""Bytes that one payer tells another: the packet is as large as a request's."""


class WrongAnswer(Exception):
    """An answer that is not what was asked for."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is ready to be sent, the path_keys that its answer may come with, and the answer."""

    payer: Node
    path_key: bytes
    onion: bytes
    answer_keys: tuple[bytes, ...]
    content_type: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What came for a request, and who can open it."""

    number: int
    reader: Node
    path_key: bytes
    onion: bytes


@dataclass(slots=True)
class Run:
    """What became of the requests of one run; times by time.perf_counter."""

    asked: list[Asked]
    waiting: dict[bytes, int] = field(default_factory=dict)
    due: dict[int, float] = field(default_factory=dict)
    answered: dict[int, float] = field(default_factory=dict)
    first: Answer | None = None
    last: Answer | None = None
    unknown: int = 0
    forwarded: int = 0
    forwarded_bytes: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Load:
    """All peers of one LND."""

    def __init__(self) -> None:
        self._lnd, self._port = b"", 0
        self._payers: list[Node] = []
        self._wallets: list[Wallet] = []
        self._served: list[tuple[Offer, bytes]] = []
        self._pumps: list[asyncio.Task[None]] = []
        self._run = Run([])

    async def connect(self, told: dict[str, Any]) -> dict[str, Any]:
        """Connect payers and wallets, and have the wallets leave their invoices: one for each of `paths`."""
        self._lnd, self._port = bytes.fromhex(told["node"]), told["port"]
        for encoded in told["paths"]:
            request_path = paths.decode_path_list(bytes.fromhex(encoded))[0]
            node = await self._node()
            wallet = Wallet(node.secret, node.link, self._lnd, request_path, Family.LDK)
            issued = await wallet.issue()
            offer = wallet.make_offer(issued)
            invoice = _large(wallet, offer)
            await wallet.leave_invoice(issued, invoice)
            await wallet.receive_persisted()
            self._wallets.append(wallet)
            self._served.append((offers.decode_offer(wallet.offer_string(offer)), invoice))
        self._payers = [await self._node() for _ in range(PAYERS)]
        self._pumps = [asyncio.create_task(self._receive(payer)) for payer in self._payers]
        self._pumps += [asyncio.create_task(self._take(wallet)) for wallet in self._wallets]
        pairs = zip(self._served, self._wallets, strict=True)
        return {
            "wallets": {offer.paths[0].path_key.hex(): wallet.node_id.hex() for (offer, _), wallet in pairs}
        }

    async def _node(self) -> Node:
        secret = os.urandom(32)
        return Node(secret, await bolt8.connect("127.0.0.1", self._port, self._lnd, secret), self._lnd)

    # --- what is asked --------------------------------------------------------------------------------

    def _make(self, shape: str, number: int) -> Asked:
        payer, reader = (self._payers[each % PAYERS] for each in (number, number + 1))
        if shape == "forward":
            # Through LND, and past whoever follows its messages.
            path, key = self._reply_path(reader, through_lnd=True)
            content_type, content = messages.INVOICE_REQUEST, number.to_bytes(_FORWARDED, "big")
            packet = messages.onion_along(path, os.urandom(32), content_type, content, None)
            return Asked(payer, path.path_key, packet, (key,), content_type, content)
        offer, invoice = self._served[number % len(self._served)]
        reply_path, key = self._reply_path(payer, through_lnd=shape == "private")
        path = offer.paths[0]
        request = make_invoice_request(offer)
        packet = messages.onion_along(path, os.urandom(32), messages.INVOICE_REQUEST, request, reply_path)
        # The sidecar answers along the path; the cheapest answerer, who can't see it, with what it sees.
        either = (key, packet[_EPHEMERAL])
        return Asked(payer, path.path_key, packet, either, messages.STATIC_INVOICE, invoice)

    def _reply_path(self, payer: Node, *, through_lnd: bool) -> tuple[BlindedPath, bytes]:
        """A reply path, and the path_key that the payer gets the answer with."""
        session = os.urandom(32)
        hops = [(payer.node_id, paths.path_id_data(b"payer"))]
        if not through_lnd:
            path = paths.build(session, hops)
            return path, path.path_key
        path = paths.build(session, [(self._lnd, paths.next_hop_data(payer.node_id)), *hops])
        return path, keys.next_point(path.path_key, keys.ecdh(session, self._lnd))

    async def prepare(self, told: dict[str, Any]) -> dict[str, Any]:
        """Make the requests of the next run: `count` of a `shape` (announced, private, forward)."""
        self._run = run = Run([self._make(told["shape"], number) for number in range(told["count"])])
        run.waiting = {key: number for number, each in enumerate(run.asked) for key in each.answer_keys}
        return {}

    # --- what is answered -----------------------------------------------------------------------------

    async def _receive(self, payer: Node) -> None:
        while True:
            try:
                path_key, packet = await payer.link.receive_onion()
            except LinkClosed:
                return
            now, run = time.perf_counter(), self._run
            number = run.waiting.get(path_key)
            if number is None or number in run.answered:
                run.unknown += 1
                continue
            run.answered[number] = now
            run.last = Answer(number, payer, path_key, packet)
            run.first = run.first or run.last
            run.news.set()

    async def _take(self, wallet: Wallet) -> None:
        while True:
            try:
                _, packet = await wallet.link.receive_onion()
            except LinkClosed:
                return
            self._run.forwarded += 1
            self._run.forwarded_bytes = len(packet)
            self._run.news.set()

    def _check(self, answer: Answer) -> None:
        asked = self._run.asked[answer.number]
        try:
            payload = answer.reader.open(answer.path_key, answer.onion).payload
        except SidecarError as error:
            raise WrongAnswer(f"an answer that can't be opened: {error}") from error
        if (payload.content_type, payload.content) != (asked.content_type, asked.content):
            raise WrongAnswer("an answer to something else")

    # --- a run ----------------------------------------------------------------------------------------

    async def run(self, told: dict[str, Any]) -> dict[str, Any]:
        """Send what was prepared: `rate` a second at random moments, or `window` of them at all times.

        A window ends after `seconds`; what is still due is waited for, with `mail` at the wallets as
        well. With `check` the first and the last answer are opened. Raises WrongAnswer.
        """
        run = self._run
        began = time.perf_counter()
        if "window" in told:
            await self._keep_busy(run, told["window"], began + told["seconds"])
        else:
            await self._at_random(run, told["rate"], began)
        ended = time.perf_counter()
        # What it sets off for the wallets is part of its cost, and must not fall into the next run.
        await self._settle(run, len(run.due) if told.get("mail") else 0)
        if told.get("check"):
            for each in (run.first, run.last):
                if each is not None:
                    self._check(each)
        # What came within the run, its first part apart: there the answers had not begun.
        lead = (ended - began) / 5
        seconds = ended - began - lead

        def a_second(moments: Iterable[float]) -> float:
            return sum(began + lead <= at < ended for at in moments) / seconds

        return {
            "sent": len(run.due),
            "answered": len(run.answered),
            "offered_a_second": a_second(run.due.values()),
            "a_second": a_second(run.answered.values()),
            "latencies": [run.answered[number] - run.due[number] for number in run.answered],
            "unknown": run.unknown,
            "forwarded": run.forwarded,
            "bytes": {
                "request": len(run.asked[0].onion),
                "forward": run.forwarded_bytes,
                "answer": 0 if run.last is None else len(run.last.onion),
            },
        }

    async def _send(self, run: Run, number: int, due: float) -> None:
        asked = run.asked[number]
        run.due[number] = due
        await asked.payer.link.send_onion(asked.path_key, asked.onion)

    async def _at_random(self, run: Run, rate: float, began: float) -> None:
        # As strangers come, and the same for all who answer.
        moments, due = random.Random(len(run.asked)), began
        for number in range(len(run.asked)):
            due += moments.expovariate(rate)
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            await self._send(run, number, due)

    async def _keep_busy(self, run: Run, window: int, end: float) -> None:
        for number in range(len(run.asked)):
            while number - len(run.answered) >= window:
                run.news.clear()
                if not await _in_time(run.news, _QUIET):
                    return
            if time.perf_counter() >= end:
                return
            await self._send(run, number, time.perf_counter())

    async def _settle(self, run: Run, forwarded: int) -> None:
        while len(run.answered) < len(run.due) or run.forwarded < forwarded:
            run.news.clear()
            if not await _in_time(run.news, _QUIET):
                return


async def _in_time(news: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        return False
    return True


def _large(wallet: Wallet, offer: dict[int, bytes]) -> bytes:
    """A static invoice with as many paths as LDK's wallets put into it."""
    records = decode_tlvs(wallet.make_invoice(offer))
    for type_, path_id in (
        (static_invoices.INVOICE_PATHS, b"payment"),
        (static_invoices.STATIC_INVOICE_MESSAGE_PATHS, b"held htlc"),
    ):
        more = (paths.encode_path(wallet.path_to_self(path_id)) for _ in range(PATHS))
        records[type_] = b"".join(more)
    records[static_invoices.INVOICE_BLINDEDPAY] = BLINDEDPAY * PATHS
    return encode_tlvs(bolt12.sign(records, "static_invoice", wallet.issuer_secret))


async def main() -> None:
    """Serve until stdin is closed."""
    load = Load()
    await serve({"connect": load.connect, "prepare": load.prepare, "run": load.run})


if __name__ == "__main__":
    asyncio.run(main())
