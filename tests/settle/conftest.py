"""For the tests of settlement: the ledger that they fill, and the two towns that most of them share."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.harness.beside import LNDS
from tests.settle.build import Plan, town
from tests.settle.ledger import Ledger
from tests.settle.town import Town

LEDGER = pytest.StashKey[Ledger]()


def pytest_configure(config: pytest.Config) -> None:
    """One ledger a run."""
    config.stash[LEDGER] = Ledger()


@pytest.fixture(scope="session")
def ledger(request: pytest.FixtureRequest) -> Ledger:
    """Where a test enters what it found."""
    return request.config.stash[LEDGER]


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=LNDS)
async def lasting_town(
    request: pytest.FixtureRequest, ledger: Ledger, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Town]:
    """A town for each kind of LND, with all that happened in it before."""
    folder = tmp_path_factory.mktemp("town")
    plan = Plan(LNDS[request.param], request.param, far=True)
    async with town(plan, folder, ledger) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def shared_town(lasting_town: Town) -> Town:
    """It, with everybody online: what failed before does not fail what comes after."""
    await lasting_town.calm()
    return lasting_town


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print it."""
    lines = list(config.stash[LEDGER].lines())
    if lines:
        terminalreporter.section("settlement")
        terminalreporter.write("\n".join(lines) + "\n")
