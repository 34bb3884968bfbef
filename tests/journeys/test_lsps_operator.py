"""Webhooks by the operator's hand, and those that are forgotten."""

import pytest

from sidecar.core.errors import (
    BadWebhook,
    LndUnavailable,
    NoSuchWebhook,
    StoreUnavailable,
    TooManyWebhooks,
)
from sidecar.core.webhooks import REMEMBERED, WebhookSet
from sidecar.lsps import LspsSettings
from tests.harness.lsps_world import DAY, URL, Lsps, node

# --- the operator -------------------------------------------------------------------------------


async def test_the_operator_registers_with_the_same_checks() -> None:
    """For wallets without LSPS5: the node need not be known, all else is as it is for peers."""
    async with Lsps(LspsSettings(max_webhooks=2, ports={443, 8443})) as lsps:
        wallet = node()
        assert await lsps.service.register(wallet, "a", URL) == WebhookSet(1, no_change=False)
        assert await lsps.service.register(wallet, "a", URL) == WebhookSet(1, no_change=True)
        await lsps.service.register(wallet, "b", "https://push.example.org:8443/")
        with pytest.raises(TooManyWebhooks):
            await lsps.service.register(wallet, "c", URL)
        for name, url in (
            ("a" * 65, URL),
            ("a", "http://h/"),
            ("a", "https://h:444/"),
            ("a", "https://h/" + "a" * 1015),
            ("\udc80", URL),
            ("a", "https://h/\udc80"),
        ):
            with pytest.raises(BadWebhook):
                await lsps.service.register(wallet, name, url)
        assert lsps.announced.made == [(wallet, "a"), (wallet, "b")]
        await lsps.service.unregister(wallet, "a")
        with pytest.raises(NoSuchWebhook):
            await lsps.service.unregister(wallet, "a")
        # What the operator registered is the node's own: it sees it, and takes it back.
        assert (await lsps.call(wallet, "lsps5.list_webhooks"))["app_names"] == ["b"]


# --- what is forgotten --------------------------------------------------------------------------


class Needed:
    """Which nodes have a channel or a client; `asked` is called before each answer."""

    def __init__(self, *nodes: bytes) -> None:
        self.nodes = set(nodes)
        self.error: Exception | None = None

    async def __call__(self, node_id: bytes) -> bool:
        """Whether something speaks for the node's webhooks."""
        if self.error is not None:
            raise self.error
        return node_id in self.nodes


async def test_webhooks_are_forgotten_seven_days_after_the_last_channel() -> None:
    """Indefinitely while there is a channel, and then for seven days from when its end was seen."""
    lsps = Lsps()
    stays, leaves = node(), node()
    needed = Needed(stays, leaves)
    for wallet in (stays, leaves):
        await lsps.service.register(wallet, "a", URL)
    lsps.clock.pass_seconds(100 * DAY)
    await lsps.service.tidy(needed)
    needed.nodes = {stays}
    await lsps.service.tidy(needed)
    for _ in range(REMEMBERED // DAY - 1):
        lsps.clock.pass_seconds(DAY)
        await lsps.service.tidy(needed)
    lsps.clock.pass_seconds(DAY - 1)
    await lsps.service.tidy(needed)
    assert lsps.store.names(leaves) == ["a"]
    lsps.clock.pass_seconds(1)
    await lsps.service.tidy(needed)
    assert await lsps.store.webhook_nodes() == {stays: None}
    assert lsps.store.names(stays) == ["a"]
    assert lsps.counters["lsps.forgotten"] == 1


async def test_a_new_channel_or_registration_ends_the_seven_days() -> None:
    """Also "If a new channel with the client is opened": remembered as before, and counted anew after it."""
    for comes_back in ("channel", "registration"):
        lsps, wallet, needed = Lsps(), node(), Needed()
        await lsps.service.register(wallet, "a", URL)
        await lsps.service.tidy(needed)
        lsps.clock.pass_seconds(6 * DAY)
        if comes_back == "channel":
            needed.nodes = {wallet}
            await lsps.service.tidy(needed)
            needed.nodes = set()
        else:
            await lsps.service.register(wallet, "a", URL)
        await lsps.service.tidy(needed)
        lsps.clock.pass_seconds(6 * DAY)
        await lsps.service.tidy(needed)
        assert lsps.store.names(wallet) == ["a"]
        lsps.clock.pass_seconds(DAY)
        await lsps.service.tidy(needed)
        assert lsps.store.names(wallet) == []


async def test_nothing_is_forgotten_while_lnd_or_the_store_is_away() -> None:
    """Who can't be asked is no witness: the round ends, and the webhooks stay."""
    lsps, wallet, needed = Lsps(), node(), Needed()
    await lsps.service.register(wallet, "a", URL)
    await lsps.service.tidy(needed)
    lsps.clock.pass_seconds(30 * DAY)
    needed.error = LndUnavailable("LND is away")
    with pytest.raises(LndUnavailable):
        await lsps.service.tidy(needed)
    lsps.store.away = True
    with pytest.raises(StoreUnavailable):
        await lsps.service.tidy(needed)
    lsps.store.away = False
    assert lsps.store.names(wallet) == ["a"]


async def test_a_registration_just_before_the_end_is_not_lost() -> None:
    """A wallet comes back while it is looked at: it was answered that its webhook is kept, so it is."""
    lsps, wallet = Lsps(), node()
    await lsps.service.register(wallet, "a", URL)

    async def comes_back(node_id: bytes) -> bool:
        """No channel yet; and before that is acted upon, a registration."""
        await lsps.service.register(node_id, "b", URL)
        return False

    await lsps.service.tidy(Needed())
    lsps.clock.pass_seconds(30 * DAY)
    await lsps.service.tidy(comes_back)
    assert lsps.store.names(wallet) == ["a", "b"]
