"""A bitcoind's RPC in front of btcd: for programs that know no btcd, such as ldk-node.

It hands on to btcd what that answers as a bitcoind does, and fills in what it lacks (seen with the
version that LND 0.21 pins): `chainwork` in getblockheader, `mempoolminfee` in getmempoolinfo, and all
of getmempoolentry and estimatesmartfee. It speaks plain HTTP: ldk-node can do no TLS here, and LND speaks
to no btcd without it.
"""

import asyncio
import json
from typing import Any, Self

from tests.harness.btcd import Btcd, ChainError

_FEE_BTC_PER_KVBYTE = 0.00001
# In regtest's easiest difficulty a block is worth two hashes.
_WORK_OF_A_BLOCK = 2


class BitcoindFront:
    """Serves on a free port of loopback: `async with BitcoindFront(chain) as front: front.port`."""

    def __init__(self, chain: Btcd) -> None:
        self.port = 0
        self.user, self.password = chain.user, chain.password
        self._chain = chain
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._connections:
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = next(
                    int(line.partition(":")[2]) for line in head.split("\r\n") if "content-length:" in line
                )
                answer = await self._answer(json.loads(await reader.readexactly(length)))
                body = json.dumps(answer).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side has hung up
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            result = await self._result(request["method"], request["params"])
        except ChainError as error:
            return {"id": request["id"], "result": None, "error": {"code": -1, "message": str(error)}}
        return {"id": request["id"], "result": result, "error": None}

    async def _result(self, method: str, params: list[Any]) -> Any:
        if method == "estimatesmartfee":
            return {"feerate": _FEE_BTC_PER_KVBYTE, "blocks": params[0]}
        if method == "getmempoolentry":
            entries = await self._chain.call("getrawmempool", True)
            if params[0] not in entries:
                raise ChainError("Transaction not in mempool")
            return entries[params[0]]
        result = await self._chain.call(method, *params)
        if method == "getblockheader":
            result["chainwork"] = f"{_WORK_OF_A_BLOCK * (result['height'] + 1):064x}"
        if method == "getmempoolinfo":
            result["mempoolminfee"] = _FEE_BTC_PER_KVBYTE
        return result
