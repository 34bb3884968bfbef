"""The core alone: how many invoice_requests a second one core serves, beside LDK's server and the floor.

Contestants take turns, round by round, on the very same questions; a figure is of the processor time of
the thread at work, so that a busy machine costs less, and a ratio is the median over the rounds.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sidecar.core import keys, messages, offers, onion, static_invoices
from sidecar.core.messages import FinalPayload
from tests.bench import questions
from tests.bench.common import quantile
from tests.bench.contestants import Answered, Floor, Sidecar
from tests.bench.ldk_server import SHAPES, LdkServer
from tests.bench.questions import Question, Stored
from tests.core.ldk_recordings import FILES, LdkNode, conversation
from tests.core.making import open_layer

ROUNDS, EACH = 15, 20
"""Rounds, and questions in each: 300 of every case, enough for a p99."""


@dataclass(slots=True)
class Lane:
    """One contestant's times in one case: nanoseconds by round."""

    rounds: list[list[int]] = field(default_factory=list)

    @property
    def all(self) -> list[int]:
        """Of every round."""
        return [each for times in self.rounds for each in times]

    @property
    def per_second(self) -> float:
        """Of the median round."""
        return statistics.median(_rate(times) for times in self.rounds)

    def microseconds(self, percent: int) -> float:
        """A percentile."""
        return quantile(self.all, percent) / 1_000


def _rate(times: Sequence[int]) -> float:
    return 1e9 * len(times) / sum(times)


@dataclass(slots=True)
class Case:
    """Questions of one shape from one source, and who answers them."""

    source: str
    shape: str
    stored: Stored
    ask: Callable[[int], list[Question]]
    ldk: LdkServer | None = None
    lanes: dict[str, Lane] = field(default_factory=dict)
    example: Question | None = None
    """The last question that was asked."""
    bytes_in: dict[str, int] = field(default_factory=dict)
    """The packet that brought it to each contestant: ours comes over two hops, LDK's over one."""
    bytes_out: int = 0

    def ratio(self, one: str, other: str) -> float | None:
        """How many times as many a second as the other: the median over rounds."""
        if one not in self.lanes or other not in self.lanes:
            return None
        pairs = zip(self.lanes[one].rounds, self.lanes[other].rounds, strict=True)
        return statistics.median(_rate(mine) / _rate(theirs) for mine, theirs in pairs)


class WrongAnswer(Exception):
    """A contestant sent something else than what was asked for: what was measured is worth nothing."""


def opened(node: LdkNode, path_key: bytes, packet: bytes) -> FinalPayload:
    """What a node reads, its dummy hops gone along."""
    while True:
        layer, shared = open_layer(node.secret, path_key, packet)
        if isinstance(layer, onion.Final):
            return messages.read_final_payload(layer.payload)
        path_key, packet = keys.next_point(path_key, shared), layer.next_packet


def check(question: Question, stored: Stored, answered: Answered) -> None:
    """Open what went out as the wallet and the payer do. Raises WrongAnswer, and what a bad packet raises."""
    ends = ((answered.forwarded, stored.wallet), (answered.answer, question.payer))
    for (peer, path_key, packet), node in ends:
        if peer != node.node_id:
            raise WrongAnswer(f"what is for the {node.name} went elsewhere")
        payload = opened(node, path_key, packet)
        said = (payload.content_type, payload.content, payload.reply_path)
        is_wallet = node is stored.wallet
        request = (messages.INVOICE_REQUEST, question.content, question.reply_path)
        if said != (request if is_wallet else (messages.STATIC_INVOICE, stored.invoice, None)):
            raise WrongAnswer(f"the {node.name} got something else")
    verified = offers.read_invoice_request(question.content)
    invoice = static_invoices.read_static_invoice(stored.invoice, stored.offer.chains[0])
    static_invoices.check_offer(verified, invoice.offer.records, 0)


def cases(stack: ExitStack, programs: Sequence[Path]) -> Iterator[Case]:
    """Recorded requests, our own on a recorded invoice, and those of each LDK's payers beside its server."""
    for file in FILES:
        talk = conversation(file)
        asked = questions.recorded_questions(talk)
        # Two are recorded, and each is asked again and again: what is remembered of a path would help here.
        ask = partial(_again, asked)
        yield Case("recorded from LDK 0.2.7", shape_of(asked[0]), questions.recorded(talk), ask)
    stored = questions.recorded(conversation(FILES[0]))
    for shape in questions.SHAPES:
        yield Case("made here", shape, stored, partial(questions.made, stored, shape))
    for program in programs:
        ldk = stack.enter_context(LdkServer(program))
        for shape in SHAPES:
            yield Case(f"LDK {ldk.version}", shape, ldk.stored, partial(ldk.make, shape), ldk)


def _again(asked: Sequence[Question], count: int) -> list[Question]:
    return [asked[number % len(asked)] for number in range(count)]


def shape_of(question: Question) -> str:
    """A reply path's shape by its name in questions.SHAPES."""
    path = question.reply_path
    begins = "announced" if path.introduction_node == question.payer.node_id else "private"
    return f"{begins}-{len(path.hops)}"


async def run(found: Sequence[Case], rounds: int = ROUNDS, each: int = EACH) -> None:
    """Measure all cases, a round of each after the other; one round before them warms up.

    Every last answer of a round is checked: raises WrongAnswer.
    """
    sidecars = [(Sidecar(case.stored), Sidecar(case.stored, signer_in_process=True)) for case in found]
    for ours in sidecars:
        for one in ours:
            await one.start()
    for number in range(rounds + 1):
        for case, ours in zip(found, sidecars, strict=True):
            measured = await _round(case, ours, each, backwards=number % 2 == 1)
            if number:
                for name, times in measured.items():
                    case.lanes.setdefault(name, Lane()).rounds.append(times)


async def _round(
    case: Case, ours: tuple[Sidecar, Sidecar], each: int, *, backwards: bool
) -> dict[str, list[int]]:
    """Every contestant on the same questions; whose turn is first changes from round to round."""
    # One more, that each answers first: it is not counted.
    asked, measured = case.ask(each + 1), dict[str, list[int]]()
    case.example = asked[-1]
    sizes: set[tuple[int, int]] = set()
    names = ["sidecar", "floor", "sidecar+signer", *(["ldk"] if case.ldk else [])]
    for name in reversed(names) if backwards else names:
        if name == "floor":
            measured[name] = Floor(case.stored).serve(asked[1:])
            continue
        if name == "ldk" and case.ldk is not None:
            batch = case.ldk.serve()
            times, answered = batch.times[1:], batch.answered
            case.bytes_in[name] = case.ldk.packet_bytes
        else:
            sidecar = ours[name == "sidecar+signer"]
            received = [sidecar.receive(question) for question in asked]
            case.bytes_in[name] = len(received[-1].onion)
            times, answered = await sidecar.serve(received)
        check(asked[-1], case.stored, answered)
        sizes.add((len(answered.forwarded[2]), len(answered.answer[2])))
        measured[name] = times
    # Like against like: nobody does with a small packet what another needs a large one for.
    if len(sizes) != 1:
        raise WrongAnswer(f"packets of {sorted(sizes)} bytes for one and the same request")
    ((_, case.bytes_out),) = sizes
    return measured


def measure(programs: Sequence[Path], rounds: int = ROUNDS, each: int = EACH) -> list[Case]:
    """All cases, measured."""
    with ExitStack() as stack:
        found = list(cases(stack, programs))
        asyncio.run(run(found, rounds, each))
    return found
