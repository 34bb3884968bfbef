"""Coins and channels for real LNDs: mined, funded, opened, confirmed, and known to the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
import grpc.aio

from sidecar.rpc import lightning_pb2 as ln
from sidecar.rpc import lightning_pb2_grpc as ln_rpc
from tests.harness.asserting import until
from tests.harness.btcd import SPEND_WITNESS, Btcd
from tests.harness.lnd_process import LndProcess

Follower = Callable[[int, bytes], Awaitable[None]]
"""Is told each new block, its height and raw bytes: for peers that follow the chain by being fed."""

SEGWIT_HEIGHT = 432
"""btcd's regtest spends no witness before: three windows of 144 blocks (BIP 9)."""

SUBSIDY = 50 * 10**8
FUNDING_CONFIRMATIONS = 6
"""With so many a channel is announced (BOLT 7)."""

_FEE = 10_000
_OUTPUT = 2_000_000
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


class Gossiping:
    """What an LND knows of channels and nodes, asked until it is so: gossip gives no event for it."""

    def __init__(self, lnd: LndProcess) -> None:
        self._lnd = lnd

    async def _holds(self, ask: Callable[[ln_rpc.LightningAsyncStub], Awaitable[bool]]) -> None:
        async with self._lnd.channel() as channel:
            stub: ln_rpc.LightningAsyncStub = ln_rpc.LightningStub(channel)

            async def holds() -> bool:
                try:
                    return await ask(stub)
                except grpc.aio.AioRpcError as error:
                    # LND 0.20 has no code of its own for it.
                    if "unable to find node" in (why := error.details() or "") or "not found" in why:
                        return False
                    raise

            await until(holds, timeout=60)

    async def channels_active(self, number: int) -> None:
        """Wait until it has so many channels that can be used."""

        async def active(stub: ln_rpc.LightningAsyncStub) -> bool:
            answer = await stub.ListChannels(ln.ListChannelsRequest())
            return sum(channel.active for channel in answer.channels) >= number

        await self._holds(active)

    async def knows_channel(self, scid: int) -> None:
        """Wait until its graph has a channel: its own private ones too, seconds after they are usable."""

        async def known(stub: ln_rpc.LightningAsyncStub) -> bool:
            return (await stub.GetChanInfo(ln.ChanInfoRequest(chan_id=scid))).channel_id == scid

        await self._holds(known)

    async def knows_channels_of(self, node_id: bytes, number: int = 1) -> None:
        """Wait until it knows so many announced channels of a node."""

        async def known(stub: ln_rpc.LightningAsyncStub) -> bool:
            request = ln.NodeInfoRequest(pub_key=node_id.hex(), include_channels=True)
            return len((await stub.GetNodeInfo(request)).channels) >= number

        await self._holds(known)

    async def knows_address_of(self, node_id: bytes) -> None:
        """Wait until it has a node's own announcement, with an address."""

        async def known(stub: ln_rpc.LightningAsyncStub) -> bool:
            return bool((await stub.GetNodeInfo(ln.NodeInfoRequest(pub_key=node_id.hex()))).node.addresses)

        await self._holds(known)


@dataclass(slots=True)
class Regtest:
    """A chain, and those who have to be told of its blocks."""

    chain: Btcd
    followers: list[Follower] = field(default_factory=list)
    _blocks: dict[int, bytes] = field(default_factory=dict)
    _spent: int = 0
    """Coinbases that were spent: those of the first blocks."""

    async def mine(self, blocks: int) -> None:
        """Mine, and tell the followers."""
        before = await self.chain.tip()
        await self.chain.generate(blocks)
        if not self.followers:
            return
        for height in range(before + 1, before + blocks + 1):
            block = await self._block(height)
            await asyncio.gather(*(follower(height, block) for follower in self.followers))

    @classmethod
    async def begin(cls, chain: Btcd) -> Self:
        """A chain on which coins can be spent."""
        regtest = cls(chain)
        await regtest.mine(SEGWIT_HEIGHT)
        return regtest

    async def follow(self, follower: Follower) -> None:
        """Tell a new follower all blocks there are, and those to come."""
        for height in range(1, await self.chain.tip() + 1):
            await follower(height, await self._block(height))
        self.followers.append(follower)

    async def tip(self) -> str:
        """The newest block, for a peer that begins there: nothing before concerns it."""
        height = await self.chain.tip()
        return f"{height}:{await self.chain.call('getblockhash', height)}"

    async def _block(self, height: int) -> bytes:
        if height not in self._blocks:
            self._blocks[height] = await self.chain.block(height)
        return self._blocks[height]

    async def fund(self, wanted: Mapping[LndProcess, int], sats: int = _OUTPUT) -> None:
        """Give each LND so many outputs of `sats`, confirmed: one for each channel it is to open.

        An LND spends a whole output for a channel, and its change only when that is confirmed.
        """
        had = {lnd: await _balance(lnd) for lnd in wanted}
        addresses = await asyncio.gather(*(lnd.lncli("newaddress", "p2wkh") for lnd in wanted))
        outputs = [
            (sats, _script(answer["address"]))
            for answer, number in zip(addresses, wanted.values(), strict=True)
            for _ in range(number)
        ]
        self._spent += 1
        block = await self.chain.call("getblock", await self.chain.call("getblockhash", self._spent), 1)
        await self.chain.call("sendrawtransaction", _transaction(block["tx"][0], outputs).hex())
        await self.mine(1)
        for lnd, number in wanted.items():
            await _until_balance(lnd, had[lnd] + number * sats)

    async def confirm(self, funding: Sequence[str], blocks: int = FUNDING_CONFIRMATIONS) -> None:
        """Mine the funding transactions, and as many blocks as it takes to announce their channels."""

        async def published() -> bool:
            return set(funding) <= set(await self.chain.call("getrawmempool"))

        await until(published)
        await self.mine(blocks)

    async def connect_with_channels(self, pairs: Sequence[tuple[LndProcess, LndProcess]]) -> None:
        """Announced channels between LNDs, each funded by the first; wait until they can be used."""
        ends = [end for pair in pairs for end in pair]
        await self.fund({one: sum(pair[0] is one for pair in pairs) for one, _ in pairs})
        funding = [
            await open_channel(one, other.node_id, f"127.0.0.1:{other.p2p_port}") for one, other in pairs
        ]
        await self.confirm(funding)
        await asyncio.gather(*(Gossiping(end).channels_active(ends.count(end)) for end in set(ends)))


async def open_channel(
    lnd: LndProcess,
    node_id: bytes,
    address: str | None = None,
    *,
    sats: int = 1_000_000,
    push: int = 0,
    private: bool = False,
) -> str:
    """Open a channel, not confirmed yet; the id of its funding transaction.

    `address` is where to connect to a node that is no peer yet.
    """
    answer: Any = await lnd.lncli(
        "openchannel",
        f"--node_key={node_id.hex()}",
        *([f"--connect={address}"] if address else []),
        f"--local_amt={sats}",
        f"--push_amt={push}",
        "--sat_per_vbyte=10",
        *(["--private"] if private else []),
    )
    funding: str = answer["funding_txid"]
    return funding


async def _balance(lnd: LndProcess) -> int:
    return int((await lnd.lncli("walletbalance"))["confirmed_balance"])


async def _until_balance(lnd: LndProcess, sats: int) -> None:
    async def funded() -> bool:
        # Whoever opens a channel before its LND has seen the newest block is refused.
        return await _balance(lnd) >= sats and (await lnd.lncli("getinfo"))["synced_to_chain"]

    await until(funded, timeout=60)


def _script(address: str) -> bytes:
    """The output script of a bech32 address (BIP 173), as LND gives it: not checked again."""
    words = [_BECH32.index(letter) for letter in address[address.rindex("1") + 1 : -6]]
    version, *rest = words
    number = 0
    for word in rest:
        number = number << 5 | word
    size = len(rest) * 5 // 8
    program = (number >> (len(rest) * 5 - size * 8)).to_bytes(size, "big")
    return bytes([version + 0x50 if version else 0, size]) + program


def _transaction(coinbase: str, outputs: Sequence[tuple[int, bytes]]) -> bytes:
    """Spend a coinbase that anybody may spend, whole (BIP 144)."""
    each = [*outputs, (SUBSIDY - _FEE - sum(sats for sats, _ in outputs), bytes([0, 32]) + bytes(32))]
    body = b"".join(sats.to_bytes(8, "little") + bytes([len(script)]) + script for sats, script in each)
    spent = bytes.fromhex(coinbase)[::-1] + bytes(4) + b"\x00" + b"\xff" * 4
    version, segwit, locktime = b"\x02\x00\x00\x00", b"\x00\x01", bytes(4)
    return version + segwit + b"\x01" + spent + bytes([len(each)]) + body + SPEND_WITNESS + locktime
