"""A driver of the rust-lightning peer in `tests/ldk`: a wallet, a payer or LDK's own server, as a process."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import IO, Any, Literal

from tests.harness.events import WAIT_SECONDS, Event, Events
from tests.harness.running import Running
from tests.ldk import build

__all__ = ["Event", "LdkPeer", "Version"]

Version = Literal["0.2", "0.3"]

_STOP_SECONDS = 5.0
# A line of stdout may hold a message's paths in hex.
_LINE_LIMIT = 16 * 1024 * 1024


class LdkPeer(Events, Running):
    """A running LDK node: `async with LdkPeer("0.2", folder) as peer: ...`.

    LDK's timer stands still but for `tick`. A node that listens is a server: if nothing else is said,
    its message paths start at itself, as those of an announced node do.
    """

    start_seconds = WAIT_SECONDS

    def __init__(
        self,
        version: str,
        folder: Path,
        *,
        network: Literal["regtest", "bitcoin"] = "regtest",
        router: Literal["default", "nodeid", "direct"] | None = None,
        seed: bytes | None = None,
        state: Path | None = None,
        clock: int = 0,
        tip: str | None = None,
        listen: bool | int = False,
        dial: bool = True,
    ) -> None:
        """`state` is a folder of its own; a new node with a `tip` (`Regtest.tip`) begins at that block.

        Without `dial` it connects when it is told to, and not because LDK wants to send something.
        """
        self.version = version
        self.seed = os.urandom(32) if seed is None else seed
        # All starts with this seed in this folder write to one log, one after another.
        super().__init__(f"LDK {version}", folder / f"ldk-{self.seed.hex()[:8]}.log")
        router = router or ("default" if listen is False else "direct")
        self._arguments = ["--seed", self.seed.hex(), "--network", network, "--router", router]
        if state is not None:
            self._arguments += ["--state", str(state)]
        if clock:
            self._arguments += ["--clock", str(clock)]
        if not dial:
            self._arguments += ["--dial", "never"]
        if tip is not None:
            self._arguments += ["--tip", tip]
        if listen is not False:
            # True: any free port.
            self._arguments += ["--listen", str(0 if listen is True else listen)]
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._log: IO[bytes] | None = None

    def binary(self) -> Path:
        """The program, built when it is not there yet."""
        return build.ensure(self.version)

    async def start(self) -> None:
        """Start it, or start it again after `kill` or `stop`: same seed, same state, same `events`."""
        since = self.mark()
        binary = await asyncio.to_thread(self.binary)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log = self.log_path.open("ab")
        self._process = await asyncio.create_subprocess_exec(
            binary,
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
            limit=_LINE_LIMIT,
        )
        assert self._process.stdout is not None, "started with a pipe"
        self._reader = asyncio.create_task(self.read(self._process.stdout))
        try:
            await self.named("ready", self.start_seconds, since=since)
            for shown in self.seen("offer"):
                # Or it would give one of them again as the next one.
                await self.say(f"shown {shown['offer']}")
        except BaseException:
            await self.kill()
            raise

    @property
    def node_id(self) -> bytes:
        """The public key that the peer is known by."""
        return bytes.fromhex(self._ready["node"])

    @property
    def release(self) -> str:
        """The crate's version, in full."""
        return str(self._ready["version"])

    @property
    def port(self) -> int:
        """The port on loopback that it listens on; only with `listen`."""
        return int(self._ready["port"])

    @property
    def height(self) -> int:
        """The last block it knew when it started."""
        return int(self._ready["height"])

    @property
    def pid(self) -> int:
        """The process, for a test that measures or suspends it."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def _ready(self) -> Event:
        return self.seen("ready")[-1]

    # Commands

    async def connect(self, node_id: bytes, port: int) -> Event:
        """Connect to a node on loopback, and wait for the end of the handshake."""
        node, since = node_id.hex(), self.mark()
        await self.say(f"connect {node} 127.0.0.1:{port}")

        def test(event: Event) -> bool:
            return event["ev"] in {"connected", "connect_failed"} and event["node"] == node

        event = (await self.until(test, since=since, what=f"connected to {node}"))[0]
        assert event["ev"] == "connected", f"cannot connect to {node} on port {port}"
        return event

    async def disconnect(self, node_id: bytes) -> Event:
        """End the connection to a node."""
        return await self._asked(f"disconnect {node_id.hex()}", "disconnected", node=node_id.hex())

    async def set_paths(self, paths: str | bytes) -> Event:
        """Give it the paths to its static invoice server (`u16 count ‖ paths`), as an operator does."""
        text = paths if isinstance(paths, str) else paths.hex()
        return await self._asked(f"paths {text}", "paths_set", ok=True)

    async def set_up(self, paths: str, node_id: bytes, port: int) -> str:
        """A wallet from its server's paths to an offer that is ready."""
        await self.set_paths(paths)
        await self.connect(node_id, port)
        return await self.next_offer()

    async def next_offer(self, timeout: float = WAIT_SECONDS) -> str:
        """The next async receive offer that was not shown yet. LDK marks it used."""
        return str((await self.offer(timeout))["offer"])

    async def offer(self, timeout: float = WAIT_SECONDS) -> Event:
        """The same, with its sizes, its paths and the moment at which it was ready."""
        return await self._asked("offer", "offer", timeout)

    async def pay(self, offer: str, msat: int = 50_000) -> Event:
        """Ask for an invoice of an offer; the moment that was done, and the `payment` id."""
        since = self.mark()
        asked = await self._asked(f"pay {offer} {msat}", "pay")
        result = await self.named("pay_result", since=since, payment=asked["payment"])
        assert result["ok"], f"LDK does not try to pay: {result['error']}"
        return asked

    async def tick(self) -> None:
        """Let a minute pass, as far as LDK's own timer counts."""
        await self._asked("tick", "ticked")

    async def minute(self) -> None:
        """The same for offers and payments alone: many at once break no connection, as no ping is sent."""
        await self._asked("minute", "ticked")

    async def clock(self, seconds: int) -> int:
        """Move its wall clock by so many seconds, back when negative; the new time."""
        return int((await self._asked(f"clock {seconds}", "clock"))["now"])

    async def set_clock(self, offset: int = 0) -> int:
        """Set its wall clock to so many seconds off the right time; the new time."""
        return int((await self._asked(f"clock = {offset}", "clock"))["now"])

    async def send_raw(
        self,
        kind: int,
        body: str | bytes,
        paths: str,
        *,
        count: int = 1,
        reply: bool = False,
        timeout: float = WAIT_SECONDS,
    ) -> Event:
        """Send any content along the first of `paths`; `raw_sent` says how many LDK took."""
        content = body if isinstance(body, str) else body.hex()
        command = f"send {kind} {content or '-'} {paths} {count} {int(reply)}"
        return await self._asked(command, "raw_sent", timeout + count / 100, type=kind)

    async def block(self, height: int, block: str | bytes) -> None:
        """Connect a whole block, from the child of genesis on; one that it already has is left alone."""
        text = block if isinstance(block, str) else block.hex()
        answer = await self._asked(f"block {height} {text}", "block", height=height)
        assert height <= answer["best"], f"block {height} does not follow {answer['best']}"

    async def knows(self, node_id: bytes, timeout: float = WAIT_SECONDS) -> Event:
        """Wait until gossip told it of an announced channel of that node."""
        return await self._asked(f"knows {node_id.hex()}", "knows", timeout, node=node_id.hex())

    async def payable(self, timeout: float = WAIT_SECONDS) -> None:
        """Wait until it has a channel that can be used and whose peer has told its fees."""
        await self._asked("payable", "payable", timeout)

    async def channels(self) -> list[Event]:
        """Its channels, with their scids and aliases."""
        channels: list[Event] = (await self._asked("channels", "channels"))["channels"]
        return channels

    async def recipient(self, recipient: bytes) -> str:
        """As LDK's own static invoice server: the paths for a wallet, for its `set_paths`."""
        return str((await self._asked(f"recipient {recipient.hex()}", "recipient_paths"))["hex"])

    async def say(self, command: str) -> None:
        """Write a command, without waiting for what it does."""
        assert self._process is not None, "not started"
        assert self._process.stdin is not None, "started with a pipe"
        try:
            self._process.stdin.write(command.encode() + b"\n")
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise AssertionError(f"the LDK peer is gone\n{self.tail()}") from error

    async def _asked(self, command: str, name: str, timeout: float = WAIT_SECONDS, **fields: Any) -> Event:
        since = self.mark()
        await self.say(command)

        def test(event: Event) -> bool:
            answers = event["ev"] == name and all(event.get(key) == value for key, value in fields.items())
            return answers or event["ev"] == "bad_command"

        event = (await self.until(test, timeout, since=since, what=f"`{command[:60]}` → {name}"))[0]
        assert event["ev"] == name, f"`{command[:60]}`: {event['error']}"
        return event

    # The end

    async def stop(self) -> None:
        """End it in order, its state written; killed when that takes too long."""
        if (process := self._process) is None:
            return
        if process.returncode is None:
            assert process.stdin is not None, "started with a pipe"
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), _STOP_SECONDS)
            except TimeoutError:
                process.kill()
        await self._gone()

    async def kill(self) -> None:
        """SIGKILL: only what is on disk is left."""
        if (process := self._process) is not None and process.returncode is None:
            process.kill()
        await self._gone()

    async def _gone(self) -> None:
        if self._process is not None:
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
        if self._reader is not None:
            await asyncio.wait_for(self._reader, _STOP_SECONDS)
        if self._log is not None:
            self._log.close()
