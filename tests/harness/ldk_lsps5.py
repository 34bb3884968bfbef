"""A driver of LDK's LSPS5 (`tests/ldk/lsps5`): a wallet that registers webhooks, and the validator.

And an LSP whose answers the test writes itself, to see what LDK makes of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sidecar.rpc import lightning_pb2 as ln
from sidecar.rpc import lightning_pb2_grpc as ln_rpc
from tests.harness.bolt8 import connect
from tests.harness.events import WAIT_SECONDS, Event
from tests.harness.ldk import LdkPeer
from tests.harness.lnd_process import LndProcess
from tests.harness.noise import new_secret
from tests.harness.push_service import Notification
from tests.ldk import build

LSPS_MESSAGE = 37913
_PROBE = b"is anybody there"

Validated = Literal["InvalidSignature", "ReplayAttack", "SerializationError", "BadTimestamp", "BadBody"]
"""LDK's errors, and what its types for the timestamp and the body don't take in the first place."""


class LspsError(Exception):
    """LDK says that a request failed.

    `name` is LDK's (`TooManyWebhooks`), which knows but some codes: `UnknownError` for all others, and
    `code` is then 1,000, whatever the LSP sent. `sent` is False when LDK itself refused to send it.
    """

    def __init__(self, name: str, code: int, *, sent: bool) -> None:
        super().__init__(f"{name} ({code}), {'by the LSP' if sent else 'by LDK itself'}")
        self.name = name
        self.code = code
        self.sent = sent


class AnswerDropped(Exception):
    """LDK takes nothing from an answer that came, and tells its wallet nothing; the text is its log's."""


@dataclass(frozen=True, slots=True)
class Registered:
    """LDK's WebhookRegistered."""

    num_webhooks: int
    max_webhooks: int
    no_change: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """LDK's WebhooksListed."""

    app_names: tuple[str, ...]
    max_webhooks: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What LDK's validator says: the method it read, or its error.

    `signed` is the text that LDK checked the signature over: it prints timestamp and body anew. None
    where it did not get that far.
    """

    method: str | None
    error: Validated | None
    signed: str | None

    @property
    def ok(self) -> bool:
        """Whether it is accepted."""
        return self.error is None


class LdkLsps5(LdkPeer):
    """A running LDK wallet with LSPS: `async with LdkLsps5("0.2", folder) as wallet: ...`.

    It is made as `LdkPeer` is and does all that this does, and is the same node when it gets the same
    `seed`. Every LSPS message is an event: `sent("lsps")` and `got("lsps")`, with the JSON text in `payload`.
    """

    def binary(self) -> Path:
        """The program, built when it is not there yet."""
        return build.ensure(build.lsps5(self.version))

    async def list_protocols(self, lsp: bytes, timeout: float = WAIT_SECONDS) -> list[int]:
        """Ask for the numbers of the LSPS that the LSP speaks; raises AnswerDropped."""
        event = await self._request("ListProtocolsResponse", timeout, do="list_protocols", lsp=lsp.hex())
        return list(event["protocols"])

    async def set_webhook(
        self, lsp: bytes, app_name: str, url: str, timeout: float = WAIT_SECONDS
    ) -> Registered:
        """Register a webhook; raises LspsError and AnswerDropped."""
        event = await self._request(
            "WebhookRegistered", timeout, do="set_webhook", lsp=lsp.hex(), app_name=app_name, url=url
        )
        return Registered(event["num_webhooks"], event["max_webhooks"], event["no_change"])

    async def list_webhooks(self, lsp: bytes, timeout: float = WAIT_SECONDS) -> Listed:
        """Ask for the names of its webhooks; raises AnswerDropped, for every error of the LSP's too."""
        event = await self._request("WebhooksListed", timeout, do="list_webhooks", lsp=lsp.hex())
        return Listed(tuple(event["app_names"]), event["max_webhooks"])

    async def remove_webhook(self, lsp: bytes, app_name: str, timeout: float = WAIT_SECONDS) -> None:
        """Remove a webhook; raises LspsError and AnswerDropped."""
        await self._request("WebhookRemoved", timeout, do="remove_webhook", lsp=lsp.hex(), app_name=app_name)

    async def validate(
        self, node_id: bytes, timestamp: str, signature: str, body: str, *, fresh: bool = False
    ) -> Verdict:
        """Ask LDK's validator about a notification from the node; `fresh` asks one that has seen nothing."""
        command = {
            "do": "validate",
            "node": node_id.hex(),
            "timestamp": timestamp,
            "signature": signature,
            "body": body,
            "fresh": fresh,
        }
        answer = await self._asked(json.dumps(command), "validated")
        signed = None
        if "timestamp" in answer:
            signed = signed_text(answer["timestamp"], answer["body"])
        return Verdict(answer.get("method"), answer.get("error"), signed)

    async def verdict_of(self, node_id: bytes, notification: Notification) -> Verdict:
        """Ask LDK's validator about a notification as it came."""
        stamp, signature = (notification.headers[f"x-lsps5-{name}"] for name in ("timestamp", "signature"))
        return await self.validate(node_id, stamp, signature, notification.body.decode())

    async def _request(self, success: str, timeout: float, **command: Any) -> Event:
        """One request at a time: an answer that LDK drops does not say which one it was for."""
        since = self.mark()
        asked = await self._asked(json.dumps(command), "asked", do=command["do"])
        if not asked["ok"]:
            raise LspsError(asked["error"], asked["code"], sent=False)

        def ends(event: Event) -> bool:
            if event["ev"] == "got":
                return bool(event["msg"] == "lsps" and event["dropped"])
            if event["ev"] != "event":
                return False
            # LDK's event for list_protocols has no id.
            return bool(event["event"] == success if asked["id"] is None else event.get("id") == asked["id"])

        event = (await self.until(ends, timeout, since=since, what=f"{command['do']} → {success}"))[0]
        if event["ev"] == "got":
            raise AnswerDropped(event["dropped"])
        if event["event"] != success:
            raise LspsError(event["error"], event["code"], sent=True)
        return event


class LspByHand:
    """An LND as an LSP: the test reads the requests that come in, and writes the answers."""

    def __init__(self, lnd: LndProcess, stub: ln_rpc.LightningAsyncStub) -> None:
        self.lnd = lnd
        self._stub = stub
        self._came: asyncio.Queue[ln.CustomMessage] = asyncio.Queue()

    async def listen(self) -> None:
        """Take in the stream of custom messages, until cancelled."""
        async for message in self._stub.SubscribeCustomMessages(ln.SubscribeCustomMessagesRequest()):
            self._came.put_nowait(message)

    async def until_listening(self) -> None:
        """A message of another peer's comes through: gRPC has no event for LND having taken it up."""
        async with await connect("127.0.0.1", self.lnd.p2p_port, self.lnd.node_id, new_secret()) as link:
            while self._came.empty():
                await link.send_custom(LSPS_MESSAGE, _PROBE)
                await asyncio.sleep(0.05)

    async def next(self, peer: bytes) -> str:
        """The next LSPS message of that peer, as it is written."""
        while True:
            message = await asyncio.wait_for(self._came.get(), 15)
            if (message.type, message.peer) == (LSPS_MESSAGE, peer):
                return message.data.decode()

    async def send(self, peer: bytes, payload: str | bytes) -> None:
        """Send an LSPS message."""
        data = payload.encode() if isinstance(payload, str) else payload
        await self._stub.SendCustomMessage(
            ln.SendCustomMessageRequest(peer=peer, type=LSPS_MESSAGE, data=data)
        )

    async def has(self, peer: bytes) -> bool:
        """Whether that peer is connected."""
        peers = (await self._stub.ListPeers(ln.ListPeersRequest())).peers
        return peer.hex() in [one.pub_key for one in peers]


@asynccontextmanager
async def as_lsp(lnd: LndProcess) -> AsyncIterator[LspByHand]:
    """An LSP that listens."""
    async with lnd.channel() as channel:
        lsp = LspByHand(lnd, ln_rpc.LightningStub(channel))
        listening = asyncio.create_task(lsp.listen())
        try:
            await lsp.until_listening()
            yield lsp
        finally:
            listening.cancel()


def signed_text(timestamp: str, body: str) -> str:
    """What an LSP signs.

    "LSPS5: DO NOT SIGN THIS MESSAGE MANUALLY: LSP: At ${timestamp} I notify ${body}" (bLIP 55).
    """
    return f"LSPS5: DO NOT SIGN THIS MESSAGE MANUALLY: LSP: At {timestamp} I notify {body}"


async def signature_of(lnd: LndProcess, timestamp: str, body: str) -> str:
    """LND's signature of a notification, in zbase32."""
    answer = await lnd.lncli("signmessage", "--msg", signed_text(timestamp, body))
    return str(answer["signature"])
