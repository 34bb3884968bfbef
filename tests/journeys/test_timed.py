"""Each message is timed once, under what it was and what became of it."""

import pytest

from sidecar.core.errors import StoreUnavailable
from sidecar.service import SidecarService
from tests.harness.world import World


def handled(service: SidecarService) -> dict[tuple[str, str], int]:
    """How many messages were handled, by type and outcome."""
    return {
        (sample.labels["type"], sample.labels["outcome"]): int(sample.value)
        for metric in service._timings.collect()
        for sample in metric.samples
        if sample.name == "sidecar_message_seconds_count" and sample.value
    }


@pytest.mark.parametrize("native", [True, False], ids=["native", "custom"])
async def test_each_message_is_timed_by_its_type(native: bool) -> None:
    """The wallet's two, the payer's one, and one that is just passing."""
    async with World(native=native) as world:
        wallet, payer = await world.wallet(), world.payer()
        offer, _, _ = await world.offer(wallet)
        await payer.send_request(offer)
        await payer.receive_answer(offer)
        await payer.send_along(wallet.path_to_self(b"held htlc"), 72, b"")
        await world.settled()
        assert handled(world.service) == {
            ("offer_paths_request", "done"): 1,
            ("serve_static_invoice", "done"): 1,
            ("invoice_request", "done"): 1,
            ("passing", "done"): 1,
        }


async def test_what_is_not_served_has_an_outcome_of_its_own() -> None:
    """Dropped is refused, or somebody was away; failed is a fault of ours."""
    async with World() as world:
        wallet, payer = await world.wallet(slots=2), world.payer()
        offer, _, _ = await world.offer(wallet)
        before = handled(world.service)
        await wallet.ask_offer_paths(2)
        await world.settled()
        world.store.load_error = StoreUnavailable("away")
        await payer.send_request(offer)
        await world.settled()
        world.store.load_error = RuntimeError("a fault")
        await payer.send_request(offer)
        await world.settled()
        assert handled(world.service) == before | {
            ("offer_paths_request", "dropped"): 1,
            ("invoice_request", "dropped"): 1,
            ("invoice_request", "failed"): 1,
        }
