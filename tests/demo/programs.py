"""The programs of others that a story needs: built before it begins, so that its times are its own."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.demo.paid import PAYER, WALLET
from tests.harness.lnd_process import VERSIONS, Kind
from tests.ldk import build as ldk
from tests.lnd import build as lnd

PATIENCE = 5.0
"""Seconds within which a program is found that was built before."""

Ensure = Callable[[], Path]


def needed(kind: Kind, *, pay: bool) -> Iterator[tuple[str, Ensure]]:
    """What they are called, and what builds them if they are not there yet."""
    version = VERSIONS[kind]
    yield f"LND {version}", partial(lnd.ensure, version)
    if pay:
        yield "lncli", partial(lnd.ensure, lnd.TOOLS_VERSION, "lncli")
        yield "btcd", partial(lnd.ensure, lnd.TOOLS_VERSION, "btcd")
        yield f"a wallet of LDK {WALLET}", partial(ldk.ensure, ldk.lsps5(WALLET))
        yield f"a payer of LDK {PAYER}", partial(ldk.ensure, PAYER)


async def built(name: str, ensure: Ensure) -> None:
    """Wait until it is there, and say so when that takes longer than to find it. Raises BuildError."""
    building = asyncio.create_task(asyncio.to_thread(ensure))
    done, _ = await asyncio.wait({building}, timeout=PATIENCE)
    if not done:
        print(f"{name} is being built, this first time: that may take some minutes", flush=True)
    await building
