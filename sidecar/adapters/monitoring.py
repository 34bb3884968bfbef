"""What can be seen of the server from outside, from before it has met LND until it ends."""

from collections.abc import Callable, Sequence

from sidecar.adapters.http_server import HttpServer
from sidecar.adapters.metrics import Facts, SidecarCollector, new_registry
from sidecar.adapters.vitals import Condition, Vitals
from sidecar.timings import Timings


def _starting() -> Sequence[Condition]:
    return (Condition(holds=False, text="LND and Redis have not both answered yet"),)


class Monitoring:
    """/healthz, /readyz and /metrics, if they are wanted. `timings` is for whoever does something.

    A liveness probe must find /healthz while the server waits for an LND that is locked: it listens first,
    and is told of the server's vitals when there are any.
    """

    def __init__(self, version: str) -> None:
        self.timings = Timings()
        self._collector = SidecarCollector(lambda: Facts(about={"version": version}))
        self._http = HttpServer(_starting, new_registry(self._collector, self.timings))

    async def listen(self, address: str) -> int:
        """Serve the three pages at host:port, an IPv6 host in brackets. Raises ConfigError.

        Returns the port, which the system chooses for 0.
        """
        host, _, port = address.rpartition(":")
        return await self._http.start(host.strip("[]"), int(port))

    def follow(self, vitals: Vitals, facts: Callable[[], Facts]) -> None:
        """Show a server at work. `facts` is asked at each scrape, and must not wait."""
        self._http.conditions = vitals.conditions
        self._collector.facts = facts

    async def close(self) -> None:
        """Answer nobody any more."""
        await self._http.close()
