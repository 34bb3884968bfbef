"""The relay keeps its promises, between plain TCP ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.harness.line import NOTHING, TIMEOUT, Line, Target, Way
from tests.harness.relay import HOST, Relay

# A socket that nobody closed would warn.
pytestmark = pytest.mark.filterwarnings("error")

MUCH = bytes(range(250)) * 80_000
"""More than the sockets between two ends take in when nobody reads."""


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    """A relay and a target."""
    async with Target() as target, Relay(target.port) as relay:
        line = Line(relay, target)
        yield line
        line.hang_up()


def open_files() -> int:
    """How many this process has, sockets included."""
    return len(list(Path("/proc/self/fd").iterdir()))


both_ways = pytest.mark.parametrize("way", ["up", "down"])


# --- passing on ---------------------------------------------------------------------------------


async def test_bytes_flow_both_ways_at_once_and_in_order(line: Line) -> None:
    """Left alone, a relay is a wire; whoever reads late misses nothing."""
    wallet, lnd = await line.pair()
    _, _, heard, answered = await asyncio.gather(
        wallet.send(MUCH), lnd.send(MUCH[::-1]), lnd.receive(len(MUCH)), wallet.receive(len(MUCH))
    )
    assert heard == MUCH
    assert answered == MUCH[::-1]


@both_ways
async def test_an_end_is_passed_on_and_the_other_way_stays_open(line: Line, way: Way) -> None:
    """TCP's half-close: one side has said all, the other has not."""
    speaker, hearer = await line.pair(way)
    await speaker.send(b"all")
    speaker.writer.write_eof()
    assert await hearer.rest() == b"all"
    await hearer.send(b"answer")
    assert await speaker.receive(6) == b"answer"


@both_ways
async def test_a_reset_is_passed_on_as_an_end(line: Line, way: Way) -> None:
    """A process that was killed with bytes unread resets: the other side is told."""
    speaker, hearer = await line.pair(way)
    speaker.reset()
    assert await hearer.rest() == b""


# --- holding ------------------------------------------------------------------------------------


@both_ways
async def test_what_is_held_waits_for_release_and_keeps_its_order(line: Line, way: Way) -> None:
    """Nothing arrives while held; then first what was kept, then what is sent later."""
    speaker, hearer = await line.pair(way)
    line.hold(way)
    await speaker.send(b"one ")
    await line.until_held(way, 4)
    await speaker.send(b"two ")
    await hearer.gets_nothing()
    assert line.held(way) == 8
    line.relay.release()
    await speaker.send(b"three")
    assert await hearer.receive(13) == b"one two three"
    assert line.held(way) == 0


@both_ways
async def test_holding_one_way_leaves_the_other_open(line: Line, way: Way) -> None:
    """hold_up is for what the connecting side sends, hold_down for what LND does."""
    speaker, hearer = await line.pair(way)
    line.hold(way)
    await hearer.send(b"the other way")
    assert await speaker.receive(13) == b"the other way"


async def test_one_way_can_be_released_alone(line: Line) -> None:
    """release_down lets flow what LND sends, and goes on keeping what is for LND."""
    below, above = await line.pair("up")
    line.relay.hold_up()
    line.relay.hold_down()
    await below.send(b"for LND")
    await above.send(b"from LND")
    await line.until_held("up", 7)
    line.relay.release_down()
    assert await below.receive(8) == b"from LND"
    await above.gets_nothing()
    line.relay.release()
    assert await above.receive(7) == b"for LND"


@both_ways
async def test_a_sender_that_is_held_does_not_block(line: Line, way: Way) -> None:
    """All is read and kept, more than sockets take."""
    speaker, hearer = await line.pair(way)
    line.hold(way)
    await speaker.send(MUCH)
    await line.until_held(way, len(MUCH))
    line.relay.release()
    assert await hearer.receive(len(MUCH)) == MUCH


@both_ways
async def test_connections_made_later_are_held_too(line: Line, way: Way) -> None:
    """A wallet that comes back finds the way as it was left."""
    line.hold(way)
    speaker, hearer = await line.pair(way)
    await speaker.send(b"kept")
    await hearer.gets_nothing()
    line.relay.release()
    assert await hearer.receive(4) == b"kept"


@both_ways
async def test_held_bytes_can_be_waited_for(line: Line, way: Way) -> None:
    """Of all connections together; it ends when they are there, and not before."""
    line.hold(way)
    (first, _), (second, _) = await line.pair(way), await line.pair(way)
    await first.send(b"1234")
    waiting = asyncio.create_task(line.until_held(way, 7))
    await line.until_held(way, 4)
    await asyncio.sleep(0)
    assert not waiting.done()
    await second.send(b"567")
    await asyncio.wait_for(waiting, TIMEOUT)


@both_ways
async def test_waiting_for_bytes_that_do_not_come_fails(line: Line, way: Way) -> None:
    """The message says how many there are."""
    speaker, _ = await line.pair(way)
    line.hold(way)
    await speaker.send(b"1234")
    await line.until_held(way, 4)
    with pytest.raises(AssertionError, match=r"^4 of 5 bytes"):
        await line.until_held(way, 5, NOTHING)


@both_ways
@pytest.mark.parametrize("reset", [False, True])
async def test_what_was_sent_before_an_end_is_delivered_before_it(line: Line, way: Way, reset: bool) -> None:
    """Whoever sends and goes has sent: closed or killed, both the bytes and the end come with release."""
    speaker, hearer = await line.pair(way)
    line.hold(way)
    await speaker.send(b"last words")
    await line.until_held(way, 10)
    if reset:
        speaker.reset()
    else:
        speaker.writer.close()
    await hearer.gets_nothing()
    line.relay.release()
    assert await hearer.rest() == b"last words"


@both_ways
async def test_what_was_sent_before_a_reset_outlives_an_answer_to_it(line: Line, way: Way) -> None:
    """That nothing can be written to an end any more takes nothing from what it sent."""
    speaker, hearer = await line.pair(way)
    line.hold(way)
    await speaker.send(b"last words")
    await line.until_held(way, 10)
    speaker.reset()
    await hearer.send(b"what?")
    await hearer.gets_nothing()
    line.relay.release()
    assert await hearer.rest() == b"last words"


@both_ways
async def test_what_is_for_an_end_that_is_gone_is_not_kept(line: Line, way: Way) -> None:
    """Neither what was sent before nor what comes after; other connections are not concerned."""
    speaker, hearer = await line.pair(way)
    await speaker.send(MUCH)
    line.hold(way)
    await line.until_held(way)
    hearer.reset()
    assert await speaker.rest() == b""
    assert line.held(way) == 0
    await speaker.send(b"for nobody")
    speaker, hearer = await line.pair(way)
    await speaker.send(b"hello")
    await line.until_held(way, 5)
    assert line.held(way) == 5
    line.relay.release()
    assert await hearer.receive(5) == b"hello"


# --- silence and cuts ---------------------------------------------------------------------------


@both_ways
async def test_in_silence_nothing_arrives_and_no_end_is_seen(line: Line, way: Way) -> None:
    """Out of reach: neither bytes nor FIN nor RST pass, either way."""
    for last_act in ("nothing", "close", "reset"):
        speaker, hearer = await line.pair(way)
        await speaker.send(b"heard")
        assert await hearer.receive(5) == b"heard"
        line.relay.silence()
        await speaker.send(b"lost")
        if last_act == "close":
            speaker.writer.close()
        elif last_act == "reset":
            speaker.reset()
        await hearer.gets_nothing()
        await hearer.send(b"is anybody there?")


@both_ways
async def test_in_silence_nothing_is_read(line: Line, way: Way) -> None:
    """Bytes pile up on the sender's side, as on a network that is gone."""
    speaker, _ = await line.pair(way)
    line.relay.silence()
    speaker.writer.write(MUCH)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(NOTHING):
            await speaker.writer.drain()
    assert line.held(way) == 0


@both_ways
async def test_in_silence_nothing_is_written_that_was_read_before(line: Line, way: Way) -> None:
    """Neither what is on its way nor what was held: only what had reached the other socket is there."""
    speaker, hearer = await line.pair(way)
    await speaker.send(MUCH)
    line.hold(way)
    await speaker.send(b"kept")
    await line.until_held(way)
    line.relay.silence()
    line.relay.release()
    assert line.held(way) == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(NOTHING):
            await hearer.reader.readexactly(len(MUCH))


async def test_silence_is_for_those_who_are_connected_and_not_for_those_who_come(line: Line) -> None:
    """The phone comes back with a new connection, and the old one stays as dead as it was."""
    old_wallet, old_lnd = await line.pair()
    line.relay.silence()
    wallet, lnd = await line.pair()
    await old_wallet.send(b"old")
    await wallet.send(b"new")
    assert await lnd.receive(3) == b"new"
    await lnd.send(b"answer")
    assert await wallet.receive(6) == b"answer"
    await old_lnd.gets_nothing()


@pytest.mark.parametrize("act", [Relay.silence, Relay.cut])
async def test_a_connection_stands_before_the_relay_has_looked_at_it(
    line: Line, act: Callable[[Relay], None]
) -> None:
    """For the wallet it does as soon as its kernel says so: silence and cuts are for it too."""
    with socket.create_connection((HOST, line.relay.port)) as wallet:
        act(line.relay)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(NOTHING):
                await line.target.end()
        wallet.setblocking(False)
        with pytest.raises(BlockingIOError if act is Relay.silence else ConnectionResetError):
            wallet.recv(1)


@pytest.mark.parametrize("silent", [False, True])
async def test_a_cut_resets_all_connections(line: Line, silent: bool) -> None:
    """Both ends of each are told, silent or not; those who come then are served."""
    ends = [*await line.pair(), *await line.pair()]
    if silent:
        line.relay.silence()
    line.relay.cut()
    for end in ends:
        with pytest.raises(ConnectionResetError):
            await end.rest()
    wallet, lnd = await line.pair()
    await wallet.send(b"hello")
    assert await lnd.receive(5) == b"hello"


async def test_a_cut_loses_what_was_held(line: Line) -> None:
    """It is not delivered to those who come later."""
    line.relay.hold_up()
    wallet, _ = await line.pair()
    await wallet.send(b"lost")
    await line.relay.until_held_up(4)
    line.relay.cut()
    assert line.relay.held_up == 0
    line.relay.release()
    _, lnd = await line.pair()
    await lnd.gets_nothing()


# --- LND away, and the relay's own end ----------------------------------------------------------


async def test_while_lnd_does_not_listen_a_connection_is_closed(line: Line) -> None:
    """A wallet that dials a node in its restart; when LND is back, so is the way."""
    await line.target.stop()
    assert await (await line.dial()).rest() == b""
    await line.target.start()
    wallet, lnd = await line.pair()
    await wallet.send(b"hello")
    assert await lnd.receive(5) == b"hello"


async def test_a_relay_that_is_stopped_leaves_nothing_behind() -> None:
    """No task and no socket, whatever was open, held, silent or half closed; it starts again on its port."""
    async with Target() as target:
        relay = Relay(target.port)
        line = Line(relay, target)
        tasks, files = asyncio.all_tasks(), open_files()
        await relay.start()
        port = relay.port
        silent = await line.pair()
        relay.silence()
        relay.hold_up()
        wallet, _ = held = await line.pair()
        await wallet.send(b"kept")
        await relay.until_held_up(4)
        wallet.writer.write_eof()
        idle = await line.pair()
        await relay.stop()

        with pytest.raises(ConnectionRefusedError):
            await line.dial()
        for end in (*silent, *held, *idle):
            await end.rest()
            end.writer.close()
            await end.writer.wait_closed()
        assert asyncio.all_tasks() == tasks
        assert open_files() == files

        async with relay:
            assert relay.port == port
            relay.release()
            wallet, lnd = await line.pair()
            await wallet.send(b"hello")
            assert await lnd.receive(5) == b"hello"
        line.hang_up()
