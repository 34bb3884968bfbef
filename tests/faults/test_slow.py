"""A server that answers late: all of it, in order, and no later than it is told."""

import asyncio
import time
from pathlib import Path

from redis.asyncio import Redis

from tests.faults.slow import Late
from tests.harness.redis_process import RedisProcess

LATE = 0.3


async def test_answers_come_late_and_questions_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """Each answer is as late as it is told at that time; several at once take no longer than one."""
    async with (
        RedisProcess(tmp_path / "redis") as redis,
        Late(tmp_path / "late.sock", redis.socket) as late,
        Redis(unix_socket_path=str(late.socket), protocol=2) as client,
    ):

        async def took() -> float:
            begun = time.monotonic()
            async with client.pipeline(transaction=False) as pipeline:
                for number in range(5):
                    pipeline.echo(str(number))
                assert await pipeline.execute() == [b"%d" % number for number in range(5)]
            return time.monotonic() - begun

        assert await took() < LATE
        late.seconds = LATE
        assert LATE <= await took() < 3 * LATE
        assert max(await asyncio.gather(took(), took())) < 5 * LATE
        late.seconds = 0.0
        assert await took() < LATE
