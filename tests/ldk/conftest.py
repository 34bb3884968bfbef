"""For the LDK suite: the matrix that its tests fill, printed when they have run."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.harness.beside import LNDS
from tests.harness.lnd_process import LndProcess
from tests.harness.matrix import Matrix

MATRIX = pytest.StashKey[Matrix]()


def pytest_configure(config: pytest.Config) -> None:
    """One matrix a run."""
    config.stash[MATRIX] = Matrix()


@pytest.fixture
def matrix(request: pytest.FixtureRequest) -> Matrix:
    """Where a test notes what it found."""
    return request.config.stash[MATRIX]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print it."""
    lines = list(config.stash[MATRIX].lines())
    if lines:
        terminalreporter.section("LDK")
        terminalreporter.write("\n".join(lines) + "\n")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=LNDS)
async def shared_lnd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LndProcess]:
    """One real LND of each kind for the whole module."""
    async with LndProcess(LNDS[request.param], tmp_path_factory.mktemp("lnd")) as process:
        yield process
