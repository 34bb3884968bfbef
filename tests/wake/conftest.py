"""For the tests of waking: what they noted is printed when they have run."""

import pytest

NOTES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """One list a run."""
    config.stash[NOTES] = []


@pytest.fixture
def notes(request: pytest.FixtureRequest) -> list[str]:
    """Lines that a test wants to be read."""
    return request.config.stash[NOTES]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print them."""
    if lines := config.stash[NOTES]:
        terminalreporter.section("waking")
        terminalreporter.write("\n".join(lines) + "\n")
