"""What strace printed is read as it is, and never makes a change seem safe earlier than it was."""

import asyncio
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.harness.redis_process import RedisProcess
from tests.harness.strace import Appended, Done, Traced, read_calls

FILE = Path("/data/a.aof")


def hexed(text: bytes) -> str:
    """As `strace -xx` prints it."""
    return "".join(f"\\x{byte:02x}" for byte in text)


def call(name: str, data: str = "") -> str:
    """A call on the file, up to its result."""
    return f"{name}(8<{hexed(bytes(FILE))}>{data})"


def calls(*lines: str) -> list[Done]:
    """What these lines tell."""
    return [*read_calls(f"{line}\n" for line in lines)]


def test_a_call_is_read_with_its_times() -> None:
    """Its begin, its end, its file, and what was written of what it was given."""
    written = call("write", f', "{hexed(b"abc")}", 3')
    (one, other) = calls(
        f"77   100.500000 {written} = 2 <0.250000>",
        f"78   101.000000 {call('fdatasync')} = 0 (DELAYED) <0.030000>",
    )
    assert one == Done("write", str(FILE), 100.5, 100.75, b"ab")
    assert other == Done("fdatasync", str(FILE), 101.0, 101.03, b"")


def test_a_call_that_another_thread_interrupts_is_put_together() -> None:
    """It began where its first half stands, and ended no earlier than its second."""
    begun = call("fdatasync").removesuffix(")")
    (other, one) = calls(
        f"78   100.000000 {begun} <unfinished ...>",
        f"77   100.010000 {call('fsync')} = 0 <0.001000>",
        "78   100.500000 <... fdatasync resumed>) = 0 <0.499000>",
    )
    assert (one.call, one.began, one.ended) == ("fdatasync", 100.0, 100.5)
    assert other.call == "fsync"


def test_what_failed_or_is_of_no_file_is_passed_over() -> None:
    """Errors, signals, ends and a call cut off by the end."""
    assert not calls(
        f"77   100.000000 {call('fsync')} = -1 EIO (Input/output error) <0.001000>",
        "77   100.100000 --- SIGTERM {si_signo=SIGTERM} ---",
        f"78   100.200000 {call('fsync').removesuffix(')')} <unfinished ...>",
        "77   100.300000 +++ killed by SIGKILL +++",
        "nonsense",
    )


@pytest.mark.parametrize(
    ("syncs", "safe_at"),
    [
        ([], None),
        ([(0.5, 0.9)], None),  # before the write
        ([(1.05, 1.5)], None),  # begun during the write
        ([(1.05, 1.5), (1.2, 1.4), (3.0, 3.1)], 1.4),
    ],
)
def test_a_change_is_safe_when_an_fsync_behind_it_ends(
    syncs: list[tuple[float, float]], safe_at: float | None
) -> None:
    """One that began when all of it was written, and not before."""
    writes = [Done("write", str(FILE), 0.1, 0.2, b"abc"), Done("write", str(FILE), 1.0, 1.1, b"def")]
    done = [Done("fdatasync", str(FILE), *times, b"") for times in syncs]
    appended = Appended([*writes, *done], FILE)
    assert appended.data == b"abcdef"
    assert appended.safe_at(4) == appended.safe_at(6) == safe_at


def test_other_files_do_not_count() -> None:
    """An fsync of another one makes nothing safe."""
    other = Done("fsync", "/data/b.aof", 3.0, 3.1, b"")
    appended = Appended([Done("write", str(FILE), 1.0, 1.1, b"abc"), other], FILE)
    assert appended.safe_at(3) is None


@pytest.mark.parametrize(("appendfsync", "safe"), [("always", True), ("no", False)])
async def test_a_real_redis_is_seen_to_fsync_or_not(tmp_path: Path, appendfsync: str, safe: bool) -> None:
    """What it answered is on disk by then with `always`, and is not with `no`."""
    async with Traced(tmp_path / "trace", 0.05) as traced:
        redis = RedisProcess(tmp_path / "redis", appendfsync=appendfsync, under=traced.command)
        async with redis, Redis(unix_socket_path=str(redis.socket)) as client:
            file = redis.aof
            await client.set("key", b"a value of its own")
            answered_at = time.time()
            await redis.kill()
        await asyncio.wait_for(traced.stop(), 10)
        appended = Appended(traced.calls(), file)
        assert b"a value of its own" in appended.data
        safe_at = appended.safe_at(len(appended.data))
        assert (safe_at is not None and safe_at <= answered_at) == safe
