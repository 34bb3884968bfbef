"""What every ports.Store keeps to: one set of tests, run over each store there is.

A subclass called Test… gives the fixture `store`: an empty store, or one whose records are of
another node.
"""

import asyncio
import secrets
import time
from dataclasses import replace

import pytest

from sidecar.core.errors import (
    ClientPaused,
    ClientRevoked,
    NameTaken,
    NodeTaken,
    NoSuchClient,
    QuotaExceeded,
    SlotOutOfRange,
    StaleInvoice,
    StaleOffer,
    UnknownClient,
)
from sidecar.core.model import (
    CLIENT_ID_SIZE,
    TAG_NONCE_SIZE,
    BoundBy,
    Client,
    ClientState,
    Family,
    Loaded,
    OfferTag,
    Quota,
    SlotMark,
    StoredInvoice,
    Terms,
    TimestampForm,
    Usage,
)
from sidecar.ports import Store

DAY = 86_400


def a_client(name: str = "alice", *, slots: int = 4, size: int = 4_000, ttl: int = 365 * DAY) -> Client:
    """A new client with a quota of `slots`, `size` bytes and `ttl` seconds."""
    return Client(
        client_id=secrets.token_bytes(CLIENT_ID_SIZE),
        name=name,
        state=ClientState.ACTIVE,
        generation=1,
        quota=Quota(slots=slots, bytes=size, ttl=ttl),
        created_at=int(time.time()),
    )


def a_node() -> bytes:
    """A wallet's node id."""
    return b"\x02" + secrets.token_bytes(32)


def a_bound_client(name: str = "alice", node_id: bytes | None = None) -> Client:
    """A new client that the operator bound to a node."""
    return replace(a_client(name), node_id=node_id or a_node(), bound_by=BoundBy.OPERATOR)


def a_tag(issued_at_ms: int = 1_700_000_000_000) -> OfferTag:
    """A new offer's tag."""
    return OfferTag(issued_at_ms=issued_at_ms, nonce=secrets.token_bytes(TAG_NONCE_SIZE))


def an_invoice(slot: int = 0, tag: OfferTag | None = None, *, size: int = 1_000) -> StoredInvoice:
    """An invoice of `size` bytes, its forward path (100 bytes) included, that ends in 30 days."""
    now = int(time.time())
    return StoredInvoice(
        slot=slot,
        tag=tag or a_tag(),
        invoice=secrets.token_bytes(size - 100),
        forward_path=secrets.token_bytes(100),
        family=Family.LDK,
        created_at=now - 10,
        stored_at=now,
        expires_at=now + 30 * DAY,
    )


def later(tag: OfferTag, by_ms: int = 1) -> OfferTag:
    """A tag of the same slot, issued `by_ms` after `tag`."""
    return a_tag(tag.issued_at_ms + by_ms)


def until() -> int:
    """An end for marks that no test reaches."""
    return int(time.time()) + 365 * DAY


async def passed(second: int) -> None:
    """Wait until the clock is past `second`."""
    await asyncio.sleep(max(0.0, second - time.time()) + 0.1)


async def stood(store: Store, client_id: bytes, *, since: float) -> int:
    """For how many milliseconds a client's slot 0 has stood, which changed since `since` (time.monotonic)."""
    found = (await store.load(client_id, 0)).stood_ms
    assert 0 <= found <= (time.monotonic() - since) * 1_000 + 2
    return found


class StoreContract:
    """The rules; each test gets an empty `store`."""

    # --- invoices -------------------------------------------------------------------------------

    async def test_what_was_saved_is_loaded_to_the_byte(self, store: Store) -> None:
        """A saved invoice comes back with every field, and the slot's mark beside it."""
        client, invoice = a_client(), an_invoice(slot=2)
        await store.add_client(client)
        usage = await store.save(client.client_id, invoice, until())
        assert usage == Usage(slots=1, bytes=invoice.size)
        mark = SlotMark(tag=invoice.tag, created_at=invoice.created_at)
        assert await store.load(client.client_id, 2) == Loaded(client, mark, invoice)

    async def test_both_families_are_remembered(self, store: Store) -> None:
        """The family that a client wrote in is kept with its slot."""
        client = a_client()
        await store.add_client(client)
        for slot, family in enumerate(Family):
            await store.save(client.client_id, replace(an_invoice(slot), family=family), until())
            assert [each.family for each in await store.invoices(client.client_id)][slot] is family

    async def test_a_slot_that_holds_nothing_loads_as_nothing(self, store: Store) -> None:
        """An unused slot has neither mark nor invoice; its client is still found."""
        client = a_client()
        await store.add_client(client)
        assert await store.load(client.client_id, 1) == Loaded(client, None, None)

    async def test_an_unknown_client_loads_as_nothing(self, store: Store) -> None:
        """For an id that nobody has, load answers with nothing, and save refuses."""
        client_id = secrets.token_bytes(CLIENT_ID_SIZE)
        assert await store.load(client_id, 0) == Loaded(None, None, None)
        assert list(await store.invoices(client_id)) == []
        with pytest.raises(UnknownClient):
            await store.save(client_id, an_invoice(), until())

    async def test_a_newer_invoice_of_the_same_offer_replaces(self, store: Store) -> None:
        """Within a tag the newer created_at wins, and uses no second slot."""
        client, old = a_client(), an_invoice(size=1_500)
        await store.add_client(client)
        await store.save(client.client_id, old, until())
        new = replace(an_invoice(tag=old.tag, size=1_200), created_at=old.created_at + 5)
        assert await store.save(client.client_id, new, until()) == Usage(slots=1, bytes=1_200)
        assert (await store.load(client.client_id, 0)).invoice == new

    async def test_the_same_invoice_again_is_fine(self, store: Store) -> None:
        """Wallets repeat a store each minute until it is acknowledged."""
        client, invoice = a_client(), an_invoice()
        await store.add_client(client)
        for _ in range(3):
            usage = await store.save(client.client_id, invoice, until())
            assert usage == Usage(slots=1, bytes=invoice.size)

    async def test_an_older_invoice_of_the_same_offer_never_replaces(self, store: Store) -> None:
        """A replayed invoice, older than the stored one within its tag, changes nothing."""
        client, kept = a_client(), an_invoice()
        await store.add_client(client)
        await store.save(client.client_id, kept, until())
        replayed = replace(an_invoice(tag=kept.tag), created_at=kept.created_at - 1)
        with pytest.raises(StaleInvoice):
            await store.save(client.client_id, replayed, until())
        assert (await store.load(client.client_id, 0)).invoice == kept

    async def test_a_newer_offer_replaces(self, store: Store) -> None:
        """A newer tag wins even with an older created_at: the wallet's clock decides nothing there."""
        client, old = a_client(), an_invoice()
        await store.add_client(client)
        await store.save(client.client_id, old, until())
        new = replace(an_invoice(tag=later(old.tag)), created_at=old.created_at - 1_000)
        await store.save(client.client_id, new, until())
        loaded = await store.load(client.client_id, 0)
        assert loaded.invoice == new
        assert loaded.mark == SlotMark(tag=new.tag, created_at=new.created_at)

    @pytest.mark.parametrize("by_ms", [-1, 0], ids=["issued before", "issued in the same millisecond"])
    async def test_an_older_offer_never_replaces(self, store: Store, by_ms: int) -> None:
        """A tag that is not newer than the stored one is refused, whatever its invoice's age."""
        client, kept = a_client(), an_invoice()
        await store.add_client(client)
        await store.save(client.client_id, kept, until())
        for nonce in (bytes(TAG_NONCE_SIZE), b"\xff" * TAG_NONCE_SIZE):
            tag = OfferTag(kept.tag.issued_at_ms + by_ms, nonce)
            with pytest.raises(StaleOffer):
                await store.save(
                    client.client_id, replace(an_invoice(tag=tag), created_at=kept.created_at + 100), until()
                )
        assert (await store.load(client.client_id, 0)).invoice == kept

    async def test_a_wallet_whose_clock_was_ahead_is_not_locked_out(self, store: Store) -> None:
        """A created_at in our future counts as our own time in the mark."""
        client = a_client()
        await store.add_client(client)
        early = an_invoice()
        early = replace(early, created_at=early.stored_at + 400 * DAY)
        await store.save(client.client_id, early, until())
        mark = (await store.load(client.client_id, 0)).mark
        assert mark == SlotMark(tag=early.tag, created_at=early.stored_at)
        corrected = replace(an_invoice(tag=early.tag), created_at=early.stored_at + 1)
        await store.save(client.client_id, corrected, until())
        assert (await store.load(client.client_id, 0)).invoice == corrected

    async def test_slots_are_apart(self, store: Store) -> None:
        """What happens to a slot leaves a client's other slots, and other clients, alone."""
        alice, bob = a_client("alice"), a_client("bob")
        await store.add_client(alice)
        await store.add_client(bob)
        first = an_invoice(0)
        second = an_invoice(1, OfferTag(first.tag.issued_at_ms - 50, bytes(TAG_NONCE_SIZE)))
        await store.save(alice.client_id, first, until())
        await store.save(alice.client_id, second, until())
        assert list(await store.invoices(alice.client_id)) == [first, second]
        assert await store.load(bob.client_id, 0) == Loaded(bob, None, None)

    # --- quotas ---------------------------------------------------------------------------------

    async def test_a_slot_outside_the_quota_is_refused(self, store: Store) -> None:
        """Slots are numbered from 0 and are below the client's number."""
        client = a_client(slots=2)
        await store.add_client(client)
        await store.save(client.client_id, an_invoice(1), until())
        with pytest.raises(SlotOutOfRange):
            await store.save(client.client_id, an_invoice(2), until())

    async def test_bytes_are_counted_over_all_slots(self, store: Store) -> None:
        """The quota is met to the byte; one byte more is refused, and changes nothing."""
        client = a_client(size=2_500)
        await store.add_client(client)
        await store.save(client.client_id, an_invoice(0, size=1_000), until())
        with pytest.raises(QuotaExceeded):
            await store.save(client.client_id, an_invoice(1, size=1_501), until())
        assert await store.load(client.client_id, 1) == Loaded(client, None, None)
        assert await store.save(client.client_id, an_invoice(1, size=1_500), until()) == Usage(2, 2_500)

    async def test_a_replaced_invoice_does_not_count(self, store: Store) -> None:
        """A client that is at its quota can still replace what it has, not with more."""
        client, old = a_client(size=1_000), an_invoice(size=1_000)
        await store.add_client(client)
        await store.save(client.client_id, old, until())
        new = an_invoice(tag=later(old.tag), size=1_000)
        assert await store.save(client.client_id, new, until()) == Usage(1, 1_000)
        with pytest.raises(QuotaExceeded):
            await store.save(client.client_id, an_invoice(tag=later(new.tag), size=1_001), until())
        assert (await store.load(client.client_id, 0)).invoice == new

    async def test_saves_at_once_never_pass_the_quota(self, store: Store) -> None:
        """Checking and using a quota is one step."""
        client = a_client(slots=20, size=5_000)
        await store.add_client(client)
        results = await asyncio.gather(
            *(store.save(client.client_id, an_invoice(slot, size=1_000), until()) for slot in range(20)),
            return_exceptions=True,
        )
        assert sum(isinstance(each, Usage) for each in results) == 5
        assert all(isinstance(each, Usage | QuotaExceeded) for each in results)
        assert sum(each.size for each in await store.invoices(client.client_id)) == 5_000

    # --- limits of its own ----------------------------------------------------------------------

    async def test_where_a_client_has_no_limit_of_its_own_the_servers_holds(self, store: Store) -> None:
        """To the slot and to the byte, as the caller gives them this time; its own go before them."""
        free, own = replace(a_client(), quota=Quota()), a_client("bob", slots=2, size=1_000)
        for client in (free, own):
            await store.add_client(client)
        assert (await store.load(free.client_id, 0)).client == free
        small, large = Usage(slots=2, bytes=700), Usage(slots=9, bytes=9_000)
        await store.save(free.client_id, an_invoice(1, size=700), until(), small)
        with pytest.raises(SlotOutOfRange):
            await store.save(free.client_id, an_invoice(2, size=101), until(), replace(small, bytes=9_000))
        with pytest.raises(QuotaExceeded):
            await store.save(free.client_id, an_invoice(0, size=101), until(), small)
        await store.save(free.client_id, an_invoice(2, size=700), until(), large)
        await store.save(own.client_id, an_invoice(1, size=1_000), until(), Usage(slots=1, bytes=1))
        with pytest.raises(SlotOutOfRange):
            await store.save(own.client_id, an_invoice(2, size=101), until(), large)
        with pytest.raises(QuotaExceeded):
            await store.save(own.client_id, an_invoice(0, size=101), until(), large)

    async def test_limits_are_set_and_dropped_one_by_one(self, store: Store) -> None:
        """What is not named stays as it is; the record tells the whole of it."""
        client = replace(a_client(), quota=Quota(slots=3, requests_per_second=0.5))
        await store.add_client(client)
        every = Quota(*(number + 1 for number in range(9)))
        for changes, reset, expected in (
            (Quota(ttl=99), [], Quota(slots=3, ttl=99, requests_per_second=0.5)),
            (Quota(slots=4), ["ttl", "bytes"], Quota(slots=4, requests_per_second=0.5)),
            (every, [], every),
            (Quota(), list(every.own()), Quota()),
        ):
            changed = await store.update_quota(client.client_id, changes, reset)
            assert changed == replace(client, quota=expected)
            assert await store.find_client("alice") == changed

    async def test_terms_are_those_of_clients_that_have_any(self, store: Store) -> None:
        """Limits of their own, or paused; a client as all others has none."""
        usual = replace(a_client("usual"), quota=Quota())
        own = replace(a_client("own"), quota=Quota(requests_per_second=0.25, mailbox_bytes=7))
        paused = replace(a_client("paused"), quota=Quota())
        for client in (usual, own, paused):
            await store.add_client(client)
        assert await store.terms() == {own.client_id: Terms(own.quota, paused=False)}
        await store.pause_client(paused.client_id, paused=True)
        assert await store.terms() == {
            own.client_id: Terms(own.quota, paused=False),
            paused.client_id: Terms(Quota(), paused=True),
        }
        await store.pause_client(paused.client_id, paused=False)
        await store.remove_client(own.client_id)
        assert await store.terms() == {}

    # --- paused -----------------------------------------------------------------------------------

    async def test_a_paused_client_keeps_all_and_gets_nothing_new(self, store: Store) -> None:
        """Its invoices stay, and no other comes, until it is resumed; twice is fine."""
        client, invoice = a_client(), an_invoice()
        await store.add_client(client)
        await store.save(client.client_id, invoice, until())
        for _ in range(2):
            paused = await store.pause_client(client.client_id, paused=True)
            assert paused == replace(client, state=ClientState.PAUSED)
        loaded = await store.load(client.client_id, 0)
        assert (loaded.client, loaded.invoice) == (paused, invoice)
        with pytest.raises(ClientPaused):
            await store.save(client.client_id, an_invoice(1), until())
        assert list(await store.invoices(client.client_id)) == [invoice]
        for _ in range(2):
            assert await store.pause_client(client.client_id, paused=False) == client
        await store.save(client.client_id, an_invoice(1), until())

    async def test_a_paused_client_keeps_its_node(self, store: Store) -> None:
        """Nobody else gets it, and the operator may still say which it is."""
        client = a_bound_client()
        await store.add_client(client)
        await store.pause_client(client.client_id, paused=True)
        assert await store.bindings() == {client.node_id: client.client_id}
        with pytest.raises(NodeTaken):
            await store.add_client(a_bound_client("bob", client.node_id))
        node = a_node()
        await store.bind(client.client_id, node, BoundBy.OPERATOR)
        assert await store.bindings() == {node: client.client_id}

    async def test_a_revoked_client_is_not_changed(self, store: Store) -> None:
        """Neither its limits nor its state: nothing leads back."""
        client = a_client()
        await store.add_client(client)
        await store.pause_client(client.client_id, paused=True)
        revoked = await store.revoke_client(client.client_id)
        assert revoked.state is ClientState.REVOKED
        with pytest.raises(ClientRevoked):
            await store.update_quota(client.client_id, Quota(slots=9))
        for paused in (True, False):
            with pytest.raises(ClientRevoked):
                await store.pause_client(client.client_id, paused=paused)
        assert await store.find_client("alice") == revoked

    # --- ends -----------------------------------------------------------------------------------

    async def test_an_invoice_leaves_at_its_end_and_its_mark_stays(self, store: Store) -> None:
        """After its end an invoice is not loaded and not counted; replays are still refused."""
        client, short = a_client(size=1_000), an_invoice(size=1_000)
        await store.add_client(client)
        short = replace(short, expires_at=short.stored_at + 2)
        await store.save(client.client_id, short, until())
        await passed(short.expires_at)
        mark = SlotMark(tag=short.tag, created_at=short.created_at)
        loaded = await store.load(client.client_id, 0)
        assert loaded == Loaded(client, mark, None)
        # By then it had been so for no longer than since its end.
        assert 50 <= loaded.stood_ms <= (time.time() - short.expires_at) * 1_000 + 2
        assert list(await store.invoices(client.client_id)) == []
        assert list(await store.list_clients()) == [(client, Usage(0, 0))]
        replayed = replace(an_invoice(tag=short.tag), created_at=short.created_at - 1)
        with pytest.raises(StaleInvoice):
            await store.save(client.client_id, replayed, until())
        assert await store.save(client.client_id, an_invoice(1, size=1_000), until()) == Usage(1, 1_000)

    async def test_a_slot_tells_for_how_long_it_has_been_what_it_is(self, store: Store) -> None:
        """Since its invoice was saved, to the millisecond, and each slot for itself."""
        client = a_client()
        await store.add_client(client)
        assert (await store.load(client.client_id, 0)).stood_ms > DAY * 1_000
        before = time.monotonic()
        await store.save(client.client_id, first := an_invoice(0), until())
        await asyncio.sleep(0.1)
        await store.save(client.client_id, an_invoice(1), until())
        assert await stood(store, client.client_id, since=before) >= 90
        before = time.monotonic()
        await store.save(client.client_id, an_invoice(0, later(first.tag)), until())
        await stood(store, client.client_id, since=before)

    async def test_a_revoked_clients_slots_have_changed_at_that_moment(self, store: Store) -> None:
        """Whatever was in them, and however often it is revoked; of one that is removed nobody can tell."""
        client = a_client()
        await store.add_client(client)
        await store.save(client.client_id, an_invoice(0), until())
        before = time.monotonic()
        await store.revoke_client(client.client_id)
        await asyncio.sleep(0.1)
        await store.revoke_client(client.client_id)
        assert await stood(store, client.client_id, since=before) >= 90
        assert (await store.load(client.client_id, 7)).stood_ms < DAY * 1_000
        await store.remove_client(client.client_id)
        assert (await store.load(client.client_id, 0)).stood_ms == 0

    async def test_a_mark_goes_no_earlier_than_was_ever_asked(self, store: Store) -> None:
        """A later save with a nearer end does not shorten the mark."""
        client, invoice = a_client(), an_invoice()
        await store.add_client(client)
        invoice = replace(invoice, expires_at=invoice.stored_at + 2)
        await store.save(client.client_id, invoice, until())
        await store.save(client.client_id, invoice, invoice.expires_at)
        await passed(invoice.expires_at)
        assert (await store.load(client.client_id, 0)).mark is not None

    # --- clients --------------------------------------------------------------------------------

    async def test_clients_are_listed_by_name_with_their_use(self, store: Store) -> None:
        """The list is sorted by name, and counts what each client uses."""
        assert list(await store.list_clients()) == []
        carol, alice, bob = a_client("carol"), a_client("alice"), a_client("bob")
        for client in (carol, alice, bob):
            await store.add_client(client)
        await store.save(bob.client_id, an_invoice(0, size=600), until())
        await store.save(bob.client_id, an_invoice(3, size=700), until())
        listed = list(await store.list_clients())
        assert listed == [(alice, Usage(0, 0)), (bob, Usage(2, 1_300)), (carol, Usage(0, 0))]

    async def test_a_client_is_found_by_name_and_by_id(self, store: Store) -> None:
        """Both name a client, and anything else names none."""
        client = a_client()
        await store.add_client(client)
        assert await store.find_client("alice") == client
        assert await store.find_client(client.client_id.hex()) == client
        for unknown in ("bob", "Alice", "", client.client_id.hex()[:-1], "00" * CLIENT_ID_SIZE, "a" * 300):
            with pytest.raises(NoSuchClient):
                await store.find_client(unknown)

    async def test_a_name_is_given_once(self, store: Store) -> None:
        """A second client of the name is refused, and the first stays as it was."""
        first = a_client()
        await store.add_client(first)
        with pytest.raises(NameTaken):
            await store.add_client(a_client())
        assert list(await store.list_clients()) == [(first, Usage(0, 0))]

    async def test_of_many_adds_at_once_one_wins(self, store: Store) -> None:
        """Ten clients of one name at the same moment leave one."""
        results = await asyncio.gather(
            *(store.add_client(a_client()) for _ in range(10)), return_exceptions=True
        )
        assert sum(each is None for each in results) == 1
        assert sum(isinstance(each, NameTaken) for each in results) == 9
        assert len(await store.list_clients()) == 1

    async def test_rotating_raises_the_generation_alone(self, store: Store) -> None:
        """Invoices, and so offers, stay good."""
        client, invoice = a_client(), an_invoice()
        await store.add_client(client)
        await store.save(client.client_id, invoice, until())
        rotated = await store.rotate_client(client.client_id)
        assert rotated == replace(client, generation=2)
        loaded = await store.load(client.client_id, 0)
        assert (loaded.client, loaded.invoice) == (rotated, invoice)
        assert (await store.rotate_client(client.client_id)).generation == 3

    async def test_a_revoked_client_keeps_its_record_and_nothing_else(self, store: Store) -> None:
        """Revoking drops the invoices, refuses new ones, and holds the name; twice is fine."""
        client = a_client()
        await store.add_client(client)
        for slot in range(3):
            await store.save(client.client_id, an_invoice(slot), until())
        for _ in range(2):
            revoked = await store.revoke_client(client.client_id)
            assert revoked == replace(client, state=ClientState.REVOKED)
        assert list(await store.list_clients()) == [(revoked, Usage(0, 0))]
        assert list(await store.invoices(client.client_id)) == []
        loaded = await store.load(client.client_id, 0)
        assert (loaded.client, loaded.invoice) == (revoked, None)
        with pytest.raises(ClientRevoked):
            await store.save(client.client_id, an_invoice(0, a_tag(1_800_000_000_000)), until())
        with pytest.raises(NameTaken):
            await store.add_client(a_client())

    async def test_a_removed_client_leaves_nothing(self, store: Store) -> None:
        """Removing forgets invoices, marks and name; the name can be given again."""
        client = a_client()
        await store.add_client(client)
        await store.save(client.client_id, an_invoice(), until())
        await store.remove_client(client.client_id)
        assert await store.load(client.client_id, 0) == Loaded(None, None, None)
        assert list(await store.list_clients()) == []
        assert list(await store.invoices(client.client_id)) == []
        with pytest.raises(NoSuchClient):
            await store.find_client("alice")
        with pytest.raises(UnknownClient):
            await store.save(client.client_id, an_invoice(), until())
        again = a_client()
        await store.add_client(again)
        assert await store.load(again.client_id, 0) == Loaded(again, None, None)

    async def test_a_revoked_client_can_be_removed(self, store: Store) -> None:
        """Which frees its name."""
        client = a_client()
        await store.add_client(client)
        await store.revoke_client(client.client_id)
        await store.remove_client(client.client_id)
        await store.add_client(a_client())

    async def test_changes_to_a_client_that_is_not_there_are_refused(self, store: Store) -> None:
        """Rotate, revoke and remove name it; none of them makes one."""
        client_id = secrets.token_bytes(CLIENT_ID_SIZE)
        for change in (store.rotate_client, store.revoke_client, store.remove_client):
            with pytest.raises(NoSuchClient):
                await change(client_id)
        for by in BoundBy:
            with pytest.raises(NoSuchClient):
                await store.bind(client_id, a_node(), by)
        with pytest.raises(NoSuchClient):
            await store.set_timestamps(client_id, TimestampForm.Z)
        with pytest.raises(NoSuchClient):
            await store.update_quota(client_id, Quota(slots=3))
        with pytest.raises(NoSuchClient):
            await store.pause_client(client_id, paused=True)
        assert list(await store.list_clients()) == []
        assert await store.bindings() == {}
