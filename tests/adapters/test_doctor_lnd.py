"""`sidecar doctor` before a simulated LND: each thing that can be wrong is seen, with what to do."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.adapters import doctor_lnd, lnd_calls, permissions
from sidecar.config import load
from sidecar.core import keys
from sidecar.core.diagnosis import Finding, Level, worst
from sidecar.doctor import examine
from sidecar.rpc import state_pb2 as state
from tests.harness.doctor_world import PEER, TellingLnd


async def look(lnd: TellingLnd, *flags: tuple[str, str], deadline: float = 5.0) -> dict[str, Finding]:
    """The findings about LND, by name; the last one of a name."""
    given = {
        "datadir": str(lnd.folder / "data"),
        "lnd.host": lnd.host,
        "lnd.tlspath": str(lnd.tls_path),
        "lnd.macaroonpath": str(lnd.macaroon_path),
    }
    found = await examine(load(given | dict(flags), {}), deadline=deadline)
    return {each.name: each for each in found if each.name.startswith(("lnd", "clock"))}


@pytest.fixture
async def lnd(tmp_path: Path) -> AsyncIterator[TellingLnd]:
    """A healthy LND 0.21 with a channel."""
    async with TellingLnd(tmp_path / "lnd") as running:
        await peopled(running)
        yield running


@pytest.fixture
async def old_lnd(tmp_path: Path) -> AsyncIterator[TellingLnd]:
    """A healthy LND 0.20 with a channel."""
    async with TellingLnd(tmp_path / "old", "custom") as running:
        await peopled(running)
        yield running


async def peopled(lnd: TellingLnd) -> None:
    """Give it a peer with a channel that speaks onion messages."""
    lnd.add_channel(1, keys.public_key(PEER))
    await lnd.connect_peer(PEER)


def conf(lnd: TellingLnd, *lines: str) -> None:
    """Write its lnd.conf."""
    text = "\n".join(["[Bitcoin]", "bitcoind.rpcpass=hunter2", "[protocol]", *lines])
    (lnd.folder / "lnd.conf").write_text(text)


def saw(finding: Finding, level: Level, seen: str, advice: str = "") -> None:
    """Check one line."""
    assert finding.level is level, finding
    assert seen in finding.seen
    assert advice in finding.advice
    assert finding.advice or level in (Level.OK, Level.INFO)


# --- what is well -----------------------------------------------------------------------------------


async def test_a_healthy_lnd_has_no_warning(lnd: TellingLnd) -> None:
    """Every line is there, and ok; what LND tells nobody is said to be so, with what to grep for."""
    found = await look(lnd)
    assert worst(found.values()) is Level.OK
    assert {name for name, each in found.items() if each.level is Level.INFO} == {
        "lnd.relay-all",
        "lnd.burst",
    }
    assert "grep protocol.onion-msg-relay-all" in found["lnd.relay-all"].advice
    assert set(found) == {
        *("lnd", "lnd.certificate", "lnd.macaroon", "lnd.network", "lnd.sync", "lnd.mode"),
        *("lnd.onion-messages", "lnd.lsps", "lnd.scid-alias", "lnd.address", "lnd.channels"),
        *("lnd.relay-all", "lnd.burst", "clock"),
    }
    saw(found["lnd.mode"], Level.OK, "native: LND 0.21.2-beta")
    saw(found["lnd.certificate"], Level.OK, "30 days")


async def test_the_lines_of_lnd_conf_are_seen_where_it_is_at_hand(lnd: TellingLnd) -> None:
    """What gRPC does not tell stands in the lnd.conf beside tls.cert; the last value holds."""
    conf(lnd, "protocol.onion-msg-relay-all=1", "protocol.onion-msg-peer-burst-bytes=524288")
    found = await look(lnd)
    assert {each.level for each in found.values()} == {Level.OK}
    conf(lnd, "; protocol.onion-msg-relay-all=true", "protocol.onion-msg-peer-burst-bytes=1000")
    found = await look(lnd)
    saw(found["lnd.relay-all"], Level.WARNING, "off", "put protocol.onion-msg-relay-all=true into lnd.conf")
    saw(found["lnd.burst"], Level.WARNING, "1000 bytes", "protocol.onion-msg-peer-burst-bytes=524288")
    assert "hunter2" not in str(found)


async def test_looking_changes_nothing(lnd: TellingLnd) -> None:
    """No peer is dialled or hung up on, nothing is sent, and no stream is left open."""
    before = dict(lnd.node.peers)
    await look(lnd)
    assert (lnd.dialled, dict(lnd.node.peers)) == ([], before)
    for stream in (lnd.node.onions, lnd.node.customs, lnd.node.events):
        await asyncio.wait_for(stream.idle.wait(), 2)


# --- the way to LND -----------------------------------------------------------------------------------


async def test_an_lnd_that_is_down_is_refused(lnd: TellingLnd) -> None:
    """With what to start or set; lines that LND 0.21 does not start with are named."""
    await lnd.stop()
    saw((await look(lnd))["lnd"], Level.FAILURE, "nothing listens", "start LND")
    conf(lnd, "protocol.custom-message=513", "protocol.custom-init=39", "protocol.custom-init=729")
    found = await look(lnd)
    saw(found["lnd.upgrade"], Level.WARNING, "0.20", "custom-message=513, protocol.custom-init=39:")


async def test_a_port_that_speaks_no_tls_is_not_lnds(lnd: TellingLnd) -> None:
    """Such as that of its peers."""

    async def garbage(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00" * 50)
        writer.close()

    other = await asyncio.start_server(garbage, "127.0.0.1")
    async with other:
        port = other.sockets[0].getsockname()[1]
        found = await look(lnd, ("lnd.host", f"127.0.0.1:{port}"))
    saw(found["lnd"], Level.FAILURE, "speaks no TLS", "gRPC port")


async def test_an_lnd_that_does_not_answer_ends_the_look(lnd: TellingLnd) -> None:
    """Within its time."""
    async with asyncio.timeout(4):
        silent = await asyncio.start_server(lambda _r, _w: asyncio.sleep(60), "127.0.0.1")
        port = silent.sockets[0].getsockname()[1]
        found = await look(lnd, ("lnd.host", f"127.0.0.1:{port}"), deadline=0.3)
    saw(found["lnd"], Level.FAILURE, "no answer", "firewall")
    silent.close()


@pytest.mark.parametrize(
    ("days", "address", "host", "seen"),
    [
        (-1, "127.0.0.1", "127.0.0.1", "expired"),
        (30, "192.0.2.1", "127.0.0.1", "not for this name"),
        (30, "127.0.0.1", "localhost", "not for this name"),
    ],
)
async def test_a_bad_certificate_is_named(
    lnd: TellingLnd, days: int, address: str, host: str, seen: str
) -> None:
    """Expired, or for another address or name: gRPC itself says none of it."""
    await lnd.stop()
    lnd.use_certificate(days=days, address=address)
    await lnd.start()
    found = await look(lnd, ("lnd.host", f"{host}:{lnd.port}"))
    saw(found["lnd"], Level.FAILURE, seen, "restart LND")


async def test_anothers_certificate_is_named(lnd: TellingLnd) -> None:
    """The file is not what LND shows."""
    lnd.new_certificate()
    saw((await look(lnd))["lnd"], Level.FAILURE, "another certificate", "--lnd.tlspath")


async def test_a_certificate_that_ends_soon_is_a_warning(lnd: TellingLnd) -> None:
    """LND makes another only when it starts."""
    await lnd.stop()
    lnd.use_certificate(days=5)
    await lnd.start()
    found = await look(lnd)
    saw(found["lnd"], Level.OK, "answers")
    saw(found["lnd.certificate"], Level.WARNING, "good for 5 days", "restart LND")


@pytest.mark.parametrize("name", ["tls_path", "macaroon_path"])
async def test_a_file_that_is_missing_is_named(lnd: TellingLnd, name: str) -> None:
    """With the setting that names it."""
    path: Path = getattr(lnd, name)
    path.unlink()
    saw((await look(lnd))["lnd"], Level.FAILURE, str(path), "set --lnd.")


@pytest.mark.parametrize(
    ("wallet", "seen", "advice"),
    [
        (state.LOCKED, "locked", "lncli unlock"),
        (state.NON_EXISTING, "no wallet", "lncli create"),
        (state.RPC_ACTIVE, "starting", "wait"),
    ],
)
async def test_a_wallet_that_is_not_open_is_a_failure(
    lnd: TellingLnd, wallet: state.WalletState.ValueType, seen: str, advice: str
) -> None:
    """It is told without a macaroon, and nothing more is asked then."""
    lnd.state = wallet
    found = await look(lnd)
    saw(found["lnd.wallet"], Level.FAILURE, seen, advice)
    assert set(found) == {"lnd", "lnd.certificate", "lnd.wallet"}


# --- the macaroon ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("uri", permissions.NATIVE)
async def test_each_call_that_the_macaroon_lacks_is_named(lnd: TellingLnd, uri: str) -> None:
    """One by one, streams too; the rest is seen all the same."""
    lnd.denied = {uri}
    found = await look(lnd)
    saw(found["lnd.macaroon"], Level.FAILURE, f"it lacks {uri}", "sidecar macaroon-permissions")
    assert ("lnd.mode" in found) == (uri != lnd_calls.GET_INFO.uri)


async def test_all_calls_of_the_recipe_are_tried(lnd: TellingLnd, old_lnd: TellingLnd) -> None:
    """On each kind of LND those that it has."""
    assert f"all {len(permissions.NATIVE)} calls" in (await look(lnd))["lnd.macaroon"].seen
    assert f"all {len(permissions.CUSTOM)} calls" in (await look(old_lnd))["lnd.macaroon"].seen


async def test_several_that_are_lacking_have_a_line_each(lnd: TellingLnd) -> None:
    """None hides another."""
    lnd.denied = {lnd_calls.LIST_PEERS.uri, lnd_calls.SEND_ONION.uri}
    given = {"datadir": str(lnd.folder), "lnd.host": lnd.host, "lnd.tlspath": str(lnd.tls_path)}
    settings = load(given | {"lnd.macaroonpath": str(lnd.macaroon_path)}, {})
    found = [each.seen for each in await examine(settings) if each.name == "lnd.macaroon"]
    assert found == [f"it lacks {uri}" for uri in sorted(lnd.denied)]


async def test_a_macaroon_of_another_lnd_is_a_failure(lnd: TellingLnd) -> None:
    """Said once, not for each call."""
    lnd.macaroon_path.write_bytes(os.urandom(32))
    found = await look(lnd)
    saw(found["lnd.macaroon"], Level.FAILURE, "does not accept", "--lnd.macaroonpath")


async def test_a_macaroon_that_allows_payments_is_a_warning(lnd: TellingLnd) -> None:
    """Such as admin.macaroon: the sidecar never pays."""
    lnd.macaroon_pays = True
    saw((await look(lnd))["lnd.macaroon"], Level.WARNING, "allows payments", "macaroon-permissions")


# --- how it is set up -----------------------------------------------------------------------------------


async def test_an_lnd_without_onion_messages_is_a_failure(lnd: TellingLnd, old_lnd: TellingLnd) -> None:
    """Each kind has its own remedy."""
    lnd.features = old_lnd.features = {729}
    saw((await look(lnd))["lnd.onion-messages"], Level.FAILURE, "bit 39", "protocol.no-onion-messages")
    found = await look(old_lnd)
    saw(found["lnd.onion-messages"], Level.FAILURE, "bit 39", "protocol.custom-nodeann=39")


async def test_an_lnd_that_does_not_announce_lsps_is_a_warning(lnd: TellingLnd) -> None:
    """Wallets can't see it, and all else works."""
    lnd.features = {39}
    saw((await look(lnd))["lnd.lsps"], Level.WARNING, "729", "protocol.custom-init=729")


async def test_aliases_are_a_warning_on_a_native_lnd(lnd: TellingLnd, old_lnd: TellingLnd) -> None:
    """There they keep LDK 0.2 from being paid; LND 0.20 is not touched by it."""
    lnd.features = old_lnd.features = {39, 47, 729}
    saw((await look(lnd))["lnd.scid-alias"], Level.WARNING, "LDK 0.2", "take protocol.option-scid-alias")
    assert "lnd.scid-alias" not in await look(old_lnd)


async def test_custom_mode_is_warned_of_the_upgrade(old_lnd: TellingLnd) -> None:
    """And needs a line that can't be seen from here, unless lnd.conf is at hand."""
    found = await look(old_lnd)
    saw(found["lnd.mode"], Level.OK, "custom: LND 0.20.3-beta")
    saw(found["lnd.upgrade"], Level.WARNING, "0.21", "remove protocol.custom-message=513, protocol.custom-i")
    saw(
        found["lnd.custom-message"], Level.INFO, "protocol.custom-message=513", "grep protocol.custom-message"
    )
    conf(old_lnd, "protocol.custom-message=512")
    found = await look(old_lnd)
    saw(found["lnd.custom-message"], Level.FAILURE, "not in lnd.conf", "put protocol.custom-message=513")
    conf(old_lnd, "protocol.custom-message=512", "protocol.custom-message = 513")
    assert (await look(old_lnd))["lnd.custom-message"].level is Level.OK


async def test_an_lnd_on_another_network_is_a_failure(lnd: TellingLnd) -> None:
    """And one on a network that the sidecar does not know."""
    found = await look(lnd, ("network", "mainnet"))
    saw(found["lnd.network"], Level.FAILURE, "regtest, and --network says mainnet", "--network")
    lnd.network = "elsewhere"
    saw((await look(lnd))["lnd.network"], Level.FAILURE, "elsewhere", "regtest")


async def test_an_lnd_that_is_not_synced_is_told(lnd: TellingLnd) -> None:
    """To the chain: a failure; to the graph: a warning."""
    lnd.synced_to_graph = False
    saw((await look(lnd))["lnd.sync"], Level.WARNING, "graph", "wait")
    lnd.synced_to_chain = False
    saw((await look(lnd))["lnd.sync"], Level.FAILURE, "chain", "chain backend")


@pytest.mark.parametrize(
    ("uris", "seen"),
    [
        ([], "none is announced"),
        (["02ab@10.0.0.1:9735", "02ab@127.0.0.1:9735", "02ab@[fd00::1]:9735"], "only private"),
        (["02ab@10.0.0.1:9735", f"02ab@{'a' * 56}.onion:9735"], "only Tor"),
    ],
)
async def test_an_address_that_payers_can_not_reach_is_a_warning(
    lnd: TellingLnd, uris: list[str], seen: str
) -> None:
    """On mainnet; on a test network private ones are as good."""
    lnd.network, lnd.uris = "mainnet", uris
    saw((await look(lnd))["lnd.address"], Level.WARNING, seen, "externalip=")
    lnd.network = "regtest"
    assert (await look(lnd))["lnd.address"].level is (Level.OK if uris else Level.WARNING)


async def test_a_public_address_is_enough(lnd: TellingLnd) -> None:
    """A name, IPv6 or IPv4, among others."""
    lnd.network = "mainnet"
    for host in ("node.example.com", "[2a00:1450::1]", "93.184.216.34"):
        lnd.uris = ["02ab@10.0.0.1:9735", f"02ab@{host}:9735"]
        assert (await look(lnd))["lnd.address"].level is Level.OK, host


async def test_a_certificate_with_a_word_above_it_is_read(lnd: TellingLnd) -> None:
    """As tools write it there, in whatever script."""
    lnd.tls_path.write_bytes("# für LND\n".encode() + lnd.tls_path.read_bytes())
    assert (await look(lnd))["lnd"].level is Level.OK


async def test_an_lnd_that_nothing_can_reach_is_a_warning(lnd: TellingLnd) -> None:
    """No channels, none active, or none with a peer that speaks onion messages."""
    await lnd.node.peers[keys.public_key(PEER)].close()
    saw((await look(lnd))["lnd.channels"], Level.WARNING, "0 of 1 active", "lncli listchannels")
    await lnd.connect_peer(PEER, features=())
    await lnd.connect_peer(b"\x12" * 32)  # speaks them, and has no channel
    saw((await look(lnd))["lnd.channels"], Level.WARNING, "none of which speaks onion", "open a channel")
    lnd.node.channels.clear()
    saw((await look(lnd))["lnd.channels"], Level.WARNING, "none", "open channels")


async def test_the_clock_is_held_against_lnds_best_block(lnd: TellingLnd) -> None:
    """Behind it: a failure."""
    lnd.best_block += 4 * 3_600
    saw((await look(lnd))["clock"], Level.FAILURE, "4 hours behind", "timedatectl")


def test_the_recipe_does_not_allow_what_tells_a_macaroon_that_allows_more() -> None:
    """Or every macaroon would be taken for one that pays."""
    assert doctor_lnd.CHECK_MACAROON.uri not in permissions.NATIVE
