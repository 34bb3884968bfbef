"""A sidecar whose wall clock is moved while it runs goes by it, and is the same sidecar otherwise."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.harness import shifted
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.stage import Stage

HOUR = 3_600


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A simulated LND."""
    async with SimulatedLnd(tmp_path / "lnd") as lnd:
        yield Stage(lnd)


@pytest.fixture
async def sidecar(stage: Stage, tmp_path: Path) -> AsyncIterator[SidecarProcess]:
    """`sidecar serve` on it, with a clock that can be moved."""
    async with SidecarProcess(tmp_path / "sidecar", stage.lnd, clock=tmp_path / "clock") as process:
        yield process


async def dates(stage: Stage, sidecar: SidecarProcess, name: str) -> tuple[int, int, int]:
    """What the server dates when a wallet comes and leaves an invoice: client, invoice, log line."""
    wallet = await stage.wallet(sidecar, name)
    await wallet.set_up()
    shown = await sidecar.json("client", "show", name)
    logged = await sidecar.line(lambda line: "AddClient" in line and f"client={name}" in line)
    at = datetime.fromisoformat(logged.partition(" ")[0])
    return shown["created_at"], shown["slots"][0]["stored_at"], int(at.timestamp())


async def run(*arguments: str) -> tuple[int | None, bytes, bytes]:
    """Run `python …`; its exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, stdout, stderr


@pytest.mark.slow
@pytest.mark.parametrize("moved", [HOUR, -HOUR])
async def test_the_running_sidecar_goes_by_the_clock_that_is_moved(
    stage: Stage, sidecar: SidecarProcess, moved: int
) -> None:
    """What it dates is dated by the machine's clock until the move, and by the moved one at once after it."""
    for name, seconds in (("before", 0), ("after", moved), ("again", 0)):
        sidecar.set_clock(seconds)
        earliest = int(time.time()) + seconds
        dated = await dates(stage, sidecar, name)
        latest = int(time.time()) + seconds
        assert all(earliest <= each <= latest for each in dated)


async def test_the_commands_go_by_the_same_clock(stage: Stage, sidecar: SidecarProcess) -> None:
    """They run on the server's machine: what was stored just now is not hours old to them."""
    sidecar.set_clock(3 * HOUR)
    await (await stage.wallet(sidecar, "alice")).set_up()
    shown = await sidecar.command("client", "show", "alice")
    assert "hours" not in shown


@pytest.mark.slow
async def test_a_moved_clock_outlives_the_sidecar(stage: Stage, sidecar: SidecarProcess) -> None:
    """A restart does not set the machine's clock."""
    sidecar.set_clock(HOUR)
    assert await sidecar.stop() == 0
    assert sidecar.lines[-1].endswith("stopped")
    await sidecar.start()
    assert min(await dates(stage, sidecar, "alice")) >= int(time.time()) + HOUR - 60


@pytest.mark.parametrize("arguments", [["--version"], ["client", "frobnicate"], ["client", "list"]])
async def test_it_is_the_sidecar_command(arguments: list[str], tmp_path: Path) -> None:
    """The same exit code, stdout and stderr, for what works, for what can't be read and for what fails."""
    shifted.set_clock(tmp_path / "clock", HOUR)
    arguments = [*arguments, f"--datadir={tmp_path}"] if arguments[0] == "client" else arguments
    plain = await run("-m", "sidecar", *arguments)
    assert await run("-m", "tests.harness.shifted", str(tmp_path / "clock"), *arguments) == plain


@pytest.mark.parametrize("moved", [HOUR, -HOUR])
@pytest.mark.parametrize("kind", ["grpc", "grpc.aio"])
async def test_deadlines_of_grpc_are_what_they_were(kind: str, moved: int, tmp_path: Path) -> None:
    """gRPC's core does not see the moved clock: a second's wait is neither over at once nor an hour long."""
    shifted.set_clock(tmp_path / "clock", moved)
    call = f"""if True:
        import asyncio, inspect, pathlib, time
        from tests.harness import shifted
        shifted.shift(pathlib.Path({str(tmp_path / "clock")!r}))
        import {kind}
        async def call():
            channel = {kind}.insecure_channel("unix:{tmp_path}/nobody")
            answer = channel.unary_unary("/a/b")(b"", timeout=1, wait_for_ready=True)
            if inspect.isawaitable(answer):
                await answer
        began = time.monotonic()
        try:
            asyncio.run(call())
        except grpc.RpcError as error:
            print(error.code().name, time.monotonic() - began > 0.9)
        """
    async with asyncio.timeout(20):
        assert await run("-c", call) == (0, b"DEADLINE_EXCEEDED True\n", b"")
