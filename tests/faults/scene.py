"""The product at work while something breaks: who is served without a break, and who sleeps through it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.core import webhooks
from sidecar.core.model import Family
from tests.faults.callers import PATIENCE, Asking, Renewing
from tests.faults.ledger import Row
from tests.harness.payer import Payer
from tests.harness.push_service import PushService
from tests.harness.sidecar_process import CommandFailed, SidecarProcess
from tests.harness.stage import Lnd, Stage
from tests.harness.waking import check_signature, push_options
from tests.harness.wallet import Wallet, set_webhook

HELD = 72
"""held_htlc_available: what a payer sends once."""

LINES = 30
"""Log lines that one fault may cause, whatever it is; a line for each message would be hundreds."""

LONGEST = 30.0
"""Seconds that any outage may last after its cause is gone."""

GROWTH = 64 * 1024 * 1024
"""Bytes that the sidecar may grow by in a fault; 16 MB of letters are kept in memory on purpose."""

COOLDOWN = 1
"""Seconds between two wake-ups of a client."""

_OPTIONS = (f"--lsps5.cooldown={COOLDOWN}s", "--limits.stores_per_minute=6000", "--limits.offer_rate=100")


@dataclass(slots=True)
class Sleeper:
    """A client that is away; its push service is told, and letters wait for it."""

    wallet: Wallet
    push: PushService
    held: set[bytes] = field(default_factory=set)

    async def send_held(self, payer: Payer) -> None:
        """A payer tells it of an HTLC."""
        name = b"held" + os.urandom(8)
        await payer.send_along(self.wallet.path_to_self(name), HELD, b"")
        self.held.add(name)

    async def woken(self, lnd_node_id: bytes) -> None:
        """Its push service is told, in LND's name."""
        notification = await self.push.next(PATIENCE)
        assert check_signature(lnd_node_id, notification) == webhooks.ONION_MESSAGE_INCOMING

    async def got_all(self, stage: Stage) -> bool:
        """Whether it connects, and gets all that was sent to it, before it leaves again."""
        self.wallet.link = await stage.connect(self.wallet.secret)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while self.held:
                    self.held.discard((await self.wallet.receive()).path_id or b"")
        await self.wallet.link.close()
        return not self.held

    async def nothing_unread(self) -> None:
        """What its push service was told so far is old."""
        while self.push.count():
            await self.push.next()


@dataclass(slots=True)
class Scene:
    """Who plays. `asking` and `renewing` go on through the fault, `sleeper` and `dozer` are away."""

    stage: Stage
    sidecar: SidecarProcess
    renewing: Renewing
    asking: Asking
    sleeper: Sleeper
    dozer: Sleeper
    _lines: int = 0
    _pid: int = 0
    _memory: int = 0
    _answers: int = 0

    async def at_work(self) -> None:
        """A renewal is acknowledged and a payer answered; from here on counts what the fault brings."""
        now = time.monotonic()
        await self.renewing.answered(now)
        await self.asking.answered(now)
        self._lines, self._pid = len(self.sidecar.lines), self.sidecar.pid
        self._memory, self._answers = _resident(self._pid), len(self.asking.heard)

    async def tell_sleeper(self) -> None:
        """An HTLC is told to the one that sleeps: while the fault lasts, if LND is there."""
        payer = await self.stage.payer()
        await self.sleeper.send_held(payer)
        # What a payer sends behind it is dealt with behind it; LND has it when it answers a hang-up.
        await asyncio.sleep(0.2)
        await payer.link.close()

    def said(self, text: str) -> int:
        """How many log lines since the fault began have that text."""
        return sum(text in line for line in self.sidecar.lines[self._lines :])

    def check_silence(self, row: Row, since: float, *, answers: bool = False) -> None:
        """From then on until now nothing was acknowledged; nor answered, unless a read is no lie.

        Nobody was refused, in any case.
        """
        acknowledged = [heard for heard in self.renewing.heard if heard.sent_at >= since]
        row.check(not acknowledged, f"acknowledged what can't be kept: {acknowledged[:3]}")
        answered = [heard for heard in self.asking.heard if heard.sent_at >= since]
        row.check(answers or not answered, f"answered while nothing can be read: {answered[:3]}")

    async def served_again(self, row: Row, lifted: float) -> None:
        """A payer is answered, and how long that took."""
        await self.asking.answered(lifted)
        _note_outage(row, lifted)

    async def renewed_again(self, row: Row, lifted: float) -> None:
        """A renewal is acknowledged, where payers were answered all the time, and how long that took."""
        await self.renewing.answered(lifted)
        _note_outage(row, lifted)

    async def check(self, row: Row, *, said: Sequence[str] = ()) -> None:
        """All goes on without a hand, and nothing was lost; `said`: what the log must say once."""
        now = time.monotonic()
        await self.renewing.answered(now)
        await self._check_admin(row)
        await self._check_sleepers(row)
        for heard in self.asking.heard[self._answers :]:
            newest = self.renewing.newest(heard.sent_at)
            row.check(
                heard.invoice is not None and heard.invoice >= newest,
                f"invoice {heard.invoice} for request {heard.number}, and {newest} was acknowledged",
            )
        row.check(self.sidecar.running and self.sidecar.pid == self._pid, "the sidecar is another process")
        lines = self.sidecar.lines[self._lines :]
        row.check(len(lines) <= LINES, f"{len(lines)} log lines: {lines[:3]} … {lines[-3:]}")
        for text in said:
            row.check(self.said(text) == 1, f"{text!r} was said {self.said(text)} times: {lines}")
        row.check(not self.said("Traceback"), f"a traceback: {lines}")
        grown = _resident(self._pid) - self._memory
        row.check(grown < GROWTH, f"it grew by {grown:,} bytes")

    async def _check_admin(self, row: Row) -> None:
        try:
            await self.sidecar.command("client", "add", f"late-{os.urandom(4).hex()}")
        except CommandFailed as error:
            row.violated(f"a client can't be added: {error}")
        row.tried()

    async def _check_sleepers(self, row: Row) -> None:
        payer = await self.stage.payer()
        await self.dozer.nothing_unread()
        await self.dozer.send_held(payer)
        await self.dozer.woken(self.stage.lnd.node_id)
        await payer.link.close()
        for sleeper in (self.sleeper, self.dozer):
            row.check(await sleeper.got_all(self.stage), f"{len(sleeper.held)} letters did not arrive")


@asynccontextmanager
async def scene(
    folder: Path, lnd: Lnd, process: Callable[[Sequence[str]], SidecarProcess], host: str = "127.0.0.1"
) -> AsyncIterator[Scene]:
    """All on one LND; `process` makes the sidecar with these options and its own.

    `host`: how webhooks call the push services.
    """
    pushes = [PushService(_made(folder / f"push-{number}")) for number in range(2)]
    async with pushes[0], pushes[1]:
        options = [*_OPTIONS, *_push_options(pushes)]
        async with process(options) as sidecar:
            stage = Stage(lnd)
            renewing = await Renewing.of(stage, await stage.wallet(sidecar, "renewing"))
            async with renewing:
                await renewing.answered(0)
                asking = Asking(stage, await stage.payer(), renewing.offer, renewing.first_at)
                async with asking:
                    sleeper, dozer = await asyncio.gather(
                        _asleep(stage, sidecar, "sleeper", pushes[0], host),
                        _asleep(stage, sidecar, "dozer", pushes[1], host),
                    )
                    made = Scene(stage, sidecar, renewing, asking, sleeper, dozer)
                    await made.at_work()
                    yield made


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _push_options(pushes: Sequence[PushService]) -> list[str]:
    ca_file = pushes[0].ca_file.with_name("both.pem")
    ca_file.write_bytes(b"".join(push.ca_file.read_bytes() for push in pushes))
    options = push_options(pushes[0])
    ports = ",".join(str(push.port) for push in pushes)
    return [options[0], f"--lsps5.ports={ports}", f"--lsps5.cafile={ca_file}"]


async def _asleep(stage: Stage, sidecar: SidecarProcess, name: str, push: PushService, host: str) -> Sleeper:
    wallet = await stage.wallet(sidecar, name, Family.LDK)
    await wallet.set_up()
    await set_webhook(wallet.link, name, push.url(host=host))
    assert check_signature(stage.lnd.node_id, await push.next(PATIENCE)) == webhooks.WEBHOOK_REGISTERED
    await wallet.link.close()
    return Sleeper(wallet, push)


def _note_outage(row: Row, lifted: float) -> None:
    row.was_out(lifted)
    row.check(row.outages[-1] <= LONGEST, f"out for {row.outages[-1]:.1f} s")


def _resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no memory")
