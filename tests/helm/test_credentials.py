"""Shape `sidecar` on a real LND: lnd.conf as the chart makes it, and what bakes the macaroon."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from cryptography import x509

from sidecar.adapters.permissions import CUSTOM, NATIVE, ROOT_KEY_ID, permissions
from sidecar.rpc import lightning_pb2 as ln
from sidecar.rpc import lightning_pb2_grpc as ln_rpc
from tests.harness.asserting import SILENCE
from tests.harness.bolt8 import connect
from tests.harness.lnd_process import LndProcess
from tests.harness.noise import new_secret
from tests.helm.charts import Helm
from tests.helm.rendered_lnd import Credentials, RenderedLnd

pytestmark = [pytest.mark.helm, pytest.mark.asyncio(loop_scope="module")]

BAKED, COPIED = "baked the sidecar's macaroon", "copied LND's certificate"
ALIAS = 'a "b"; # c = 100 % ü'
OF_OPERATOR = {
    "alias": ALIAS,
    "trickledelay": 1_000_000,
    "protocol.custom-init": [39_001, 729],
    "tlsextradomain": "lnd.example.com",
}
Calls = Callable[[str], Callable[[bytes], Awaitable[bytes]]]
RULES = {"native": NATIVE, "custom": CUSTOM}
ONION_MESSAGES, LSPS = 39, 729


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["native", "custom"])
async def lnd(
    request: pytest.FixtureRequest, helm: Helm, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RenderedLnd]:
    """An LND of each kind, with lines of the operator's."""
    more = {"lnd.config": OF_OPERATOR, "lnd.rpc.enabled": True}
    async with RenderedLnd(helm, request.param, tmp_path_factory.mktemp("lnd"), more) as process:
        yield process


on_native = pytest.mark.parametrize("lnd", ["native"], indirect=True)


@pytest_asyncio.fixture(loop_scope="module")
async def credentials(helm: Helm, lnd: RenderedLnd, tmp_path: Path) -> AsyncIterator[Credentials]:
    """The container beside it, that has done its work."""
    async with Credentials(helm, lnd, tmp_path) as container:
        await container.says(BAKED)
        yield container


async def info(lnd: LndProcess, macaroon: Path) -> ln.GetInfoResponse:
    """GetInfo with this macaroon."""
    async with lnd.channel(macaroon) as channel:
        return await ln_rpc.LightningStub(channel).GetInfo(ln.GetInfoRequest())


async def test_lnd_takes_the_lnd_conf_of_its_version(lnd: RenderedLnd) -> None:
    """It announces both bits to peers and to the network, and takes the operator's lines beside ours."""
    described = await info(lnd, lnd.macaroon_path)
    assert described.alias == ALIAS
    assert {ONION_MESSAGES, LSPS} <= set(described.features)
    async with await connect("127.0.0.1", lnd.p2p_port, lnd.node_id, new_secret()) as link:
        assert {ONION_MESSAGES, LSPS, 39_001} <= link.remote_features


async def test_other_pods_find_their_name_for_lnd_in_its_certificate(lnd: RenderedLnd) -> None:
    """With `lnd.rpc`: each form of the Service's name, beside the operator's own."""
    certificate = x509.load_pem_x509_certificate(lnd.tls_path.read_bytes())
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    names = set(extension.value.get_values_for_type(x509.DNSName))
    service = "test-static-invoice-sidecar-lnd-rpc"
    wanted = {service, f"{service}.lightning", f"{service}.lightning.svc"}
    assert {*wanted, f"{service}.lightning.svc.cluster.local", "localhost", "lnd.example.com"} <= names


async def test_it_bakes_what_the_program_calls_and_nothing_more(
    lnd: RenderedLnd, credentials: Credentials
) -> None:
    """For either LND: the URIs of `sidecar macaroon-permissions`, in files that our group alone can read."""
    baked = await lnd.lncli("printmacaroon", f"--macaroon_file={credentials.macaroon}")
    assert sorted(baked["permissions"]) == sorted(permissions(RULES[lnd.kind]))
    assert baked["root_key_id"] == str(ROOT_KEY_ID)
    assert credentials.certificate.read_bytes() == lnd.tls_path.read_bytes()
    files = {path.name: path.stat().st_mode & 0o777 for path in credentials.folder.iterdir()}
    assert files == {"sidecar.macaroon": 0o640, "tls.cert": 0o640}


@on_native
async def test_a_renewed_certificate_is_copied_again(lnd: RenderedLnd, credentials: Credentials) -> None:
    """And the macaroon stays: LND still takes it."""
    macaroon = credentials.macaroon.read_bytes()
    await lnd.stop()
    lnd.tls_path.unlink()
    lnd.tls_path.with_suffix(".key").unlink()
    await lnd.start()
    while credentials.certificate.read_bytes() != lnd.tls_path.read_bytes():
        await credentials.says(COPIED)
    assert credentials.macaroon.read_bytes() == macaroon
    await info(lnd, credentials.macaroon)


@on_native
async def test_a_macaroon_that_lnd_forgot_is_baked_again(lnd: RenderedLnd, credentials: Credentials) -> None:
    """`lncli deletemacaroonid 66` makes a stolen one useless, and the sidecar gets another."""
    stolen = lnd.directory / "stolen.macaroon"
    stolen.write_bytes(credentials.macaroon.read_bytes())
    await lnd.lncli("deletemacaroonid", str(ROOT_KEY_ID))
    await credentials.says(BAKED)
    await info(lnd, credentials.macaroon)
    with pytest.raises(grpc.aio.AioRpcError, match="verification failed"):
        await info(lnd, stolen)


@on_native
async def test_a_macaroon_that_is_gone_is_baked_again(lnd: RenderedLnd, credentials: Credentials) -> None:
    """Whoever deletes the file has no need to restart the pod."""
    credentials.macaroon.unlink()
    await credentials.says(BAKED)
    await info(lnd, credentials.macaroon)


@on_native
async def test_a_macaroon_that_is_good_stays(credentials: Credentials) -> None:
    """It is asked for again and again, and nothing is baked or said."""
    before = credentials.macaroon.stat()
    await asyncio.sleep(SILENCE)
    assert credentials.macaroon.stat().st_mtime_ns == before.st_mtime_ns
    assert credentials.said() == []


@on_native
async def test_sigterm_ends_it_at_once(helm: Helm, lnd: RenderedLnd, tmp_path: Path) -> None:
    """With 0 and within a second, though it sleeps between two looks."""
    async with Credentials(helm, lnd, tmp_path, every=60) as container:
        await container.says(BAKED)
        async with asyncio.timeout(1):
            assert await container.terminate() == 0


@on_native
async def test_sigterm_ends_it_at_once_while_lnd_hangs(lnd: RenderedLnd, credentials: Credentials) -> None:
    """A call that is not answered holds nothing up."""
    os.kill(lnd.pid, signal.SIGSTOP)
    try:
        credentials.macaroon.unlink()
        await asyncio.sleep(0.5)
        async with asyncio.timeout(1):
            assert await credentials.terminate() == 0
    finally:
        os.kill(lnd.pid, signal.SIGCONT)


async def wallet(lnd: LndProcess, password: bytes, call: str) -> None:
    """Make LND's wallet ("InitWallet"), or unlock it ("UnlockWallet")."""
    # Written by hand: the sidecar never does this, and its copy of LND's protocol has no such messages.
    request = bytes([0x0A, len(password)]) + password
    async with lnd._channel(None) as channel:
        calls = cast("Calls", channel.unary_unary)
        if call == "InitWallet":
            seed = await calls("/lnrpc.WalletUnlocker/GenSeed")(b"")
            while seed.startswith(b"\x0a"):
                word, seed = seed[2 : 2 + seed[1]], seed[2 + seed[1] :]
                request += bytes([0x12, len(word)]) + word
        await calls(f"/lnrpc.WalletUnlocker/{call}")(request)


async def test_it_waits_for_the_wallet(helm: Helm, tmp_path: Path) -> None:
    """It says what it waits for, `lncli create` or `lncli unlock`, once, and goes on by itself."""
    more = {"lnd.config": {"noseedbackup": False}}
    async with (
        RenderedLnd(helm, "native", tmp_path, more) as lnd,
        Credentials(helm, lnd, tmp_path) as container,
    ):
        await container.says("waiting: LND has no wallet yet (lncli create)")
        await wallet(lnd, b"correct horse", "InitWallet")
        await container.says(BAKED)
        await lnd.restart()
        await container.says("waiting: LND's wallet is locked (lncli unlock)")
        await asyncio.sleep(SILENCE)
        assert container.said() == []
        await wallet(lnd, b"correct horse", "UnlockWallet")
        container.macaroon.unlink()
        await container.says(BAKED)


async def test_lnd_unlocks_itself_with_the_password_of_a_secret(helm: Helm, tmp_path: Path) -> None:
    """It starts before there is a wallet, and the container's macaroon is baked after each start."""
    more = {"lnd.config": {"noseedbackup": False}, "lnd.wallet.passwordSecret": "wallet"}
    lnd = RenderedLnd(helm, "native", tmp_path, more)
    lnd.wallet_password.write_text("correct horse\n")
    async with lnd, Credentials(helm, lnd, tmp_path) as container:
        await wallet(lnd, b"correct horse", "InitWallet")
        await container.says(BAKED)
        await lnd.stop()
        container.macaroon.unlink()
        lnd.wallet = True
        await lnd.start()
        await container.says(BAKED)
