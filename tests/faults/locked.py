"""A real LND whose wallet has a password: each start leaves it locked until somebody unlocks it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import grpc.aio

from sidecar.rpc import lightning_pb2 as ln
from sidecar.rpc import lightning_pb2_grpc as ln_rpc
from sidecar.rpc import state_pb2 as state
from sidecar.rpc import state_pb2_grpc as state_rpc
from tests.harness.lnd_process import LndProcess

_PASSWORD = b"a password of tests"
_SERVICE = "/lnrpc.WalletUnlocker/"


class LockableLnd(LndProcess):
    """`make_wallet` once, and `unlock` after each start from then on. Made with `wallet=False`."""

    async def make_wallet(self) -> None:
        """Make its wallet, and wait until it serves."""
        async with self._channel(None) as channel:
            seed = await _call(channel, "GenSeed", b"")
            # cipher_seed_mnemonic is field 1 of the one message, and field 2 of the other.
            words = b"".join(_field(2, value) for number, value in _fields(seed) if number == 1)
            await _call(channel, "InitWallet", _field(1, _PASSWORD) + words)
        await self._until_active()

    async def unlock(self) -> None:
        """Give the password, and wait until it serves."""
        async with self._channel(None) as channel:
            await _call(channel, "UnlockWallet", _field(1, _PASSWORD))
        await self._until_active()

    async def _until_active(self) -> None:
        async with self._channel(None) as channel:
            request = state.SubscribeStateRequest()
            async for update in state_rpc.StateStub(channel).SubscribeState(request, wait_for_ready=True):
                if update.state == state.SERVER_ACTIVE:
                    break
        async with self.channel() as channel:
            info = await ln_rpc.LightningStub(channel).GetInfo(ln.GetInfoRequest())
        self.node_id = bytes.fromhex(info.identity_pubkey)


async def _call(channel: grpc.aio.Channel, method: str, request: bytes) -> bytes:
    call = cast("Callable[[bytes], Awaitable[bytes]]", cast("Any", channel).unary_unary(_SERVICE + method))
    return await call(request)


def _field(number: int, value: bytes) -> bytes:
    """A field of bytes; all that are sent here are short."""
    return bytes([number << 3 | 2, len(value)]) + value


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message that has short ones of bytes only."""
    while message:
        key, length = message[0], message[1]
        yield key >> 3, message[2 : 2 + length]
        message = message[2 + length :]
