"""The cheapest possible answerer: LND's calls of an answer, and nothing else.

For each message that LND streams: as many DeriveSharedKey as it is told, and then at once two
SendOnionMessage of packets that were made beforehand. It opens, checks and keeps nothing.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from sidecar.rpc import lightning_pb2 as ln
from sidecar.rpc import lightning_pb2_grpc as ln_rpc
from sidecar.rpc import signer_pb2 as signer
from sidecar.rpc import signer_pb2_grpc as signer_rpc
from tests.bench.children import serve

_NODE_KEY = signer.KeyDescriptor(key_loc=signer.KeyLocator(key_family=6, key_index=0))
_EPHEMERAL = slice(1, 34)


class Cheapest:
    """Answers while it is told to."""

    def __init__(self) -> None:
        self._metadata: tuple[tuple[str, str], ...] = ()
        self._wallets: dict[bytes, bytes] = {}
        self._forward = self._answer = b""
        self._derivations = 1
        self._lightning: Any = None
        self._signer: Any = None
        self._following: asyncio.Task[None] | None = None
        self._failed = 0

    async def connect(self, told: dict[str, Any]) -> dict[str, Any]:
        """`host`, `tls`, `macaroon`; `wallets`: path_key of an offer → who made it; both packets' sizes."""
        credentials = grpc.ssl_channel_credentials(Path(told["tls"]).read_bytes())
        channel = grpc.aio.secure_channel(told["host"], credentials)
        self._lightning, self._signer = ln_rpc.LightningStub(channel), signer_rpc.SignerStub(channel)
        self._metadata = (("macaroon", Path(told["macaroon"]).read_bytes().hex()),)
        self._wallets = {bytes.fromhex(key): bytes.fromhex(node) for key, node in told["wallets"].items()}
        self._forward, self._answer = os.urandom(told["forward"]), os.urandom(told["answer"])
        return {}

    async def follow(self, told: dict[str, Any]) -> dict[str, Any]:
        """Answer from now on, with so many `derivations` for each message; 0: answer no more."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
            self._following = None
        self._derivations = told["derivations"]
        if self._derivations:
            stream = self._lightning.SubscribeOnionMessages(
                ln.SubscribeOnionMessagesRequest(), metadata=self._metadata
            )
            self._following = asyncio.create_task(self._follow(stream))
            # LND says nothing on a new stream; it has taken it when it answers what was asked behind it.
            await self._lightning.GetInfo(ln.GetInfoRequest(), metadata=self._metadata)
        return {"failed": self._failed}

    async def _follow(self, stream: Any) -> None:
        tasks = set()
        async for update in stream:
            task = asyncio.create_task(self._answer_one(update))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _answer_one(self, update: ln.OnionMessageUpdate) -> None:
        # No other message has this point: it tells the payer which of its requests is answered.
        point = update.onion[_EPHEMERAL]
        try:
            for _ in range(self._derivations):
                request = signer.SharedKeyRequest(ephemeral_pubkey=point, key_desc=_NODE_KEY)
                await self._signer.DeriveSharedKey(request, metadata=self._metadata)
            wallet = self._wallets[update.path_key]
            sent = [
                self._lightning.SendOnionMessage(
                    ln.SendOnionMessageRequest(peer=peer, path_key=point, onion=packet),
                    metadata=self._metadata,
                )
                for peer, packet in ((wallet, self._forward), (update.peer, self._answer))
            ]
            for each in sent:
                await each
        except (grpc.aio.AioRpcError, KeyError):
            self._failed += 1


async def main() -> None:
    """Serve until stdin is closed."""
    cheapest = Cheapest()
    await serve({"connect": cheapest.connect, "follow": cheapest.follow})


if __name__ == "__main__":
    asyncio.run(main())
