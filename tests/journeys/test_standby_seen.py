"""What operators see of two sidecars beside one LND, and which of the two does what they ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.harness.asserting import until
from tests.harness.ports import free_port
from tests.harness.redis_process import RedisProcess
from tests.harness.sidecar_process import CommandFailed, SidecarProcess
from tests.harness.sim_lnd import SimulatedLnd


@dataclass(frozen=True, slots=True)
class Two:
    """Sidecars on one LND and one Redis: the left one was there first."""

    left: SidecarProcess
    right: SidecarProcess
    ports: dict[str, int]

    async def leads(self, name: str) -> int:
        """What its metrics say of that."""
        url = f"http://127.0.0.1:{self.ports[name]}/metrics"
        async with aiohttp.request("GET", url) as answer:
            lines = (await answer.text()).splitlines()
        (line,) = (line for line in lines if line.startswith("sidecar_leads "))
        return int(float(line.split()[1]))


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    """Both at work."""
    ports = {name: free_port() for name in ("left", "right")}
    async with SimulatedLnd(tmp_path / "lnd") as lnd, RedisProcess(tmp_path / "redis") as redis:

        def sidecar(name: str) -> SidecarProcess:
            options = [
                f"--redis.url={redis.url}",
                "--lease.time=2s",
                f"--lease.name={name}",
                f"--http.listen=127.0.0.1:{ports[name]}",
            ]
            return SidecarProcess(tmp_path / name, lnd, options=options)

        async with sidecar("left") as left:
            right = sidecar("right")
            await right.start(wait=False)
            try:
                await right.line(lambda line: "standing by: left leads" in line)
                yield Two(left, right, ports)
            finally:
                await right.stop()


@pytest.mark.slow
async def test_who_leads_is_told_wherever_one_looks(two: Two) -> None:
    """By either of them: the status, the metrics, the doctor."""
    told = [await sidecar.json("status") for sidecar in (two.left, two.right)]
    assert [(each["role"], each["leader"]) for each in told] == [("leads", "left"), ("stands by", "left")]
    assert [await two.leads(name) for name in ("left", "right")] == [1, 0]
    with pytest.raises(CommandFailed) as failed:  # of an LND that it can't look at here
        await two.right.command("doctor")
    assert "it stands by: left leads, and takes changes" in failed.value.args[2]


async def test_changes_are_for_the_one_that_leads(two: Two) -> None:
    """The other one names it, and makes them itself once it leads."""
    with pytest.raises(CommandFailed) as refused:
        await two.right.command("client", "add", "alice")
    code, said, _ = refused.value.args
    assert (code, "left leads, ask that one" in said) == (1, True)
    await two.left.command("client", "add", "alice")
    assert [each["name"] for each in (await two.right.json("client", "list"))["clients"]] == ["alice"]
    await two.left.stop()

    async def leads() -> bool:
        return await two.leads("right") == 1

    await until(leads)
    assert (await two.right.json("status"))["leader"] == "right"
    await two.right.command("client", "pause", "alice")
