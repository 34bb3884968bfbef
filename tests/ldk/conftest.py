"""For the LDK suite: the matrix that its tests fill, printed when they have run."""

import pytest

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
