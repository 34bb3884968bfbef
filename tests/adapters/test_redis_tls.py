"""`rediss://` for real: TLS in front of a real Redis, whose certificate is checked."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar.adapters.redis_setup import open_store
from sidecar.core.errors import StoreUnavailable
from tests.adapters.conftest import NODE, SAFE, Servers
from tests.harness.certificates import self_signed
from tests.harness.store_contract import a_client


@dataclass
class Terminator:
    """A TLS server that hands what it decrypts to a Redis on a Unix socket."""

    port: int
    certificate: Path


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # Cancelled when the test is over, where asyncio would complain of it.
    with contextlib.suppress(OSError, asyncio.CancelledError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def terminator(servers: Servers, old_redis: Path, tmp_path: Path) -> AsyncIterator[Terminator]:
    """TLS on a free loopback port. The servers that the wheels carry were built without it."""
    redis = servers.start(old_redis, *SAFE)
    key, certificate = self_signed()
    (tmp_path / "tls.key").write_bytes(key)
    (tmp_path / "tls.cert").write_bytes(certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "tls.cert", tmp_path / "tls.key")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_unix_connection(redis.socket)
        await asyncio.gather(_pour(reader, back_writer), _pour(back_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield Terminator(server.sockets[0].getsockname()[1], tmp_path / "tls.cert")
    server.close()


async def test_a_store_opens_over_tls_with_a_certificate_that_is_trusted(
    terminator: Terminator, tmp_path: Path
) -> None:
    """What is kept over rediss:// is there."""
    url = f"rediss://127.0.0.1:{terminator.port}?ssl_ca_certs={terminator.certificate}"
    store = await open_store(url, tmp_path / "data", NODE, "strict")
    added = a_client()
    await store.add_client(added)
    assert [client for client, _ in await store.list_clients()] == [added]
    await store.close()


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    terminator: Terminator, tmp_path: Path
) -> None:
    """Without its authority a server's certificate proves nothing: no invoice goes there."""
    with pytest.raises(StoreUnavailable, match="certificate verify failed"):
        await open_store(f"rediss://127.0.0.1:{terminator.port}", tmp_path / "data", NODE, "strict")
