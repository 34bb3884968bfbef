"""Lnd and LndNodeKey against the simulated LND: credentials, restarts, and what an operator is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from sidecar.adapters import lnd_calls as calls
from sidecar.adapters.lnd import Lnd, LndNodeKey, LndSigner, NodeInfo
from sidecar.adapters.lnd_calls import Call, Fault, fault_of
from sidecar.adapters.lnd_channel import lacking
from sidecar.core import keys
from sidecar.core.diagnosis_lnd import CUSTOM_LINES
from sidecar.core.errors import (
    BadPoint,
    ForbiddenPoint,
    LndDenied,
    LndSetupError,
    LndUnavailable,
    NoRoute,
)
from sidecar.ports import MessageSigner
from sidecar.rpc import lightning_pb2 as ln
from tests.harness import ln_signature
from tests.harness.mounted import Mount
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.sim_node import Mode

POINT = keys.public_key(b"\x07" * 32)


@pytest.fixture
async def sim(tmp_path: Path) -> AsyncIterator[SimulatedLnd]:
    """A running native one."""
    async with SimulatedLnd(tmp_path / "lnd") as running:
        yield running


@pytest.fixture
async def lnd(sim: SimulatedLnd) -> AsyncIterator[Lnd]:
    """A connection to it."""
    connected = Lnd(sim.host, sim.tls_path, sim.macaroon_path)
    yield connected
    await connected.aclose()


async def info_of(lnd: Lnd) -> ln.GetInfoResponse:
    """Any call that needs the macaroon."""
    return await lnd.call(calls.GET_INFO, ln.GetInfoRequest())


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged at info or above by the adapters."""
    return [record.msg["event"] for record in caplog.records if record.name.startswith("sidecar.")]  # type: ignore[index]


async def until_logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Wait until a line holds `text`."""
    arrived = asyncio.Event()

    class _Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if text in record.getMessage():
                arrived.set()

    watch = _Watch()
    logging.getLogger("sidecar").addHandler(watch)
    try:
        if not any(text in line for line in said(caplog)):
            await asyncio.wait_for(arrived.wait(), 20)
    finally:
        logging.getLogger("sidecar").removeHandler(watch)


# --- which LND it is -----------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "version"), [("native", "0.21.2-beta"), ("custom", "0.20.3-beta")])
async def test_describe_finds_the_mode_by_itself(tmp_path: Path, mode: Mode, version: str) -> None:
    """SendOnionMessage is there, or it is not."""
    async with SimulatedLnd(tmp_path, mode) as sim:
        lnd = Lnd(sim.host, sim.tls_path, sim.macaroon_path)
        assert await lnd.describe() == NodeInfo(sim.node_id, version, "regtest", mode)
        await lnd.check_permissions()
        await lnd.aclose()


@pytest.mark.parametrize(
    ("mode", "named"),
    [
        ("native", ["protocol.no-onion-messages"]),
        ("custom", list(CUSTOM_LINES)),
    ],
)
async def test_a_missing_bit_39_names_the_lines_of_lnd_conf(
    tmp_path: Path, mode: Mode, named: list[str]
) -> None:
    """In each mode the error says what to write, or to take out."""
    async with SimulatedLnd(tmp_path, mode, features=()) as sim:
        lnd = Lnd(sim.host, sim.tls_path, sim.macaroon_path)
        with pytest.raises(LndSetupError) as caught:
            await lnd.describe()
        assert all(line in str(caught.value) for line in named)
        await lnd.aclose()


async def test_bit_38_is_as_good_as_39(tmp_path: Path) -> None:
    """A node may require what others offer."""
    async with SimulatedLnd(tmp_path, features=(38,)) as sim:
        lnd = Lnd(sim.host, sim.tls_path, sim.macaroon_path)
        assert (await lnd.describe()).mode == "native"
        await lnd.aclose()


# --- files and permissions -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "option"), [("tls.cert", "--lnd.tlspath"), ("sidecar.macaroon", "--lnd.macaroonpath")]
)
@pytest.mark.parametrize("state", ["missing", "empty", "folder"])
async def test_a_file_that_cannot_be_read_is_named_with_its_option(
    sim: SimulatedLnd, name: str, option: str, state: str
) -> None:
    """One clear error, before anything is connected."""
    path = sim.folder / name
    path.unlink()
    if state == "empty":
        path.touch()
    elif state == "folder":
        path.mkdir()
    with pytest.raises(LndSetupError) as caught:
        Lnd(sim.host, sim.tls_path, sim.macaroon_path)
    assert str(path) in str(caught.value)
    assert option in str(caught.value)


def test_what_the_files_lack_is_told_of_both(tmp_path: Path) -> None:
    """One that is not there, can't be read or is empty; whoever writes it may not be done."""
    tls_path, macaroon_path = tmp_path / "tls.cert", tmp_path / "m"
    tls_path.mkdir()
    assert lacking(tls_path, macaroon_path) == [
        f"certificate at {tls_path} (Is a directory)",
        f"macaroon at {macaroon_path} (No such file or directory)",
    ]
    tls_path.rmdir()
    tls_path.write_bytes(b"c")
    macaroon_path.touch()
    assert lacking(tls_path, macaroon_path) == [f"macaroon at {macaroon_path} (empty)"]
    macaroon_path.write_bytes(b"m")
    assert lacking(tls_path, macaroon_path) == []


async def test_a_wrong_macaroon_is_one_clear_error(sim: SimulatedLnd) -> None:
    """The file and the option are named; LND's own words are in it."""
    sim.macaroon_path.write_bytes(b"of another LND")
    lnd = Lnd(sim.host, sim.tls_path, sim.macaroon_path)
    with pytest.raises(LndDenied, match=r"--lnd\.macaroonpath") as caught:
        await lnd.describe()
    assert str(sim.macaroon_path) in str(caught.value)
    assert "verification failed" in str(caught.value)
    await lnd.aclose()


async def test_a_lacking_permission_is_named_by_its_uri(sim: SimulatedLnd, lnd: Lnd) -> None:
    """With the command that tells how to bake a better macaroon."""
    sim.denied.add(calls.LIST_PEERS.uri)
    with pytest.raises(LndDenied, match=r"/lnrpc\.Lightning/ListPeers.*sidecar macaroon-permissions"):
        await lnd.call(calls.LIST_PEERS, ln.ListPeersRequest())


async def test_check_permissions_names_all_that_lack_at_once(sim: SimulatedLnd, lnd: Lnd) -> None:
    """So that the operator bakes once."""
    lacking = {calls.DERIVE_SHARED_KEY.uri, calls.CONNECT_PEER.uri, calls.GET_NODE_INFO.uri}
    sim.denied |= lacking
    with pytest.raises(LndDenied) as caught:
        await lnd.check_permissions()
    assert all(uri in str(caught.value) for uri in lacking)
    assert calls.LIST_PEERS.uri not in str(caught.value)
    assert not sim.dialled


@pytest.mark.parametrize("mode", ["native", "custom"])
@pytest.mark.parametrize("call", [calls.SIGN_MESSAGE, calls.SEND_CUSTOM], ids=lambda call: call.name)
async def test_check_permissions_names_what_waking_clients_needs(
    tmp_path: Path, mode: Mode, call: Call[Any, Any]
) -> None:
    """In both modes: a macaroon from before there was LSPS5 has neither. Nothing is signed or sent."""
    async with SimulatedLnd(tmp_path, mode) as sim:
        sim.denied.add(call.uri)
        lnd = Lnd(sim.host, sim.tls_path, sim.macaroon_path)
        with pytest.raises(LndDenied, match=rf"lacks {call.uri}: `sidecar macaroon-permissions`"):
            await lnd.check_permissions()
        sim.denied.clear()
        await lnd.check_permissions()
        await lnd.aclose()


@pytest.mark.parametrize(
    ("mode", "uri"), [("native", calls.SEND_ONION.uri), ("custom", calls.SEND_CUSTOM.uri)]
)
async def test_describe_tells_when_the_macaroon_may_not_send(tmp_path: Path, mode: Mode, uri: str) -> None:
    """The mode is found all the same, and the URI of that mode is the one that is named."""
    async with SimulatedLnd(tmp_path, mode) as sim:
        sim.denied.add(uri)
        lnd = Lnd(sim.host, sim.tls_path, sim.macaroon_path)
        with pytest.raises(LndDenied, match=uri):
            await lnd.describe()
        await lnd.aclose()


async def test_a_replaced_macaroon_is_read_again_without_a_restart(sim: SimulatedLnd, lnd: Lnd) -> None:
    """The call that met the change succeeds, and so do all that run beside it."""
    await info_of(lnd)
    sim.new_macaroon()
    answers = await asyncio.gather(*(info_of(lnd) for _ in range(20)))
    assert {answer.identity_pubkey for answer in answers} == {sim.node_id.hex()}


async def test_a_macaroon_with_the_lacking_permission_is_taken_at_once(sim: SimulatedLnd, lnd: Lnd) -> None:
    """The operator bakes another, and the next call works."""
    sim.denied.add(calls.GET_INFO.uri)
    with pytest.raises(LndDenied):
        await info_of(lnd)
    sim.denied.clear()
    sim.new_macaroon()
    await info_of(lnd)


async def test_a_replaced_certificate_is_read_again_without_a_restart(sim: SimulatedLnd, lnd: Lnd) -> None:
    """LND renewed its certificate over a restart."""
    await lnd.wait_ready()
    sim.new_certificate()
    await sim.restart()
    await lnd.wait_ready()
    answers = await asyncio.gather(*(info_of(lnd) for _ in range(20)))
    assert len(answers) == 20


async def test_a_secret_that_is_mounted_may_bring_both_files_anew(sim: SimulatedLnd, tmp_path: Path) -> None:
    """As Kubernetes replaces it, by a link to another directory: the next call takes both files at once."""

    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (sim.tls_path, sim.macaroon_path)}

    mount = Mount(tmp_path / "mount", files())
    lnd = Lnd(sim.host, mount / sim.tls_path.name, mount / sim.macaroon_path.name)
    await info_of(lnd)
    sim.new_macaroon()
    mount.swap(files())
    await info_of(lnd)
    for times in range(2):
        sim.new_certificate()
        sim.new_macaroon()
        await sim.restart()
        mount.swap(files())
        assert (await info_of(lnd)).identity_pubkey == sim.node_id.hex(), times
    await lnd.aclose()


async def test_a_wrong_certificate_at_start_is_one_clear_error(sim: SimulatedLnd, tmp_path: Path) -> None:
    """The file and the options are named; nothing waits for what will not come."""
    other = SimulatedLnd(tmp_path / "other")
    lnd = Lnd(sim.host, other.tls_path, sim.macaroon_path)
    with pytest.raises(LndDenied, match=r"--lnd\.tlspath") as caught:
        await lnd.wait_ready()
    assert str(other.tls_path) in str(caught.value)
    with pytest.raises(LndDenied):
        await info_of(lnd)
    await lnd.aclose()


async def test_a_certificate_that_comes_late_is_waited_for(
    sim: SimulatedLnd, lnd: Lnd, caplog: pytest.LogCaptureFixture
) -> None:
    """Once LND was there, a wrong certificate is said once, and ends nothing."""
    caplog.set_level(logging.INFO)
    await lnd.wait_ready()
    old = sim.tls_path.read_bytes()
    sim.new_certificate()
    fresh = sim.tls_path.read_bytes()
    await sim.restart()
    sim.tls_path.write_bytes(old)
    waiting = asyncio.create_task(lnd.wait_ready())
    await until_logged(caplog, "does not show the certificate")
    sim.tls_path.write_bytes(fresh)
    await asyncio.wait_for(waiting, 30)
    assert sum("does not show the certificate" in line for line in said(caplog)) == 1


# --- away, locked, back --------------------------------------------------------------------------


async def test_wait_ready_says_each_change_once(
    sim: SimulatedLnd, lnd: Lnd, caplog: pytest.LogCaptureFixture
) -> None:
    """Away, locked, unlocked: a line for each, however many tries there are."""
    caplog.set_level(logging.INFO)
    await lnd.wait_ready()
    assert said(caplog) == []
    await sim.stop()
    waiting = [asyncio.create_task(lnd.wait_ready()) for _ in range(3)]
    await until_logged(caplog, "not reachable")
    await sim.start(locked=True)
    await until_logged(caplog, "locked")
    sim.unlock()
    await asyncio.wait_for(asyncio.gather(*waiting), 30)
    assert said(caplog) == [
        "LND is not reachable",
        "LND is locked: unlock its wallet",
        "LND is starting",
        "LND is back",
    ]


async def test_a_locked_lnd_is_unavailable_and_no_operators_error(tmp_path: Path) -> None:
    """LND answers UNKNOWN while it is locked: calls say that it passes."""
    sim = SimulatedLnd(tmp_path)
    await sim.start(locked=True)
    lnd = Lnd(sim.host, sim.tls_path, sim.macaroon_path)
    with pytest.raises(LndUnavailable, match="wallet locked"):
        await info_of(lnd)
    await lnd.aclose()
    await sim.stop()


async def test_calls_fail_at_once_while_lnd_is_away_and_work_when_it_is_back(
    sim: SimulatedLnd, lnd: Lnd
) -> None:
    """No call hangs, and nothing has to be built anew."""
    await info_of(lnd)
    await sim.stop()
    with pytest.raises(LndUnavailable):
        await asyncio.wait_for(info_of(lnd), 5)
    await sim.start()
    await lnd.wait_ready()
    await info_of(lnd)


async def test_closing_the_connection_is_no_cancellation_of_the_caller(lnd: Lnd) -> None:
    """Calls on a closed channel are cancelled by gRPC; a task must not take that for its own end."""

    async def read() -> None:
        async with lnd.subscribe(calls.PEER_EVENTS, ln.PeerEventSubscription()) as events:
            opened.set()
            async for _ in events:
                pass

    opened = asyncio.Event()
    reading = asyncio.create_task(read())
    await opened.wait()
    await lnd.aclose()
    with pytest.raises(LndUnavailable):
        await reading


async def test_what_lnd_answers_to_a_request_itself_is_the_callers_to_name(lnd: Lnd) -> None:
    """NOT_FOUND means something else to each caller."""
    with pytest.raises(NoRoute, match="unable to find node"):
        await lnd.call(calls.GET_NODE_INFO, ln.NodeInfoRequest(pub_key=POINT.hex()), failed=NoRoute)


@pytest.mark.parametrize(
    ("code", "details", "fault"),
    [
        ("UNKNOWN", "wallet locked, unlock it to enable full RPC access", Fault.AWAY),
        ("UNKNOWN", "wallet not created, create one to enable full RPC access", Fault.AWAY),
        ("UNKNOWN", "waiting to start, RPC services not available", Fault.AWAY),
        (
            "UNKNOWN",
            "the RPC server is in the process of starting up, but not yet ready to accept calls",
            Fault.AWAY,
        ),
        ("UNKNOWN", "server is still in the process of starting", Fault.AWAY),
        ("UNKNOWN", "server is shutting down", Fault.AWAY),
        ("UNKNOWN", "unable to determine macaroon permissions", Fault.AWAY),
        ("UNAVAILABLE", "Stream removed (Socket closed)", Fault.AWAY),
        ("UNAVAILABLE", "Stream removed (ping timeout)", Fault.AWAY),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", Fault.AWAY),
        (
            "UNAVAILABLE",
            "Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED: OK",
            Fault.CERTIFICATE,
        ),
        (
            "UNAVAILABLE",
            "failed to connect to all addresses; last error: Failed to create security handshaker.",
            Fault.CERTIFICATE,
        ),
        ("UNKNOWN", "permission denied", Fault.PERMISSION),
        ("UNKNOWN", "dial tcp 10.0.0.1:9735: connect: permission denied", Fault.REJECTED),
        ("UNKNOWN", "expected 1 macaroon, got 0", Fault.MACAROON),
        ("UNKNOWN", "cannot determine data format of binary-encoded macaroon", Fault.MACAROON),
        ("UNKNOWN", "verification failed: signature mismatch after caveat verification", Fault.MACAROON),
        ("UNKNOWN", "cannot get macaroon: root key with id doesn't exist", Fault.MACAROON),
        ("UNAUTHENTICATED", "", Fault.MACAROON),
        ("UNIMPLEMENTED", "unknown method SendOnionMessage for service lnrpc.Lightning", Fault.MISSING),
        ("UNKNOWN", "msg type: 513 not in custom range: 32768 and not overridden", Fault.NOT_CUSTOM),
        ("UNKNOWN", "unable to decode path key bytes: malformed public key", Fault.REJECTED),
        ("NOT_FOUND", "peer is not connected", Fault.REJECTED),
        ("NOT_FOUND", "edge not found", Fault.REJECTED),
    ],
)
def test_lnds_errors_mean_what_was_seen(code: str, details: str, fault: Fault) -> None:
    """Codes and texts as LND 0.20 and 0.21 gave them."""
    assert fault_of(grpc.StatusCode[code], details) is fault


# --- its key -------------------------------------------------------------------------------------


async def test_ecdh_is_bolt_4s(sim: SimulatedLnd, lnd: Lnd) -> None:
    """SHA256 of the compressed product, many at once."""
    points = [keys.public_key(bytes([value]) * 32) for value in range(1, 20)]
    node_key = LndNodeKey(lnd)
    secrets = await asyncio.gather(*(node_key.ecdh(point) for point in points))
    assert list(secrets) == [sim.node.ecdh(point) for point in points]


async def test_the_root_point_is_refused_and_only_root_may_ask_for_it(sim: SimulatedLnd, lnd: Lnd) -> None:
    """Neither it nor its negative, and without a word to LND."""
    node_key, nums = LndNodeKey(lnd), keys.NUMS_POINT
    negative = bytes([nums[0] ^ 1]) + nums[1:]
    for point in (nums, negative):
        with pytest.raises(ForbiddenPoint):
            await node_key.ecdh(point)
    assert sim.called["DeriveSharedKey"] == 0
    assert await node_key.root() == sim.node.ecdh(nums)


@pytest.mark.parametrize("point", [b"", b"\x02" * 32, b"\x02" + b"\xff" * 32, b"\x04" + b"\x01" * 64])
async def test_what_is_no_point_never_reaches_lnd(sim: SimulatedLnd, lnd: Lnd, point: bytes) -> None:
    """A call into the signer costs LND more than it costs whoever sends rubbish."""
    with pytest.raises(BadPoint):
        await LndNodeKey(lnd).ecdh(point)
    assert sim.called["DeriveSharedKey"] == 0


# --- signatures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["native", "custom"])
async def test_lnds_signature_leads_back_to_its_node_id(tmp_path: Path, mode: Mode) -> None:
    """Whoever has the text recovers the node from it: over these very bytes, and over no others."""
    async with SimulatedLnd(tmp_path, mode) as sim:
        lnd = Lnd(sim.host, sim.tls_path, sim.macaroon_path)
        signer: MessageSigner = LndSigner(lnd)
        for text in (b"LSPS5: DO NOT SIGN THIS MESSAGE MANUALLY", b"\x00\xff", bytes(5_000)):
            signature = await signer.sign_message(text)
            assert ln_signature.signer(signature, text) == sim.node_id
            assert ln_signature.signer(signature, text + b".") != sim.node_id
        await lnd.aclose()


async def test_signing_fails_as_every_call_does(sim: SimulatedLnd, lnd: Lnd) -> None:
    """LndDenied with the URI that lacks, LndUnavailable while LND is away."""
    sim.denied.add(calls.SIGN_MESSAGE.uri)
    with pytest.raises(LndDenied, match=calls.SIGN_MESSAGE.uri):
        await LndSigner(lnd).sign_message(b"text")
    await sim.stop()
    with pytest.raises(LndUnavailable):
        await LndSigner(lnd).sign_message(b"text")
