"""What strangers and wallets can make the sidecar hold: each has its bound (docs/scaling.md)."""

import asyncio
import os
from dataclasses import replace

from sidecar.core import keys, onion, paths
from sidecar.peeler import MOST_DATA, Passing, Peeler
from sidecar.pending import Pending
from sidecar.ports import Received
from tests.harness.mail_contract import a_letter
from tests.harness.mail_scene import scene
from tests.harness.world import World

STRANGER = keys.public_key(b"\x77" * 32)


async def test_a_path_with_much_data_is_not_remembered() -> None:
    """A stranger can put 32 KB into a path, and make a new one each time: 20,000 of them would be 640 MB."""
    async with World() as world:
        peeler = Peeler(world.lnd_node_id, world.lnd_key, world.keys)
        for padding, remembered in ((MOST_DATA // 2, 1), (MOST_DATA, 1), (30_000, 1), (0, 2)):
            # Padding is type 1, and comes before the next node's type 4.
            data = b"\x01\xfd" + padding.to_bytes(2, "big") + bytes(padding) if padding else b""
            hops = [(world.lnd_node_id, data + paths.next_hop_data(STRANGER)), (STRANGER, b"")]
            path = paths.build(os.urandom(32), hops)
            packet = b"\x00" + STRANGER + bytes(onion.LARGE_HOP_DATA + 32)
            given = path.hops[0].encrypted_recipient_data
            assert isinstance(await peeler.peel(Received(STRANGER, path.path_key, packet, given)), Passing)
            assert len(peeler._known) == remembered


async def test_a_node_that_comes_and_goes_waits_for_one_place_only() -> None:
    """While other wallets' mailboxes are handed over, each of its connections would hold a task."""
    async with World() as world:
        on = await scene(world)
        await on.away()
        await on.hold()
        places = [world.mailroom._deliveries._at_once.acquire() for _ in range(32)]
        await asyncio.gather(*places)
        for _ in range(100):
            on.wallet.link = world.network.connect(on.wallet.node_id)
            await asyncio.sleep(0.001)  # so that each connection is seen, and its delivery begins to wait
            await on.wallet.link.close()
        on.wallet.link = world.network.connect(on.wallet.node_id)
        await asyncio.sleep(0.05)
        assert len(world.mailroom._tasks) == 1
        for _ in places:
            world.mailroom._deliveries._at_once.release()
        await world.settled()
        assert await on.read() == [(72, b"")]
        assert world.mailroom._deliveries._at_once._value == 32


def test_what_waits_in_memory_leaves_no_name_behind() -> None:
    """It may not be empty for long while Redis is slow: a node's count goes with its last letter."""
    pending = Pending()
    for number in range(100):
        pending.put(replace(a_letter(), to=number.to_bytes(33, "big")))
        pending.put(replace(a_letter(), to=(number + 1).to_bytes(33, "big")))
        pending.drop_first()
    assert len(pending) == 100
    assert len(pending._for) <= 101
    while len(pending) > 1:
        pending.drop_first()
    assert len(pending._for) == 1
