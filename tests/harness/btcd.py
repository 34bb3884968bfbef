"""A real chain for real LNDs: btcd on regtest, on loopback, in a folder of its own, stopped by its pid."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import signal
import ssl
from pathlib import Path
from typing import Any

from tests.harness.daemon import Daemon
from tests.harness.ports import free_port
from tests.lnd import build

# All coins are mined to the script OP_TRUE, which anybody may spend: so btcd needs no wallet, and no
# second start with an address of one.
SPEND_WITNESS = b"\x01\x01\x51"
_MINING_ADDRESS = "bcrt1qft5p2uhsdcdc3l2ua4ap5qqfg4pjaqlp250x7us7a8qqhrxrxfsqseac85"
_START_SECONDS = 30.0


class ChainError(Exception):
    """btcd did not start or refused a call; the text says what it said."""


class Btcd(Daemon):
    """A running btcd: `async with Btcd(folder) as chain: await chain.generate(110)`."""

    user = password = "tests"
    _stop_signal = signal.SIGTERM

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.rpc_port = free_port()
        self._tls: ssl.SSLContext | None = None

    @property
    def host(self) -> str:
        """Where its RPC listens."""
        return f"127.0.0.1:{self.rpc_port}"

    @property
    def cert_path(self) -> Path:
        """Its certificate, which it makes itself: LND speaks to no btcd without TLS."""
        return self.directory / "rpc.cert"

    async def start(self) -> None:
        """Start it, and wait until its RPC answers."""
        binary = await asyncio.to_thread(build.ensure, build.TOOLS_VERSION, "btcd")
        await self._launch(binary, self._arguments())

    def _arguments(self) -> list[str]:
        return [
            "--regtest",
            "--txindex",
            "--nodnsseed",
            "--nolisten",
            # The user's own settings must not reach the tests.
            f"--configfile={self.directory / 'btcd.conf'}",
            f"--datadir={self.directory / 'data'}",
            f"--logdir={self.directory / 'logs'}",
            f"--rpclisten={self.host}",
            f"--rpcuser={self.user}",
            f"--rpcpass={self.password}",
            f"--rpccert={self.cert_path}",
            f"--rpckey={self.directory / 'rpc.key'}",
            f"--miningaddr={_MINING_ADDRESS}",
        ]

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        # btcd tells nobody that it is ready: short polls, until it answers or ends.
        async with asyncio.timeout(_START_SECONDS):
            while process.returncode is None:
                try:
                    await self.tip()
                except (OSError, http.client.HTTPException):
                    await asyncio.sleep(0.02)
                else:
                    return
        raise ChainError(f"btcd ended with {process.returncode}:\n{self.log_tail()}")

    async def call(self, method: str, *params: Any) -> Any:
        """One JSON-RPC call. Raises ChainError."""
        return await asyncio.to_thread(self._call, method, params)

    def _call(self, method: str, params: tuple[Any, ...]) -> Any:
        if self._tls is None:
            self._tls = ssl.create_default_context(cafile=self.cert_path)
        login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        body = json.dumps({"jsonrpc": "1.0", "id": 1, "method": method, "params": params})
        connection = http.client.HTTPSConnection("127.0.0.1", self.rpc_port, timeout=30, context=self._tls)
        with contextlib.closing(connection):
            connection.request("POST", "/", body, {"Authorization": f"Basic {login}"})
            answer = json.loads(connection.getresponse().read())
        if answer.get("error"):
            raise ChainError(f"{method}: {answer['error']}")
        return answer["result"]

    async def tip(self) -> int:
        """The height of the newest block."""
        height: int = await self.call("getblockcount")
        return height

    async def generate(self, blocks: int) -> None:
        """Mine."""
        await self.call("generate", blocks)

    async def block(self, height: int) -> bytes:
        """A block as it goes over the wire."""
        return bytes.fromhex(await self.call("getblock", await self.call("getblockhash", height), 0))
