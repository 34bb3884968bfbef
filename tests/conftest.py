"""For all tests: nothing is skipped in CI; real LNDs with the product; a shell to run the command in."""

import os
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import pytest

from sidecar import logs
from tests.faults.ledger import LEDGER
from tests.harness.beside import LNDS, sidecar_beside
from tests.harness.lnd_process import LndProcess
from tests.harness.shell import Served, Shell
from tests.harness.sidecar_process import SidecarProcess

_LEDGER = "ledger"

logs.route()  # so that caplog sees what is logged


def pytest_addoption(parser: pytest.Parser) -> None:
    """How often the faults of tests/faults come back."""
    parser.addoption("--rounds", type=int, default=5, help="rounds of each fault (tests/faults)")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what one process of several has seen to the one that shows the table."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_LEDGER] = LEDGER.dump()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what one of them has seen."""
    LEDGER.take(getattr(node, "workeroutput", {}).get(_LEDGER, []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was promised, and what was not kept."""
    if lines := LEDGER.table():
        terminalreporter.write_sep("=", "promises")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where SIDECAR_NO_SKIPS is set."""
    report = yield
    if report.skipped and os.environ.get("SIDECAR_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and nothing may be skipped here: {report.longrepr}"
    return report


@pytest.fixture(params=LNDS)
async def lnd(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LndProcess]:
    """A real LND of each kind."""
    async with LndProcess(LNDS[request.param], tmp_path / "lnd") as process:
        yield process


@pytest.fixture
async def sidecar(lnd: LndProcess, tmp_path: Path) -> AsyncIterator[SidecarProcess]:
    """The product beside it."""
    async with sidecar_beside(lnd, tmp_path) as process:
        yield process


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell without a server."""
    return Shell(tmp_path)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """A shell with a server."""
    served = Served(tmp_path)
    server = await served.start()
    yield served
    await server.stop(None)
