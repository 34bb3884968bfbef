"""A Prometheus of its own for a test: on loopback, scraping one sidecar once a second."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any, ClassVar

import aiohttp

from tests.harness.daemon import Daemon
from tests.harness.ports import free_port
from tests.monitoring.build import ensure

_READY_SECONDS = 30

_CONFIG = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: static-invoice-sidecar
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


class Prometheus(Daemon):
    """`async with Prometheus(directory, port, rules) as prometheus:`; `port` is the sidecar's."""

    _stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, directory: Path, scraped: int, rules: Path) -> None:
        super().__init__(directory)
        self._port = free_port()
        self._config = _CONFIG.format(port=scraped, rules=rules)

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "prometheus.yml"
        config.write_text(self._config)
        await self._launch(
            ensure()["prometheus"],
            [
                f"--config.file={config}",
                f"--storage.tsdb.path={self.directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
                "--log.level=warn",
            ],
        )

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        async with asyncio.timeout(_READY_SECONDS), aiohttp.ClientSession() as session:
            while process.returncode is None:
                try:
                    async with session.get(f"http://127.0.0.1:{self._port}/-/ready") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientConnectionError:
                    pass
                await asyncio.sleep(0.05)  # it tells nobody when it is ready
        raise AssertionError(f"Prometheus ended:\n{self.log_tail()}")

    async def _get(self, call: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{call}"
        async with aiohttp.request("GET", url, params=parameters) as answer:
            said = await answer.json()
        assert said["status"] == "success", said
        return said["data"]

    async def query(self, expr: str) -> list[dict[str, Any]]:
        """The series that an expression has now."""
        found: list[dict[str, Any]] = (await self._get("query", query=expr))["result"]
        return found

    async def rules(self) -> list[dict[str, Any]]:
        """All rules with their state and health."""
        groups = (await self._get("rules"))["groups"]
        return [rule for group in groups for rule in group["rules"]]
