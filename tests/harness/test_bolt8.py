"""BOLT 8 as the tests speak it: the BOLT's own vectors (appendix A), and both our sides together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from sidecar.core import keys
from tests.harness.bolt8 import PING, PONG, Bolt8Link, Listener, connect, listen
from tests.harness.link import Link, LinkClosed
from tests.harness.noise import CipherState, Handshake, HandshakeError, new_secret

INITIATOR, INITIATOR_EPHEMERAL = b"\x11" * 32, b"\x12" * 32
RESPONDER, RESPONDER_EPHEMERAL = b"\x21" * 32, b"\x22" * 32
ACT_ONE = bytes.fromhex(
    "00036360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f70df6086551151f58b8afe6c195782c6a"
)
ACT_TWO = bytes.fromhex(
    "0002466d7fcae563e5cb09a0d1870bb580344804617879a14949cf22285f1bae3f276e2470b93aac583c9ef6eafca3f730ae"
)
ACT_THREE = bytes.fromhex(
    "00b9e3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa22355361aa02e55a8fc28fef5bd6d71ad0c38"
    "228dc68b1c466263b47fdf31e560e139ba"
)
CHAINING_KEY = bytes.fromhex("919219dbb2920afa8db80f9a51787a840bcf111ed8d588caf9ab4be716e42b01")
SENDING_KEY = bytes.fromhex("969ab31b4d288cedf6218839b27a3e2140827047f2c0f01bf5c04435d43511a9")
# What "hello" becomes as the n-th message; the key is rotated before 500 and before 1000.
PACKETS = {
    0: "cf2b30ddf0cf3f80e7c35a6e6730b59fe802473180f396d88a8fb0db8cbcf25d2f214cf9ea1d95",
    1: "72887022101f0b6753e0c7de21657d35a4cb2a1f5cde2650528bbc8f837d0f0d7ad833b1a256a1",
    500: "178cb9d7387190fa34db9c2d50027d21793c9bc2d40b1e14dcf30ebeeeb220f48364f7a4c68bf8",
    501: "1b186c57d44eb6de4c057c49940d79bb838a145cb528d6e8fd26dbe50a60ca2c104b56b60e45bd",
    1000: "4a2f3cc3b5e78ddb83dcb426d9863d9d9a723b0337c89dd0b005d89f8d3c05c52b76b29b740f09",
    1001: "2ecd8c8a5629d0d02ab457a0fdd0f7b90a192cd46be5ecb6ca570bfc5e268338b1a16cf4ef2d36",
}


def initiator() -> Handshake:
    """Who dials in the vectors."""
    return Handshake(INITIATOR, keys.public_key(RESPONDER), INITIATOR_EPHEMERAL)


def responder() -> Handshake:
    """Who is dialled in the vectors."""
    return Handshake(RESPONDER, keys.public_key(RESPONDER), RESPONDER_EPHEMERAL)


def altered(act: bytes, position: int, byte: int) -> bytes:
    """Put another byte into an act."""
    return act[:position] + bytes([byte]) + act[position + 1 :]


def test_initiator_writes_the_acts_of_the_vector() -> None:
    """transport-initiator successful handshake."""
    side = initiator()
    assert side.write_act_one() == ACT_ONE
    side.read_act_two(ACT_TWO)
    act, sender, _ = side.write_act_three()
    assert act == ACT_THREE
    assert sender.encrypt(b"hello").hex() == PACKETS[0]


def test_responder_writes_the_acts_of_the_vector() -> None:
    """transport-responder successful handshake."""
    side = responder()
    side.read_act_one(ACT_ONE)
    assert side.write_act_two() == ACT_TWO
    node_id, _, receiver = side.read_act_three(ACT_THREE)
    assert node_id == keys.public_key(INITIATOR)
    packet = bytes.fromhex(PACKETS[0])
    assert receiver.decrypt(packet[:18]) == b"\0\5"
    assert receiver.decrypt(packet[18:]) == b"hello"


# Bytes that the BOLT's failure vectors change in an act: version, key serialization, MAC.
FAULTS = [pytest.param(0, 1, id="version"), pytest.param(1, 4, id="key"), pytest.param(-1, 0, id="mac")]


@pytest.mark.parametrize(("position", "byte"), FAULTS)
def test_responder_refuses_a_faulty_act_one(position: int, byte: int) -> None:
    """transport-responder act1 bad version, bad key serialization, bad MAC."""
    with pytest.raises(HandshakeError):
        responder().read_act_one(altered(ACT_ONE, position % 50, byte))


@pytest.mark.parametrize(("position", "byte"), FAULTS)
def test_initiator_refuses_a_faulty_act_two(position: int, byte: int) -> None:
    """transport-initiator act2 bad version, bad key serialization, bad MAC."""
    side = initiator()
    side.write_act_one()
    with pytest.raises(HandshakeError):
        side.read_act_two(altered(ACT_TWO, position % 50, byte))


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(altered(ACT_THREE, 0, 1), id="version"),
        pytest.param(altered(ACT_THREE, 1, 0xC9), id="ciphertext"),
        pytest.param(altered(ACT_THREE, 65, 0xBB), id="mac"),
        pytest.param(
            bytes.fromhex(
                "00bfe3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa2235536ad09a8ee351870c2bb7f78b754a2"
                "6c6cef79a98d25139c856d7efd252c2ae73c"
            ),
            id="key",
        ),
    ],
)
def test_responder_refuses_a_faulty_act_three(act: bytes) -> None:
    """transport-responder act3 bad version, bad MAC for ciphertext, bad MAC, bad rs."""
    side = responder()
    side.read_act_one(ACT_ONE)
    side.write_act_two()
    with pytest.raises(HandshakeError):
        side.read_act_three(act)


def test_keys_rotate_every_500_messages() -> None:
    """transport-message test: two rotations."""
    cipher = CipherState(CHAINING_KEY, SENDING_KEY)
    packets = [cipher.encrypt(b"hello").hex() for _ in range(1002)]
    assert {number: packets[number] for number in PACKETS} == PACKETS


def test_no_message_is_longer_than_65535_bytes() -> None:
    """BOLT 8: a Lightning message has at most 65535 bytes."""
    cipher = CipherState(CHAINING_KEY, SENDING_KEY)
    assert len(cipher.encrypt(bytes(65535))) == 65569
    with pytest.raises(ValueError, match="65536"):
        cipher.encrypt(bytes(65536))


@pytest_asyncio.fixture
async def listener() -> AsyncIterator[Listener]:
    """Listen on a free port."""
    async with await listen(new_secret()) as listening:
        yield listening


@pytest_asyncio.fixture
async def pair(listener: Listener) -> AsyncIterator[tuple[Bolt8Link, Bolt8Link]]:
    """Who dialled, and who was dialled."""
    ours = await connect("127.0.0.1", listener.port, listener.node_id, new_secret())
    yield ours, await listener.accept()
    await ours.close()


async def test_both_sides_learn_who_the_other_is(pair: tuple[Bolt8Link, Bolt8Link]) -> None:
    """The node ids are proved by the handshake; bit 39 is in both `init`s."""
    ours: Link
    ours, theirs = pair
    assert theirs.remote_node_id == ours.node_id
    assert pair[0].remote_node_id == theirs.node_id
    assert 39 in theirs.remote_features & pair[0].remote_features


async def test_onions_of_both_sizes_arrive_both_ways(pair: tuple[Bolt8Link, Bolt8Link]) -> None:
    """BOLT 4's onion message packets are 1,366 or 32,834 bytes long as a rule."""
    path_key = keys.public_key(new_secret())
    for sender, receiver in (pair, pair[::-1]):
        for size in (1366, 32834):
            await sender.send_onion(path_key, bytes([size % 251]) * size)
            assert await receiver.receive_onion() == (path_key, bytes([size % 251]) * size)


async def test_custom_messages_and_onions_do_not_wait_for_each_other(
    pair: tuple[Bolt8Link, Bolt8Link],
) -> None:
    """Each kind has its own queue."""
    ours, theirs = pair
    await ours.send_onion(ours.node_id, b"onion")
    await ours.send_custom(37913, b"{}")
    assert await theirs.receive_custom() == (37913, b"{}")
    assert await theirs.receive_onion() == (ours.node_id, b"onion")


async def test_a_connection_outlives_its_first_keys(pair: tuple[Bolt8Link, Bolt8Link]) -> None:
    """Rotation happens on both sides at the same message, in each direction by itself."""
    ours, theirs = pair
    for number in range(1100):
        await ours.send_custom(40001, number.to_bytes(2, "big"))
    received = [await theirs.receive_custom() for _ in range(1100)]
    assert received == [(40001, number.to_bytes(2, "big")) for number in range(1100)]
    await theirs.send_custom(40001, b"back")
    assert await ours.receive_custom() == (40001, b"back")


async def test_a_ping_is_answered_and_unknown_odd_messages_are_ignored(
    pair: tuple[Bolt8Link, Bolt8Link],
) -> None:
    """BOLT 1: a ping of n bytes gets a pong of n; unknown odd types and gossip pass by in silence."""
    ours, theirs = pair
    for type_, data in ((PING, b"\0\7\0\0"), (PONG, b"\0\0"), (4097, b"odd"), (256, b"gossip")):
        await ours.send(type_, data)
    await ours.send_custom(40001, b"still there")
    assert await theirs.receive_custom() == (40001, b"still there")


async def test_an_unknown_even_message_ends_the_connection(pair: tuple[Bolt8Link, Bolt8Link]) -> None:
    """BOLT 1: it is no longer certain that both mean the same."""
    ours, theirs = pair
    await ours.send(4096, b"")
    with pytest.raises(LinkClosed, match="4096"):
        await theirs.receive_onion()
    with pytest.raises(LinkClosed):
        await ours.receive_onion()


async def test_waiting_ends_when_the_other_side_hangs_up(pair: tuple[Bolt8Link, Bolt8Link]) -> None:
    """A closed link fails every call that waits, and each later one."""
    ours, theirs = pair
    waiting = asyncio.create_task(theirs.receive_onion())
    await ours.close()
    await ours.close()
    with pytest.raises(LinkClosed):
        await waiting
    with pytest.raises(LinkClosed):
        await theirs.receive_custom()
    with pytest.raises(LinkClosed):
        await ours.send_onion(ours.node_id, b"")


async def test_who_dials_the_wrong_key_gets_no_answer(listener: Listener) -> None:
    """BOLT 8, act one: the responder hangs up on whoever does not know its node id."""
    with pytest.raises(HandshakeError, match="hung up"):
        await connect("127.0.0.1", listener.port, keys.public_key(new_secret()), new_secret())
