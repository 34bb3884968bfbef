"""For all tests: nothing is skipped in CI; a shell to run the command in."""

import os
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest

from tests.harness.shell import Served, Shell


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
