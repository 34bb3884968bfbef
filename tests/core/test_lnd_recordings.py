"""What a real LND streamed, opened with the shared secrets that its signer gave: no LND is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sidecar.core import context, keys, messages, paths
from sidecar.core.context import RequestContext
from sidecar.core.errors import BadContext, NotForUs, PathToSelf, UnknownScid
from sidecar.core.keys import SidecarKeys
from sidecar.core.messages import ServeStaticInvoice
from sidecar.core.paths import BlindedPath, SciddirIntroduction
from sidecar.courier import Courier
from sidecar.peeler import Landed, Passing, Peeler
from sidecar.ports import Received
from sidecar.rpc import lightning_pb2 as ln
from tests.core.making import RecordedKey
from tests.vectors import load

MODES = ["native-0.21.2", "custom-0.20.3"]
CHANNELS = "native-0.21.2-channels"


class Recording:
    """One recorded update, with the keys to open it."""

    def __init__(self, whole: Any, case: Any, update: str) -> None:
        self.case = case
        self.lnd_node_id = bytes.fromhex(whole["lnd_node_id"])
        self.own = SidecarKeys(
            bytes.fromhex(whole["sidecar_secret"]), bytes.fromhex(whole["sidecar_node_id"]), bytes(32)
        )
        self.lnd_key = RecordedKey(case["lnd_derive_shared_key"])
        self.received = _received(whole["mode"], bytes.fromhex(update))

    def peeler(self) -> Peeler:
        """A Peeler that has seen nothing yet."""
        return Peeler(self.lnd_node_id, self.lnd_key, self.own)


def _received(mode: str, update: bytes) -> Received:
    if mode == "native":
        onion = ln.OnionMessageUpdate.FromString(update)
        return Received(onion.peer, onion.path_key, onion.onion, onion.encrypted_recipient_data)
    custom = ln.CustomMessage.FromString(update)
    assert custom.type == 513
    # path_key ‖ u16 length ‖ packet
    assert int.from_bytes(custom.data[33:35], "big") == len(custom.data) - 35
    return Received(custom.peer, custom.data[:33], custom.data[35:], None)


def recordings(file: str, *, name: str) -> Iterator[tuple[Recording, Any]]:
    """The recorded updates of a file whose case's name starts so, with what they hold."""
    whole = load("lnd", f"{file}.json")
    cases = [case for case in whole["cases"] if case["name"].startswith(name)]
    assert cases, name
    for case in cases:
        for update in case.get("updates", [case]):
            yield Recording(whole, case, update["update"]), update


@pytest.fixture
def path_ids(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The path_ids that were opened; taken for contexts, though ours did not seal the recorded ones."""
    opened: list[bytes] = []

    def believe(_key: bytes, path_id: bytes) -> RequestContext:
        opened.append(path_id)
        return RequestContext(path_id, 0)

    monkeypatch.setattr(context, "unseal", believe)
    return opened


@pytest.mark.parametrize("file", MODES)
async def test_what_lnd_streams_for_our_key_opens_to_what_was_sent(file: str, path_ids: list[bytes]) -> None:
    """Every type over [LND, sidecar], small and large: content, reply path and path_id are the sender's."""
    count = 0
    for recording, update in recordings(file, name="LND then sidecar key"):
        landed = await recording.peeler().peel(recording.received)
        assert isinstance(landed, Landed)
        tlvs = {
            int(type_): bytes.fromhex(value) for type_, value in update["sidecar_hop"]["onion_tlvs"].items()
        }
        (content_type,) = (type_ for type_ in tlvs if type_ >= 64)
        assert landed.payload.encrypted_recipient_data == tlvs[4]
        assert (landed.payload.content_type, landed.payload.content) == (content_type, tlvs[content_type])
        assert landed.payload.reply_path == paths.decode_path(tlvs[2])
        assert path_ids[-1].hex() == update["sidecar_hop"]["encrypted_data_tlvs"]["6"]
        count += 1
    assert count == 7


@pytest.mark.parametrize("file", MODES)
async def test_a_path_id_that_we_did_not_seal_is_refused(file: str) -> None:
    """Anyone can build a path to us: the recorded ones hold no context of ours (BadContext)."""
    for recording, _ in recordings(file, name="LND then sidecar key"):
        with pytest.raises(BadContext):
            await recording.peeler().peel(recording.received)


@pytest.mark.parametrize("file", MODES)
async def test_lnds_layer_peels_to_the_very_packet_of_the_next_hop(file: str) -> None:
    """BOLT 4, with LND's secrets: next node, path_key and packet are the recorded ones to the byte."""
    count = 0
    for name, where in (("LND then sidecar key", "sidecar_hop"), ("forward to", "next_hop")):
        for recording, update in recordings(file, name=name):
            # Seen from another sidecar's key, each of them is for somebody else.
            recording.own = SidecarKeys.derive(bytes(32))
            opener = recording.peeler()
            passing = await opener.peel(recording.received)
            assert isinstance(passing, Passing)
            expected = update[where]
            node_id = expected.get("node_id", update["lnd_hop"]["encrypted_data_tlvs"]["4"])
            assert passing.hop.node_id == bytes.fromhex(node_id)
            assert passing.hop.path_key == bytes.fromhex(expected["path_key"])
            # In native mode it is peeled when it is asked for, no sooner.
            assert (passing.packet is None) == (file == MODES[0])
            assert await opener.next_packet(recording.received) == bytes.fromhex(expected["onion"])
            count += 1
    assert count == 9


@pytest.mark.parametrize(("file", "signer_calls"), [(MODES[0], 1), (MODES[1], 2)])
async def test_a_message_that_ends_at_lnd_is_not_for_us(file: str, signer_calls: int) -> None:
    """None of our paths ends at LND. In native mode its data says so, before the packet is opened."""
    for recording, _ in recordings(file, name="final hop LND"):
        with pytest.raises(NotForUs):
            await recording.peeler().peel(recording.received)
        assert len(recording.lnd_key.asked) == signer_calls


@pytest.mark.parametrize("file", MODES)
async def test_a_path_is_opened_with_two_signer_calls_and_used_again_with_one(
    file: str, path_ids: list[bytes]
) -> None:
    """A path_key's secret is asked for once: LND pays 0.34 ms of CPU for each call."""
    for recording, _ in recordings(file, name="LND then sidecar key"):
        opener = recording.peeler()
        assert opener.context_of(recording.received.path_key) is None
        first = await opener.peel(recording.received)
        assert len(recording.lnd_key.asked) == 2
        assert recording.lnd_key.asked[0] == recording.received.path_key.hex()
        again = await opener.peel(recording.received)
        assert again == first
        assert len(recording.lnd_key.asked) == 3
        assert recording.received.path_key.hex() not in recording.lnd_key.asked[1:]
        assert isinstance(first, Landed)
        assert opener.context_of(recording.received.path_key) == first.context
    assert len(path_ids) == 7


async def test_another_nodes_message_costs_one_signer_call_in_native_mode() -> None:
    """LND forwards it itself and its data alone tells whose it is: one call, none the second time."""
    for recording, _ in recordings("native-0.21.2", name="forward to"):
        opener = recording.peeler()
        for _again in range(2):
            passing = await opener.peel(recording.received)
            assert isinstance(passing, Passing)
            assert passing.packet is None
            assert len(recording.lnd_key.asked) == 1
        assert opener.context_of(recording.received.path_key) is None


async def test_another_nodes_message_is_peeled_with_two_signer_calls_in_custom_mode() -> None:
    """LND ≤ 0.20 forwards nothing: we peel it for the next hop, and use its path_key's secret again."""
    for recording, _ in recordings("custom-0.20.3", name="forward to"):
        opener = recording.peeler()
        first = await opener.peel(recording.received)
        assert isinstance(first, Passing)
        assert len(recording.lnd_key.asked) == 2
        assert await opener.peel(recording.received) == first
        assert len(recording.lnd_key.asked) == 3


async def test_a_peeler_remembers_no_more_path_keys_than_it_may(path_ids: list[bytes]) -> None:
    """Memory is bounded: the path_key used longest ago is asked for anew."""
    all_cases = [recording for recording, _ in recordings("native-0.21.2", name="LND then sidecar key")]
    answers = {point: ss for each in all_cases for point, ss in each.case["lnd_derive_shared_key"].items()}
    lnd_key = RecordedKey(answers)
    opener = Peeler(all_cases[0].lnd_node_id, lnd_key, all_cases[0].own, most=2)
    first, second, third = (recording.received for recording in all_cases[:3])
    for received in (first, second, first, third):
        await opener.peel(received)
    assert opener.context_of(first.path_key) is not None
    assert opener.context_of(second.path_key) is None
    assert opener.context_of(third.path_key) is not None
    assert path_ids


# --- with channels: scids and sciddirs ------------------------------------------------------------


class RecordedGraph:
    """The one announced channel of the recording, and the peers behind scids that LND resolved."""

    def __init__(self, lnd_node_id: bytes, by_scid: dict[str, str]) -> None:
        self._lnd_node_id = lnd_node_id
        self._by_scid = by_scid
        self.looked_up: list[int] = []

    async def next_node(self, scid: int) -> bytes:
        """As recorded."""
        self.looked_up.append(scid)
        if str(scid) not in self._by_scid:
            raise UnknownScid(str(scid))
        return bytes.fromhex(self._by_scid[str(scid)])

    async def node_of(self, scid: int, direction: int) -> bytes:
        """LND is node_id_2 of its channel in this recording."""
        assert scid == 373_833_953_509_376
        return self._lnd_node_id if direction == 1 else b"\x02" + bytes(32)

    async def relays_to(self, node_id: bytes) -> list[bytes]:
        """Nobody is asked here."""
        raise AssertionError(node_id)

    async def has_channel(self, node_id: bytes) -> bool:
        """No test here asks."""
        raise NotImplementedError

    async def is_announced(self, node_id: bytes) -> bool:
        """No test here asks."""
        raise NotImplementedError

    async def dial(self, node_id: bytes) -> None:
        """Nobody is dialled here."""
        raise AssertionError(node_id)


def courier(recording: Recording, answers: dict[str, str], graph: RecordedGraph) -> Courier:
    """A courier that looks along paths, and sends nothing."""
    return Courier(
        lnd_node_id=recording.lnd_node_id,
        own_node_id=recording.own.node_id,
        lnd_key=RecordedKey(answers),
        graph=graph,
        transport=None,  # type: ignore[arg-type]
        entropy=None,  # type: ignore[arg-type]
    )


def all_answers() -> dict[str, str]:
    """What LND's signer answered, over the whole recording: a forward path is used in later cases."""
    cases = load("lnd", f"{CHANNELS}.json")["cases"]
    return {point: ss for case in cases for point, ss in case["lnd_derive_shared_key"].items()}


async def check_past_lnd(recording: Recording, path: BlindedPath, by_scid: dict[str, str]) -> list[int]:
    """Advance a path that starts at LND; the scids that had to be looked up."""
    graph, answers = RecordedGraph(recording.lnd_node_id, by_scid), all_answers()
    onward = await courier(recording, answers, graph).past_lnd(path)
    secret = bytes.fromhex(answers[path.path_key.hex()])
    assert isinstance(onward.introduction_node, bytes)
    assert onward.introduction_node not in (recording.lnd_node_id, recording.own.node_id)
    assert onward.path_key == keys.next_point(path.path_key, secret)
    assert onward.hops == path.hops[1:]
    assert keys.check_point(onward.introduction_node)
    return graph.looked_up


async def test_a_reply_path_by_sciddir_is_read_and_goes_on_behind_lnd(path_ids: list[bytes]) -> None:
    """LDK names LND by sciddir, and the next hop by scid or id; the path is advanced by LND's own hop."""
    by_direction, looked_up = {0: 0, 1: 0}, 0
    for recording, update in recordings(CHANNELS, name="to the sidecar"):
        landed = await recording.peeler().peel(recording.received)
        assert isinstance(landed, Landed)
        reply_path = landed.payload.reply_path
        assert reply_path is not None
        introduction = reply_path.introduction_node
        assert isinstance(introduction, SciddirIntroduction)
        assert paths.decode_path(paths.encode_path(reply_path)) == reply_path
        by_direction[introduction.direction] += 1
        if introduction.direction == 1:
            looked_up += len(await check_past_lnd(recording, reply_path, update["next_hops_by_scid"]))
        else:
            # The payer itself is named: nothing of the path is LND's to open.
            graph = RecordedGraph(recording.lnd_node_id, {})
            onward = await courier(recording, {}, graph).past_lnd(reply_path)
            assert (onward.introduction_node, onward.hops) == (b"\x02" + bytes(32), reply_path.hops)
    assert min(by_direction.values()) > 3
    assert looked_up == 3
    assert path_ids


async def test_a_forward_path_by_scid_leads_to_the_wallet(path_ids: list[bytes]) -> None:
    """LDK's forward path is compact: LND's own hop names an alias, which only LND's channels resolve."""
    found = 0
    whole = load("lnd", f"{CHANNELS}.json")
    by_scid: dict[str, str] = {}
    for case in whole["cases"]:
        by_scid |= case["next_hops_by_scid"]
    for recording, _ in recordings(CHANNELS, name="to the sidecar, type 75544"):
        landed = await recording.peeler().peel(recording.received)
        assert isinstance(landed, Landed)
        message, _ = messages.decode(75_544, landed.payload.content)
        assert isinstance(message, ServeStaticInvoice)
        forward = message.forward_invoice_request_path
        if forward.path_key.hex() not in all_answers():
            continue
        assert await check_past_lnd(recording, forward, by_scid) == [int(scid) for scid in by_scid]
        with pytest.raises(UnknownScid):
            await check_past_lnd(recording, forward, {})
        found += 1
    assert found
    assert path_ids


async def test_a_path_that_leads_back_to_us_is_refused() -> None:
    """A reply or forward path to the sidecar, or ending at our own LND, would be a loop (PathToSelf)."""
    recording, _ = next(recordings(CHANNELS, name="to the sidecar"))
    back = {"390326627926016": recording.own.node_id.hex()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context, "unseal", lambda _key, path_id: RequestContext(path_id, 0))
        landed = await recording.peeler().peel(recording.received)
    assert isinstance(landed, Landed)
    path = landed.payload.reply_path
    assert path is not None
    one_hop = BlindedPath(path.introduction_node, path.path_key, path.hops[-1:])
    for looping, by_scid in ((path, back), (one_hop, {})):
        graph = RecordedGraph(recording.lnd_node_id, by_scid)
        with pytest.raises(PathToSelf):
            await courier(recording, all_answers(), graph).past_lnd(looping)


async def test_others_messages_pass_by_id_and_by_scid() -> None:
    """What LND streams of other people's traffic: next hop by scid or id, packets small and large."""
    seen = set()
    for recording, _ in recordings(CHANNELS, name="forward for others"):
        opener = recording.peeler()
        passing = await opener.peel(recording.received)
        assert isinstance(passing, Passing)
        by_scid = recording.case["next_hops_by_scid"]
        assert (passing.hop.node_id is None) == bool(by_scid)
        assert [str(passing.hop.scid)] == list(by_scid) or passing.hop.scid is None
        packet = await opener.next_packet(recording.received)
        assert len(packet) == len(recording.received.onion)
        seen.add((passing.hop.scid is not None, len(packet)))
    assert len(seen) >= 3
