"""What another sidecar may have answered before this one took over: nobody gets two different answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import pytest

from sidecar import again
from sidecar.core.model import Loaded
from sidecar.core.offers import Offer
from sidecar.core.wire import decode_tlvs
from sidecar.service import MESSAGE_TIMEOUT
from tests.harness.payer import InvoiceErrorReceived
from tests.harness.wallet import Issued, Wallet
from tests.harness.world import World

HELD_MS = 3_000


@contextmanager
def held(world: World, ms: int = HELD_MS) -> Iterator[None]:
    """What comes within was held for so long while another one led, who may have dealt with it."""
    arrive = world.network.inject
    world.network.inject = lambda received: arrive(  # type: ignore[method-assign]
        replace(received, heard_ms=world.clock.steady_ms() - ms, again=True)
    )
    try:
        yield
    finally:
        world.network.inject = arrive  # type: ignore[method-assign]


class Scene:
    """A wallet whose offer has been served for an hour."""

    def __init__(self, world: World, wallet: Wallet, offer: Offer, issued: Issued) -> None:
        self.world, self.wallet = world, wallet
        self.offer, self._issued = offer, issued

    @classmethod
    async def of(cls, world: World) -> Scene:
        """All of it."""
        wallet = await world.wallet()
        offer, issued, _ = await world.offer(wallet)
        world.clock.pass_seconds(3_600)
        return cls(world, wallet, offer, issued)

    async def replace(self, relative_expiry: int | None = None) -> bytes:
        """Leave another invoice in its place; the new one."""
        now = self.world.clock.now_ms() // 1_000
        invoice = self.wallet.make_invoice(dict(self.offer.records), now, relative_expiry)
        await self.wallet.leave_invoice(self._issued, invoice)
        await self.wallet.receive_persisted()
        return invoice

    async def answer(self) -> Mapping[int, bytes] | None:
        """What a payer gets; None for silence. Raises InvoiceErrorReceived."""
        payer = self.world.payer()
        await payer.send_request(self.offer)
        await self.world.settled()
        if not self.world.network.waiting(payer.node_id):
            return None
        return (await payer.receive_answer(self.offer)).records

    def replayed(self) -> int:
        """How many requests were met with silence, for somebody may have answered them otherwise."""
        return self.world.counters["dropped.replayed"]


async def test_what_has_not_changed_is_answered() -> None:
    """Perhaps a second time, and in the same way: most of what was held nobody has answered."""
    async with World() as world:
        scene = await Scene.of(world)
        first = await scene.answer()
        with held(world):
            assert first is not None
            assert await scene.answer() == first
        assert not scene.replayed()


async def test_what_was_replaced_since_a_request_came_is_not_its_answer() -> None:
    """The one before may have given it the earlier invoice. When the payer repeats it, nobody has."""
    async with World() as world:
        scene = await Scene.of(world)
        newer = decode_tlvs(await scene.replace())
        world.clock.pass_seconds(HELD_MS / 1_000 - 1)
        with held(world):
            assert await scene.answer() is None
        assert scene.replayed() == 1
        assert await scene.answer() == newer


@pytest.mark.parametrize("before_ms", [again.LATER_MS - 50, again.LATER_MS + 50])
async def test_a_request_that_came_after_the_change_is_answered(before_ms: int) -> None:
    """Just behind it nobody can tell: LND's streams may be so far apart."""
    async with World() as world:
        scene = await Scene.of(world)
        newer = decode_tlvs(await scene.replace())
        world.clock.pass_seconds((HELD_MS + before_ms) / 1_000)
        with held(world):
            assert await scene.answer() == (newer if before_ms > again.LATER_MS else None)


async def test_a_request_grows_no_younger_while_it_is_in_work() -> None:
    """It came before the change, however long LND or Redis takes over it here."""
    async with World() as world:
        scene = await Scene.of(world)
        load = world.store.load

        async def slow(client_id: bytes, slot: int) -> Loaded:
            world.clock.pass_seconds(2)
            return await load(client_id, slot)

        await scene.replace()
        world.clock.pass_seconds(HELD_MS / 1_000 - 1)
        world.store.load = slow  # type: ignore[method-assign]
        with held(world):
            assert await scene.answer() is None


async def test_what_is_saved_out_of_what_was_held_is_no_answer_to_what_was_held() -> None:
    """The one before never saw it: it can have given the earlier invoice only, and so does this one.

    Who asks now gets the newer one.
    """
    async with World() as world:
        scene = await Scene.of(world)
        first = await scene.answer()
        await scene.wallet.receive_invoice_request()
        with held(world):
            newer = await scene.replace()
            assert await scene.answer() == first
        assert first != decode_tlvs(newer)
        assert await scene.answer() == decode_tlvs(newer)
        assert not scene.replayed()


async def test_so_it_is_with_what_is_saved_while_the_rest_of_it_is_answered() -> None:
    """And no longer: once nothing can be left of what was held, no slot is remembered."""
    async with World() as world:
        scene = await Scene.of(world)
        with held(world):
            first = await scene.answer()
        await scene.wallet.receive_invoice_request()
        newer = decode_tlvs(await scene.replace())
        with held(world):
            assert await scene.answer() == first
        await scene.wallet.receive_invoice_request()
        world.clock.pass_seconds(MESSAGE_TIMEOUT)
        await scene.replace()
        with held(world):
            assert await scene.answer() is None
        assert newer != first


async def test_an_offer_that_ended_while_a_request_was_held_is_not_complained_of() -> None:
    """The one before may have answered it with the invoice."""
    async with World() as world:
        scene = await Scene.of(world)
        await scene.replace(relative_expiry=3_600)
        world.clock.pass_seconds(3_601)
        with held(world):
            assert await scene.answer() is None
        assert scene.replayed() == 1
        world.clock.pass_seconds(HELD_MS / 1_000)
        with held(world), pytest.raises(InvoiceErrorReceived, match="has expired"):
            await scene.answer()


@pytest.mark.parametrize("seconds", [1, 60])
async def test_a_client_that_was_revoked_meanwhile_is_not_complained_of(seconds: int) -> None:
    """One that was revoked before the request came is."""
    async with World() as world:
        scene = await Scene.of(world)
        await world.store.revoke_client((await world.store.find_client("alice")).client_id)
        world.clock.pass_seconds(seconds)
        with held(world):
            if seconds * 1_000 < HELD_MS:
                assert await scene.answer() is None
            else:
                with pytest.raises(InvoiceErrorReceived, match="not served any more"):
                    await scene.answer()


async def test_offer_paths_are_not_issued_twice_for_one_request() -> None:
    """Each answer is another one: the wallet asks again within a minute."""
    async with World() as world:
        scene = await Scene.of(world)
        with held(world):
            await scene.wallet.ask_offer_paths(0)
            await world.assert_silence(scene.wallet)
        assert scene.replayed() == 1
