"""Debian's Prometheus and promtool: the rules hold what they promise, and a real server has all series."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.harness.asserting import until
from tests.harness.ports import free_port
from tests.harness.push_service import PushService
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.sim_lnd import SimulatedLnd
from tests.harness.stage import Stage
from tests.harness.waking import push_options
from tests.harness.wallet import set_webhook
from tests.monitoring import files
from tests.monitoring.build import ensure
from tests.monitoring.prometheus import Prometheus

pytestmark = pytest.mark.real

SCRAPES = 'count_over_time(up{job="static-invoice-sidecar"}[1m]) >= 2'


def promtool(*arguments: str) -> str:
    """Run it beside the rules; what it printed. Raises AssertionError when it finds something wrong."""
    done = subprocess.run([ensure()["promtool"], *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_well_formed() -> None:
    """As promtool reads them, and no alert is lost on the way."""
    assert f"{len(files.alerts())} rules found" in promtool("check", "rules", str(files.RULES))


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    """The cases of rules_test.yaml: with their labels, summaries and actions."""
    assert "SUCCESS" in promtool("test", "rules", str(files.RULES_TEST))


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    """Where a sidecar shows its metrics that served, was refused something, and woke a wallet."""
    port = free_port()
    async with SimulatedLnd(tmp_path / "lnd") as lnd, PushService(tmp_path) as push:
        options = [*push_options(push), f"--http.listen=127.0.0.1:{port}"]
        async with SidecarProcess(tmp_path / "sidecar", lnd, options=options) as sidecar:
            stage = Stage(lnd)
            wallet = await stage.wallet(sidecar, "alice")
            offer, _, _ = await wallet.set_up()
            await set_webhook(wallet.link, "app", push.url())
            await push.next()
            await wallet.link.close()
            await (await stage.payer()).get_invoice(offer)
            await push.next()
            wallet.link = await stage.connect(wallet.secret)
            await wallet.receive_invoice_request()
            yield port


async def page(port: int, path: str) -> tuple[int, str]:
    """The status and text of one of the three pages."""
    async with aiohttp.request("GET", f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


async def test_prometheus_has_every_series_of_the_dashboard_and_takes_every_rule(
    port: int, tmp_path: Path
) -> None:
    """Each query of each panel gives something, and no alert is broken; what was done is counted."""
    assert (await page(port, "/healthz"))[0] == 200
    assert (await page(port, "/readyz")) == (200, "ok: LND streams onion messages\nok: Redis keeps changes\n")
    async with Prometheus(tmp_path / "prometheus", port, files.RULES) as prometheus:

        async def scraped() -> bool:
            # Clients are counted once in 15 s.
            return bool(await prometheus.query(f"sidecar_slots_used == 1 and on () {SCRAPES}"))

        await until(scraped, timeout=40)
        empty = []
        for panel, expr in files.queries():
            asked = expr.replace("$__rate_interval", "1m").replace("$instance", ".*")
            if not await prometheus.query(asked):
                empty.append((panel, asked))
        assert empty == []
        for metric in (
            "sidecar_invoices_served_total",
            "sidecar_invoices_stored_total",
            "sidecar_wake_to_connect_seconds_count",
            'sidecar_message_seconds_count{type="invoice_request",outcome="done"}',
            'sidecar_clients{state="active"}',
            "sidecar_slots_used",
            "sidecar_leads",
            "sidecar_stream_up",
            "sidecar_redis_up",
            "sidecar_ready",
        ):
            assert [each["value"][1] for each in await prometheus.query(metric)] == ["1"], metric

        async def judged() -> bool:
            return all(rule["health"] == "ok" for rule in await prometheus.rules())

        await until(judged)
        rules = await prometheus.rules()
        assert [rule["name"] for rule in rules] == list(files.alerts())
        assert {rule["name"]: rule["state"] for rule in rules} == dict.fromkeys(files.alerts(), "inactive")
