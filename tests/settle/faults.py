"""What fails while payments are under way."""

from __future__ import annotations

from abc import ABC, abstractmethod

from tests.settle.town import Guest, Town


class Fault(ABC):
    """Something that is there no more, and then again."""

    name: str

    @abstractmethod
    async def down(self, town: Town) -> None:
        """It fails."""

    @abstractmethod
    async def up(self, town: Town) -> None:
        """It is back, and does its work again."""


class SidecarKilled(Fault):
    """The sidecar, with SIGKILL."""

    name = "sidecar killed"

    async def down(self, town: Town) -> None:
        """LND streams to nobody."""
        await town.sidecar.kill()

    async def up(self, town: Town) -> None:
        """It is ready."""
        await town.sidecar.start()


class RedisKilled(Fault):
    """Redis, with SIGKILL."""

    name = "Redis killed"

    async def down(self, town: Town) -> None:
        """Nothing can be read or written."""
        await town.redis.kill()

    async def up(self, town: Town) -> None:
        """It has what was acknowledged, and the sidecar uses it."""
        await town.redis.start()
        await town.until_served()


class LndRestarted(Fault):
    """LND, as an operator restarts it."""

    name = "LND restarted"
    killed = False

    def __init__(self) -> None:
        self._guests: list[Guest] = []

    async def down(self, town: Town) -> None:
        """All connections are gone."""
        self._guests = await town.stop_lnd(killed=self.killed)

    async def up(self, town: Town) -> None:
        """Those who had lost their connection have another one; wallets that slept sleep on."""
        await town.start_lnd(self._guests)


class LndKilled(LndRestarted):
    """LND, with SIGKILL.

    An LND that is stopped in order while it updates a channel sends "internal error" (its issue 7628, open
    since 0.16), and LDK closes the channel; so it goes where a peer has connected some milliseconds before
    and its channel is not loaded yet. No message of ours can help that.
    """

    name = "LND killed"
    killed = True


FAULTS: tuple[type[Fault], ...] = (SidecarKilled, RedisKilled, LndRestarted)
FAULTS_IN_PAYMENTS: tuple[type[Fault], ...] = (SidecarKilled, RedisKilled, LndKilled)
"""While money moves, or peers connect."""
