"""Receive → peel → load → decide → perform: each onion message, one small task.

No message can end the loop: what is wrong with it is counted by reason, and its sender hears
nothing (save for invoice_error, which core/server.py decides on).
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import structlog

from sidecar.again import Again
from sidecar.allowances import Allowances, Limit
from sidecar.bindings import Bindings
from sidecar.core import keys, messages, offers
from sidecar.core.context import Context, Kind, OfferContext, RequestContext
from sidecar.core.effects import Bind, Effect, Save, Send
from sidecar.core.errors import (
    ContentNotServed,
    NotLeading,
    OperatorError,
    RateLimited,
    Refused,
    Repeated,
    SidecarError,
    Unavailable,
    UnknownScid,
    WrongContext,
)
from sidecar.core.limits import Rate, Recent, TokenBuckets
from sidecar.core.mailbox import Letter, Queue
from sidecar.core.messages import FinalPayload, OfferPathsRequest, ServeStaticInvoice
from sidecar.core.server import Arrival, Entropy, StaticInvoiceServer
from sidecar.courier import Courier
from sidecar.mailroom import Mailroom
from sidecar.peeler import Landed, Passing, Peeler
from sidecar.ports import Clock, Graph, OnionTransport, Received, Store
from sidecar.timings import Measured, Timed, Timings

log = structlog.get_logger(__name__)

MAX_AT_ONCE = 64
"""Messages in work at once; the rest wait in the transport's bounded queue."""

MESSAGE_TIMEOUT = 30
"""Seconds for all that one message causes."""

UNREAD = "other"
"""What a message is called until it is known what it is."""

REPEAT_WINDOW_MS = 60_000
MAX_ANSWERS = 3
"""Answers to one and the same invoice_request within the window; it is forwarded once."""

# LND 0.21's own rate for a peer's onion messages, in bytes; where LND is older we keep it in its stead.
# Its burst is twice that of LND's default, for an LDK wallet renews its ten invoices at once: 328 KB.
PEER_RATE = Rate(per_second=512_000 / 8, burst=524_288)


UNREPEATED = "offer_paths_request"
"""What is answered otherwise each time, as messages.name_of has it."""


def _is_ours(error: SidecarError) -> bool:
    """Whether it says nothing of a message: LND or the store is away for us, or another one leads."""
    return isinstance(error, OperatorError | Unavailable)


class SidecarService:
    """The server at work. `counters` tell what was done and dropped, by reason."""

    def __init__(
        self,
        *,
        server: StaticInvoiceServer,
        peeler: Peeler,
        courier: Courier,
        transport: OnionTransport,
        graph: Graph,
        store: Store,
        bindings: Bindings,
        mailroom: Mailroom,
        allowances: Allowances,
        clock: Clock,
        entropy: Entropy,
        counters: Counter[str],
        timings: Timings,
        problem: Callable[[str, str], None],
        leading: Callable[[], Awaitable[object]] | None = None,
        not_replaced: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`problem` is told a reason and a text of what the operator should know of.

        `leading` raises NotLeading where another sidecar may lead by now, and answer too; `not_replaced`
        only where another one does.
        """
        self.counters = counters
        self._timings = timings
        self._problem = problem
        self._leading = leading
        self._not_replaced = not_replaced
        self._server = server
        self._peeler = peeler
        self._courier = courier
        self._transport = transport
        self._graph = graph
        self._store = store
        self._bindings = bindings
        self._mailroom = mailroom
        self._allowances = allowances
        self._clock = clock
        self._entropy = entropy
        self._peers = TokenBuckets(PEER_RATE)
        self._answered = Recent(REPEAT_WINDOW_MS)
        self._again = Again(clock, MESSAGE_TIMEOUT)
        self._complained: set[tuple[str, str]] = set()

    async def run(
        self,
        stream: AsyncIterator[Received] | None = None,
        dealt_with: Callable[[Received], None] = lambda _: None,
    ) -> None:
        """Serve until cancelled, or until the stream ends: the transport's, where no other is given.

        `dealt_with` is told of each message that was answered, or refused; of none that was dropped
        for reasons of our own: whoever leads next may be able to answer it.
        """
        at_once = asyncio.Semaphore(MAX_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            async for received in stream or self._transport.receive():
                self.counters["received"] += 1
                # A path that was used before is limited before it costs anything: a flood over
                # one offer's path takes no place from the others.
                context = self._peeler.context_of(received.path_key)
                try:
                    self._admit(received, context)
                except Refused as refusal:
                    self.counters[f"dropped.{refusal.reason}"] += 1
                    dealt_with(received)
                    continue
                await at_once.acquire()
                task = tasks.create_task(self._handle(received, dealt_with, limited=context is not None))
                task.add_done_callback(lambda _: at_once.release())

    async def _handle(
        self, received: Received, dealt_with: Callable[[Received], None], *, limited: bool
    ) -> None:
        with self._timings.measure(Timed.MESSAGE, UNREAD) as message:
            done = await self._handle_timed(received, message, limited=limited)
        # A second answer would be another one: nobody gives it, whatever became of ours.
        if done or message.label == UNREPEATED:
            dealt_with(received)

    async def _handle_timed(self, received: Received, message: Measured, *, limited: bool) -> bool:
        """Whether nobody else could do more with it."""
        try:
            async with asyncio.timeout(MESSAGE_TIMEOUT):
                done = await self._process(received, message, limited=limited)
            self._went_through(UNREAD, message.label)
        except SidecarError as error:
            message.outcome = "dropped"
            self.counters[f"dropped.{error.reason}"] += 1
            log.debug("dropped", reason=error.reason, error=str(error))
            self._complain(message.label, error)
            return not _is_ours(error)
        except TimeoutError:
            message.outcome = "failed"
            self.counters["dropped.timeout"] += 1
        except Exception:
            # A fault of ours. The loop goes on: one message must not stop the rest.
            message.outcome = "failed"
            self.counters["dropped.internal-error"] += 1
            log.exception("a message caused a fault in the sidecar; please report it")
        else:
            return done
        return False

    async def _process(self, received: Received, message: Measured, *, limited: bool) -> bool:
        await self._mailroom.heard(received.peer)
        match await self._peeler.peel(received):
            case Landed(context, payload):
                message.label = messages.name_of(payload.content_type)
                if not limited:
                    self._allowances.admit(context, self._came_at(received))
                try:
                    effects = await self._decide(received, context, payload)
                    return await self._perform(effects, received.peer)
                except Refused as refusal:
                    self._allowances.refused(context.client_id, refusal)
                    raise
            case Passing() as passing:
                message.label = "passing"
                return await self._pass_on(received, passing)

    def _admit(self, received: Received, context: Context | None) -> None:
        """Let a message in, or not, before it costs anything. Raises ClientPaused, RateLimited."""
        now_ms = self._came_at(received)
        if context is not None:
            self._allowances.admit(context, now_ms)
        # LND ≥ 0.21 limits its peers itself; for an earlier one we stand in.
        elif self._transport.forwards_for_others and not self._peers.take(
            received.peer, now_ms, len(received.onion)
        ):
            raise RateLimited("over the limit of its peer")

    def _came_at(self, received: Received) -> int:
        """When LND had a message. What was held by one that stood by is as many at once, and no flood."""
        now_ms = self._clock.now_ms()
        return now_ms if received.heard_ms is None else now_ms - self._clock.steady_ms() + received.heard_ms

    def _complain(self, what: str, error: SidecarError) -> None:
        """Say what keeps messages from being served: once, until one of that kind goes through again.

        Of that kind: with a Redis that takes no changes payers are served on, and no wallet is.
        """
        if isinstance(error, NotLeading):
            return  # another one serves them
        if _is_ours(error) and (what, error.reason) not in self._complained:
            self._complained.add((what, error.reason))
            self._problem(error.reason, str(error))
            log.error("messages are lost", what=what, error=str(error))

    def _went_through(self, *kinds: str) -> None:
        self._complained -= {about for about in self._complained if about[0] in kinds}

    # --- for others -------------------------------------------------------------------------------

    async def _pass_on(self, received: Received, passing: Passing) -> bool:
        """A message for another node: forwarded where LND does not, and kept where it is a client's.

        Whether nobody else could do more.
        """
        by_lnd = not self._transport.forwards_for_others
        try:
            node_id = await self._courier.next_node(passing.hop)
        except UnknownScid:
            if not by_lnd:
                raise
            node_id = b""
        if not self._keeps_mail_of(node_id):
            if by_lnd:
                self.counters["passed"] += 1
                return True
            assert passing.packet is not None  # noqa: S101 - in custom mode we peel every message
            await self._courier.forward(node_id, passing.hop, passing.packet)
            self.counters["forwarded"] += 1
            return True
        packet = passing.packet or await self._peeler.next_packet(received)
        letter = Letter(
            queue=Queue.MESSAGES,
            to=node_id,
            path_key=passing.hop.path_key,
            onion=packet,
            sender=received.peer,
            # One and the same packet is kept once, however often it is played again.
            key=keys.sha256(passing.hop.path_key + packet),
            kept_at_ms=self._clock.now_ms(),
        )
        # What was held by one that stood by went on when LND had it, to whoever was there then.
        heard_ms = self._clock.steady_ms() if received.heard_ms is None else received.heard_ms
        passed_on_ms = heard_ms if by_lnd else None
        self.counters[f"{await self._mailroom.take(letter, passed_on_ms=passed_on_ms)}.message"] += 1
        return not self._mailroom.in_memory(node_id)

    def _keeps_mail_of(self, node_id: bytes) -> bool:
        """Whether a node is a client's that is served. A paused one's is to us what any other node is.

        With an LND that forwards by itself it can't be otherwise: what the wallet gets from others while
        it is online does not wait for us. So it is with every LND, and just the mailbox is closed.
        """
        client_id = self._bindings.client_of(node_id)
        if client_id is None or not self._allowances.is_paused(client_id):
            return client_id is not None
        self._allowances.refuse(client_id, Limit.PAUSED)
        return False

    # --- load, decide -----------------------------------------------------------------------------

    async def _decide(self, received: Received, context: Context, payload: FinalPayload) -> list[Effect]:
        content_type = payload.content_type
        if content_type == messages.INVOICE_REQUEST:
            if isinstance(context, OfferContext) and context.kind is Kind.INVOICE_REQUEST:
                return await self._invoice_request(received, context, payload)
            raise WrongContext("an invoice_request over a path that is no offer's")
        if content_type is None or not messages.is_blip66(content_type):
            raise ContentNotServed(f"content type {content_type}")
        message, family = messages.decode(content_type, payload.content)
        now_ms, defaults = self._clock.now_ms(), self._allowances.defaults.client
        match message, context:
            case OfferPathsRequest(slot), RequestContext(client_id):
                loaded = await self._store.load(client_id, slot)
                arrival = Arrival(context, payload.reply_path, loaded, now_ms)
                self._again.check_alike(received)
                if self._leading is not None:
                    await self._leading()
                return self._server.on_offer_paths_request(arrival, message, family, self._entropy, defaults)
            case ServeStaticInvoice(), OfferContext(Kind.SERVE_STATIC_INVOICE, client_id, slot):
                loaded = await self._store.load(client_id, slot)
                self._again.changes(received, context, loaded)
                served = Arrival(context, payload.reply_path, loaded, now_ms)
                admitted = self._server.admit_static_invoice(served, message, family, defaults)
                opened = [await self._peeler.walk(path) for path in admitted.invoice.offer.paths]
                given = message.forward_invoice_request_path
                forward_path = await self._courier.past_lnd(given)
                through_lnd = len(forward_path.hops) < len(given.hops)
                return self._server.on_serve_static_invoice(
                    served, admitted, opened, forward_path, received.peer if through_lnd else None
                )
        raise WrongContext(f"{type(message).__name__} over a path that is not for it")

    async def _invoice_request(
        self, received: Received, context: OfferContext, payload: FinalPayload
    ) -> list[Effect]:
        # The signature first: what no payer signed costs Redis nothing.
        request = offers.read_invoice_request(payload.content)
        loaded = await self._store.load(context.client_id, context.slot)
        loaded = self._again.as_it_was(received, context, loaded)
        # What has ended while the request was held had not ended for who may have answered it.
        arrival = Arrival(context, payload.reply_path, loaded, self._came_at(received))
        key, now_ms = (context.client_id, context.slot, request.signature), self._clock.now_ms()
        times = self._answered.times(key, now_ms)
        # A client could point its forward path back at its own offer: what is repeated
        # is not forwarded, and a loop ends here.
        if times >= MAX_ANSWERS:
            raise Repeated("an invoice_request that was answered often enough")
        effects = self._server.on_invoice_request(arrival, request, forward=times == 0)
        # Noted when it is answered: what was met with silence is forwarded when it is repeated.
        self._answered.count(key, now_ms)
        return effects

    # --- perform ----------------------------------------------------------------------------------

    async def _perform(self, effects: Sequence[Effect], sender: bytes) -> bool:
        """Whether nobody else could do more."""
        for effect in effects:
            if isinstance(effect, Save):
                # What it raises ends the list: nothing is acknowledged that was not kept.
                most = self._allowances.usage()
                await self._store.save(effect.client_id, effect.invoice, effect.mark_until, most)
                self.counters["stored"] += 1
        done, letters = True, []
        async with asyncio.TaskGroup() as beside:
            for effect in effects:
                if isinstance(effect, Send) and effect.mail_key is not None:
                    # It is kept before it goes out, which takes the disk's time: the payer need not wait.
                    letters.append(beside.create_task(self._try(effect, sender)))
                elif not isinstance(effect, Save):
                    done &= await self._try(effect, sender)
        return done and all(letter.result() for letter in letters)

    async def _try(self, effect: Send | Bind, sender: bytes) -> bool:
        what = effect.what if isinstance(effect, Send) else "bind"
        # An invoice_request comes, and another one goes to the wallet: either may work without the other.
        effected = f"{what} to send" if isinstance(effect, Send) else what
        try:
            if isinstance(effect, Bind):
                await self._learn(effect)
                done = True
            else:
                done = await self._send(effect, sender)
            self._went_through(effected)
        except SidecarError as error:
            # An offline wallet must not cost the payer the invoice: the list goes on.
            self.counters[f"unsent.{what}.{error.reason}"] += 1
            log.debug("not sent", what=what, reason=error.reason, error=str(error))
            self._complain(effected, error)
            return not _is_ours(error)
        return done

    async def _send(self, message: Send, sender: bytes) -> bool:
        parcel = await self._courier.pack(message)
        outcome = "sent"
        if message.mail_key is not None and self._keeps_mail_of(parcel.peer):
            letter = Letter(
                queue=Queue.REQUESTS,
                to=parcel.peer,
                path_key=parcel.path_key,
                onion=parcel.onion,
                sender=sender,
                key=message.mail_key,
                kept_at_ms=self._clock.now_ms(),
            )
            outcome = await self._mailroom.take(letter)
        else:
            # As late as can be: who was held up meanwhile might answer otherwise than its successor.
            if self._not_replaced is not None:
                await self._not_replaced()
            await self._courier.send(parcel)
        self.counters[f"{outcome}.{message.what}"] += 1
        return message.mail_key is None or not self._mailroom.in_memory(parcel.peer)

    async def _learn(self, effect: Bind) -> None:
        known = self._bindings.client_of(effect.node_id) is not None
        # A node that announces itself is there for the whole network: its mail is not ours to keep.
        if not known and await self._graph.is_announced(effect.node_id):
            self.counters["unbound.announced"] += 1
            return
        await self._bindings.learn(effect.client_id, effect.node_id)
