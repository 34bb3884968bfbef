"""LND and the container beside it as the chart sets them up: its lnd.conf, and its script in busybox."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.harness.debian import unpacked
from tests.harness.lnd_process import Kind, LndProcess
from tests.harness.running import Running
from tests.helm.charts import CHART, Helm, container, pick, with_values
from tests.lnd import build

TAGS: dict[Kind, str] = {"native": "v0.21.2-beta", "custom": "v0.20.2-beta"}
SCRIPT = CHART / "files" / "credentials.sh"
_APPLETS = ("sh", "cmp", "cp", "mv", "sleep", "timeout", "tr")
_SOON = 30.0


class RenderedLnd(LndProcess):
    """A real LND with the lnd.conf that the chart makes, in place of flags."""

    def __init__(self, helm: Helm, kind: Kind, folder: Path, more: Mapping[str, Any] | None = None) -> None:
        """`more`: values by their paths. LND makes itself a wallet, if they do not ask for another."""
        values = {"lnd.config": {}, **(more or {})}
        config = {"bitcoin.node": "nochainbackend", "noseedbackup": True, "norest": True, "nobootstrap": True}
        config |= values.pop("lnd.config")
        super().__init__(kind, folder / "lnd", wallet=bool(config["noseedbackup"]))
        self.values = with_values(
            {"shape": "sidecar", "network": "regtest", "listenAddress": "127.0.0.1"},
            {
                "lnd.image.tag": TAGS[kind],
                "lnd.rpc.port": self.rpc_port,
                "lnd.config": config,
                **values,
            },
        )
        [secret] = helm.render(self.values, show_only=["lnd-secret.yaml"])
        # A pod has this port for itself.
        conf: str = secret["stringData"]["lnd.conf"].replace(":9735", f":{self.p2p_port}")
        self._conf = folder / "lnd.conf"
        self.wallet_password = folder / "wallet-password"
        self._conf.write_text(conf.replace("/etc/lnd/wallet-password", str(self.wallet_password)))

    def _arguments(self) -> list[str]:
        return [f"--lnddir={self.directory}", f"--configfile={self._conf}"]


class Credentials(Running):
    """The container `credentials`: its own command and variables, with nothing but busybox and lncli."""

    def __init__(self, helm: Helm, lnd: RenderedLnd, folder: Path, *, every: float = 0.1) -> None:
        """It looks `every` so many seconds."""
        self.folder = folder / "credentials"
        self.macaroon, self.certificate = self.folder / "sidecar.macaroon", self.folder / "tls.cert"
        pod = pick(helm.render(lnd.values, show_only=["statefulset.yaml"]), "StatefulSet")["spec"]["template"]
        rendered = container(pod["spec"], "credentials")
        self._command = rendered["command"]
        places = {"/lnd": str(lnd.directory), "/credentials": str(self.folder)}
        self._env = {each["name"]: places.get(each["value"], each["value"]) for each in rendered["env"]}
        self._env |= {"EVERY": str(every), "PATH": str(folder / "bin")}
        self._process: asyncio.subprocess.Process | None = None
        self._lines: asyncio.Queue[str] = asyncio.Queue()
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it."""
        self.folder.mkdir(exist_ok=True)
        programs = await asyncio.to_thread(_programs, Path(self._env["PATH"]))
        assert self._command == ["/bin/sh", "/scripts/credentials.sh"]
        # Not asyncio's own pipe: it would wait for all that have it open, and not for the shell alone.
        ours, its = os.pipe()
        self._reading = asyncio.create_task(self._read(ours))
        try:
            self._process = await asyncio.create_subprocess_exec(
                programs / "sh",
                SCRIPT,
                stdout=its,
                stderr=its,
                env=self._env,
                # A container ends with its first process; here what that one has begun is ended as a group.
                start_new_session=True,
            )
        finally:
            os.close(its)

    async def says(self, text: str) -> str:
        """The next line that has this text; what comes before it is dropped. Raises TimeoutError."""
        async with asyncio.timeout(_SOON):
            while text not in (line := await self._lines.get()):
                pass
        return line

    def said(self) -> list[str]:
        """What it has said since it was last asked."""
        return [self._lines.get_nowait() for _ in range(self._lines.qsize())]

    async def terminate(self) -> int:
        """SIGTERM, as kubelet sends it; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await self._process.wait()

    async def stop(self) -> None:
        """End it and all that it has begun."""
        if self._process is not None and self._reading is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
            await self._reading

    async def _read(self, pipe: int) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb")
        )
        async for line in reader:
            self._lines.put_nowait(line.decode().rstrip())


def _programs(folder: Path) -> Path:
    """A folder with what LND's image has and the script may use."""
    busybox = unpacked("busybox") / "bin" / "busybox"
    if not folder.exists():
        folder.mkdir()
        for name in _APPLETS:
            (folder / name).symlink_to(busybox)
        (folder / "lncli").symlink_to(build.ensure(build.TOOLS_VERSION, "lncli"))
    return folder
