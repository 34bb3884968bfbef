"""Meets LND: at the start, and again when it has become another kind under the running sidecar."""

import asyncio
import contextlib
from pathlib import Path

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type

from sidecar.adapters.lnd import Lnd, LndNodeKey, NodeInfo, backoff
from sidecar.adapters.lnd_channel import lacking
from sidecar.core import bolt12
from sidecar.core.errors import LndDenied, LndSetupError, LndUnavailable
from sidecar.core.keys import SidecarKeys

log = structlog.get_logger(__name__)

MACAROON_AGAIN = 2.0
"""Seconds between looks for another macaroon, after LND was upgraded."""


FILES_AGAIN = 0.5
"""Seconds between looks whether LND's files are there."""


async def wait_for_files(tls_path: Path, macaroon_path: Path, seconds: float) -> None:
    """Wait until both can be read, or the time is over; it is for `Lnd` to say then what is wrong."""
    absent = lacking(tls_path, macaroon_path)
    if not absent or not seconds:
        return
    log.warning("waiting for LND's %s", " and its ".join(absent))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while absent:
                await asyncio.sleep(FILES_AGAIN)
                absent = lacking(tls_path, macaroon_path)
        log.info("LND's files are there")


class Meeting:
    """Waits for one LND, and learns who it is. `network` is what the settings say, if they say it."""

    def __init__(self, lnd: Lnd, network: str | None) -> None:
        self._lnd = lnd
        self._network = network
        self._refusal = ""
        self._upgraded = False

    async def first(self) -> tuple[NodeInfo, SidecarKeys]:
        """Wait for LND, and learn who it is. Raises LndSetupError, LndDenied."""
        async for attempt in AsyncRetrying(retry=retry_if_exception_type(LndUnavailable), wait=backoff()):
            with attempt:
                await self._lnd.wait_ready()
                info = await self._lnd.describe()
                await self._lnd.check_permissions()
                keys = SidecarKeys.derive(await LndNodeKey(self._lnd).root())
        if info.network not in bolt12.CHAINS:
            raise LndSetupError(f"LND is on {info.network!r}, a chain that the sidecar does not know")
        if self._network is not None and self._network != info.network:
            raise LndSetupError(
                f"LND is on {info.network}, and --network says {self._network}: make them agree"
            )
        return info, keys

    async def again(self, before: NodeInfo) -> NodeInfo:
        """After an upgrade of LND under the running sidecar. Raises LndSetupError for another node."""
        log.warning("LND has changed its kind: looking at it again")
        self._network = before.network
        while True:
            try:
                info, _ = await self.first()
                break
            except LndDenied as error:
                self._upgraded = True
                await self.refused(error)
        if info.node_id != before.node_id:
            raise LndSetupError("LND is another node now: restart the sidecar to serve that one")
        self._upgraded = True
        return info

    async def refused(self, why: BaseException) -> None:
        """LND does not allow what it has now: wait for another macaroon.

        Each kind of LND has calls of its own. Raises `why` when LND was not upgraded: at the start it is
        a wrong macaroon.
        """
        while isinstance(why, BaseExceptionGroup):
            why = why.exceptions[0]
        if not self._upgraded:
            raise why
        if str(why) != self._refusal:
            self._refusal = str(why)
            log.warning("waiting for another macaroon", error=str(why))
        await asyncio.sleep(MACAROON_AGAIN)
