"""Promise 4, with LND: restarted, locked, upgraded, given new credentials, silently dead; a peer gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import NewRow
from tests.faults.ledger import Row
from tests.faults.locked import LockableLnd
from tests.faults.promises import BACK
from tests.faults.scene import Scene, scene
from tests.harness import bolt8
from tests.harness.beside import URIS
from tests.harness.lnd_process import LndProcess
from tests.harness.relay import HOST, Relay
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.sim_lnd import SimulatedLnd

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

GONE_SECONDS = 32
"""Longer than it takes to notice: then it is new connections that go nowhere."""

BACK_AGAIN = "LND streams again"


@dataclass(frozen=True, slots=True)
class Behind:
    """An LND's files, with its gRPC behind a relay."""

    host: str
    tls_path: Path
    macaroon_path: Path


@asynccontextmanager
async def beside(folder: Path, lnd: LndProcess) -> AsyncIterator[tuple[Scene, Path]]:
    """The scene beside a real LND, and the macaroon that the sidecar was given."""
    macaroon = (await lnd.bake(URIS[lnd.kind])).rename(folder / "sidecar.macaroon")

    def process(options: Sequence[str]) -> SidecarProcess:
        return SidecarProcess(folder / "sidecar", lnd, macaroon=macaroon, options=options)

    async with scene(folder, lnd, process) as made:
        yield made, macaroon


async def test_lnd_is_locked(tmp_path: Path, promise: NewRow, rounds: int) -> None:
    """It was restarted, and nobody gives its password for five seconds."""
    row = promise(BACK, "LND locked for 5 s")
    async with LockableLnd("native", tmp_path / "lnd", wallet=False) as lnd:
        await lnd.make_wallet()
        async with beside(tmp_path, lnd) as (made, _):
            for _ in range(max(1, rounds // 5)):
                await made.tell_sleeper()
                await made.at_work()
                away = time.monotonic()
                await lnd.restart()
                await asyncio.sleep(5)
                made.check_silence(row, away + 1)
                lifted = time.monotonic()
                await lnd.unlock()
                own = time.monotonic() - lifted
                await made.served_again(row, lifted)
                note_own(row, own)
                await made.check(row, said=["LND is locked: unlock its wallet", BACK_AGAIN])


async def restarted(made: Scene, lnd: LndProcess, row: Row) -> None:
    """In order, as by an operator; all peers have to connect again."""
    await made.tell_sleeper()
    await made.at_work()
    down = time.monotonic()
    await lnd.restart()
    own = time.monotonic() - down
    await made.served_again(row, down)
    note_own(row, own)
    await made.check(row, said=[BACK_AGAIN])


def note_own(row: Row, seconds: float) -> None:
    """How much of the last outage was LND's own, where it is the longest so far."""
    if row.outages[-1] == max(row.outages):
        row.note = f"{seconds:.2f} s of it LND's own start"


async def test_lnd_is_restarted_and_upgraded(tmp_path: Path, promise: NewRow, rounds: int) -> None:
    """0.20 becomes 0.21 under the running sidecar, on the same data; offers and letters stay good."""
    for number in range(max(1, rounds // 5)):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with LndProcess("custom", folder / "lnd") as lnd, beside(folder, lnd) as (made, macaroon):
            await restarted(made, lnd, promise(BACK, "LND 0.20 restarted"))
            await made.tell_sleeper()
            await made.at_work()
            down = time.monotonic()
            await lnd.restart("native")
            own = time.monotonic() - down
            # Each kind has its own calls, and so its own macaroon.
            (await lnd.bake(URIS["native"])).replace(macaroon)
            row = promise(BACK, "LND upgraded 0.20 → 0.21")
            await made.served_again(row, down)
            note_own(row, own)
            await made.check(row, said=["LND has changed its kind", "native onion messages"])
            await restarted(made, lnd, promise(BACK, "LND 0.21 restarted"))


async def test_lnds_credentials_are_rotated(tmp_path: Path, promise: NewRow, rounds: int) -> None:
    """Another certificate and another root of all macaroons, brought a moment after LND's restart."""
    row = promise(BACK, "credentials of LND rotated, the macaroon 2 s late")
    async with LndProcess("native", tmp_path / "lnd") as lnd, beside(tmp_path, lnd) as (made, macaroon):
        for _ in range(max(1, rounds // 5)):
            await made.tell_sleeper()
            await made.at_work()
            await lnd.stop()
            for old in (lnd.tls_path, lnd.tls_path.with_suffix(".key")):
                old.unlink()
            for old in lnd.macaroon_path.parent.glob("*macaroon*"):
                old.unlink()
            await lnd.start()
            fresh = await lnd.bake(URIS["native"])
            await asyncio.sleep(2)
            lifted = time.monotonic()
            fresh.replace(macaroon)
            await made.served_again(row, lifted)
            await made.check(row, said=[BACK_AGAIN])


@asynccontextmanager
async def behind_a_relay(folder: Path) -> AsyncIterator[tuple[Scene, Relay]]:
    """The scene with a simulated LND whose gRPC can fall silent."""
    async with SimulatedLnd(folder / "lnd") as lnd, Relay(int(lnd.host.rpartition(":")[2])) as relay:
        files = Behind(f"{HOST}:{relay.port}", lnd.tls_path, lnd.macaroon_path)

        def process(options: Sequence[str]) -> SidecarProcess:
            return SidecarProcess(folder / "sidecar", files, options=options)

        async with scene(folder, lnd, process) as made:
            yield made, relay


async def test_lnds_stream_is_silently_dead(tmp_path: Path, promise: NewRow, rounds: int) -> None:
    """The connection stands, and nothing passes any more: no end, no reset. New ones are as ever."""
    row = promise(BACK, "LND's connection silently dead, until noticed")
    async with behind_a_relay(tmp_path) as (made, relay):
        for _ in range(max(1, rounds // 5)):
            await made.tell_sleeper()
            await made.at_work()
            dead = time.monotonic()
            relay.silence()
            await made.served_again(row, dead)
            await made.check(row, said=[BACK_AGAIN])


async def test_the_network_to_lnd_is_gone(tmp_path: Path, promise: NewRow, rounds: int) -> None:
    """Nothing passes, on new connections neither, for long enough that it was noticed."""
    row = promise(BACK, f"network to LND gone for {GONE_SECONDS} s")
    async with behind_a_relay(tmp_path) as (made, relay):
        for _ in range(max(1, rounds // 5)):
            await made.tell_sleeper()
            await made.at_work()
            dead = time.monotonic()
            relay.hold_up()
            relay.hold_down()
            await asyncio.sleep(GONE_SECONDS)
            made.check_silence(row, dead)
            # What was sent into it is lost, on connections that were begun meanwhile as well.
            relay.silence()
            relay.release()
            lifted = time.monotonic()
            await made.served_again(row, lifted)
            await made.check(row, said=[BACK_AGAIN])


async def test_a_peer_is_gone_in_mid_send(tmp_path: Path, promise: NewRow, rounds: int) -> None:
    """A wallet vanishes while it is handed its letters: it gets them when it is there again."""
    row = promise(BACK, "peer gone in mid-send")
    async with (
        LndProcess("native", tmp_path / "lnd") as lnd,
        Relay(lnd.p2p_port) as relay,
        beside(tmp_path, lnd) as (made, _),
    ):
        for _ in range(max(1, rounds // 5)):
            for _ in range(5):
                await made.tell_sleeper()
            await made.at_work()
            wallet = made.sleeper.wallet
            link = await bolt8.connect(HOST, relay.port, lnd.node_id, wallet.secret)
            relay.silence()
            gone = time.monotonic()
            await made.asking.answered(gone)
            relay.cut()
            await link.close()
            await made.served_again(row, gone)
            await made.check(row)
