"""The stranger's walk: README.md, line by line, on a bare machine with a real LND, to a served invoice.

The commands are README's own, taken from it. The test adds, in the environment, what is its own: LND's
directory, network and port, and that its push service is on loopback. `SIDECAR_WALK` names a file for the
transcript; without it pytest prints it (`-s`).
"""

import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar.core import paths, webhooks
from sidecar.core.model import Family
from tests.harness.asserting import until
from tests.harness.btcd import Btcd
from tests.harness.lnd_process import LndProcess
from tests.harness.payer import Payer
from tests.harness.push_service import PushService
from tests.harness.stage import Stage
from tests.harness.waking import check_signature, push_options
from tests.harness.wallet import Wallet
from tests.lnd import build
from tests.walk import readme
from tests.walk.terminal import Machine, Terminal, Transcript

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

TEXT = readme.README.read_text()
RUN_IT = "Run it beside your LND"
LOOKS = (
    "client list",
    "client show NAME",
    "dry-run NAME SLOT",
    "client mailbox NAME",
    "webhook list CLIENT …",
    "status",
    "top",
    "export FILE",
    "config",
)
"""Commands of README's table that a stranger tries once an invoice was served."""

OF_REGTEST = ("lnd.sync", "lnd.address", "lnd.channels")
"""What `sidecar doctor` warns of there: no gossip, no address and no channels."""

_ARGUMENTS = {
    "NAME": "alice",
    "CLIENT": "alice",
    "SLOT": "0",
    "FILE": "all.export",
    " …": "",
    "top": "top --once",
}


@dataclass(slots=True)
class Walk:
    """The stranger at the machine, and those that it serves."""

    machine: Machine
    transcript: Transcript
    stage: Stage
    push: PushService
    _stack: AsyncExitStack
    terminal: Terminal | None = None
    server: Terminal | None = None

    async def open(self, directory: Path) -> None:
        """Open another terminal."""
        self.terminal = await self._stack.enter_async_context(
            Terminal(self.machine, self.transcript, directory)
        )

    async def type(self, command: str) -> str:
        """Type it; a server keeps its terminal, and the stranger goes on in another one."""
        assert self.terminal is not None
        if not command.startswith("sidecar serve"):
            return await self.terminal.run(command)
        shown = await self.terminal.serve(command, " ready: ")
        self.server = self.terminal
        await self.open(self.machine.home)
        return shown

    async def step(self, number: int) -> dict[str, str]:
        """All commands of a step, in their order; what each printed."""
        (title,) = [each for each in readme.steps(TEXT, RUN_IT) if each.startswith(f"{number}. ")]
        self.transcript.note(title)
        typed = readme.commands(readme.section(TEXT, title))
        assert typed, f"README has no commands any more in its step {title!r}"
        return {command: await self.type(command) for command in typed}

    async def wallet(self, request_paths: str) -> Wallet:
        """A wallet with these, on LND's peer port."""
        secret = os.urandom(32)
        link = await self.stage.connect(secret)
        (request_path, *_) = paths.decode_path_list(bytes.fromhex(request_paths))
        return Wallet(secret, link, self.stage.lnd.node_id, request_path, Family.LDK)

    async def payer(self) -> Payer:
        """A payer without a channel."""
        return await self.stage.payer()


@asynccontextmanager
async def begun(folder: Path) -> AsyncIterator[Walk]:
    """A machine whose LND was set up by README's first step, and a push service for the fifth."""
    machine = Machine(folder / "home")
    machine.set_up(build.ensure(build.TOOLS_VERSION, "lncli"))
    lnddir = machine.home / ".lnd"
    lnddir.mkdir()
    (lnddir / "lnd.conf").write_text(readme.lnd_conf(readme.section(TEXT, RUN_IT))["0.21"])
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(Btcd(folder / "btcd"))
        # LND waits until the newest block is not an old one.
        await chain.generate(1)
        lnd = await stack.enter_async_context(LndProcess("native", lnddir, protocol=(), chain=chain))
        push = await stack.enter_async_context(PushService(folder))
        await until(lambda: synced(lnd))
        machine.environ |= {
            "LNCLI_LNDDIR": str(lnddir),
            "LNCLI_NETWORK": lnd.network,
            "LNCLI_RPCSERVER": lnd.host,
            "SIDECAR_LND_HOST": lnd.host,
        }
        for option in push_options(push):
            name, _, value = option.removeprefix("--").partition("=")
            machine.environ["SIDECAR_" + name.upper().replace(".", "_")] = value
        hidden = {
            str(machine.home): "~",
            str(folder): "/tmp",
            lnd.host: "127.0.0.1:10009",
            f":{push.port}": ":443",
        }
        walk = Walk(machine, Transcript(hidden), Stage(lnd), push, stack)
        try:
            await walk.open(machine.checkout)
            yield walk
        finally:
            tell(walk.transcript.text)


async def synced(lnd: LndProcess) -> bool:
    """Whether it says that it has all of the chain."""
    return bool((await lnd.lncli("getinfo"))["synced_to_chain"])


def tell(text: str) -> None:
    """To the file that was asked for, or to pytest's own output."""
    if wanted := os.environ.get("SIDECAR_WALK"):
        Path(wanted).write_text(text)
    else:
        print("\n" + text)


async def test_a_stranger_follows_the_readme_to_a_served_invoice(tmp_path: Path) -> None:
    """Each line of "Run it beside your LND" does what it says, and nothing is needed that is not there."""
    async with begun(tmp_path) as walk:
        await walk.step(2)
        said = await walk.step(3)
        assert " ready: LND 0.21" in said["sidecar serve"]
        lines = re.findall(r"^(ok|warning|failure) +(\S+) ", said["sidecar doctor"], re.MULTILINE)
        assert ("ok", "lnd.macaroon") in lines
        assert ("ok", "lnd.relay-all") in lines
        assert {line for line in lines if line[0] != "ok"} <= {("warning", name) for name in OF_REGTEST}

        added = (await walk.step(4))["sidecar client add alice"]
        (request_paths,) = re.findall(r"\b[0-9a-f]{200,}\b", added)
        wallet = await walk.wallet(request_paths)
        offer, _, _ = await wallet.set_up()
        walk.transcript.note("a wallet that was handed these has left an invoice, over LND's peer port")

        (walk.machine.home / "url.txt").write_text(walk.push.url() + "\n")
        await walk.step(5)
        assert check_signature(walk.stage.lnd.node_id, await walk.push.next()) == webhooks.WEBHOOK_REGISTERED
        # The test is a notification of its own: what an app must expect anyway.
        check_signature(walk.stage.lnd.node_id, await walk.push.next())
        await wallet.link.close()
        walk.transcript.note("the wallet is gone; a payer without a channel asks for the invoice")
        await (await walk.payer()).get_invoice(offer)
        woken = check_signature(walk.stage.lnd.node_id, await walk.push.next())
        assert woken == webhooks.ONION_MESSAGE_INCOMING
        walk.transcript.note("the payer has it, and the push service was told to wake the wallet")

        shown = await looks(walk)
        assert "a payer gets the invoice" in shown["dry-run NAME SLOT"]
        assert (walk.machine.home / "all.export").stat().st_size > 0
        assert walk.server is not None
        assert await walk.server.terminate() == 0


async def looks(walk: Walk) -> dict[str, str]:
    """What each of LOOKS shows."""
    walk.transcript.note("Look after it")
    listed = set(readme.table_commands(readme.section(TEXT, RUN_IT)))
    shown = {}
    for look in LOOKS:
        assert f"sidecar {look}" in listed, f"README's table has no `{look}` any more"
        command = look
        for word, argument in _ARGUMENTS.items():
            command = command.replace(word, argument)
        shown[look] = await walk.type(f"sidecar {command}")
    return shown
