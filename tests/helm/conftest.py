"""For the chart's tests: Helm, the sidecar's image (once for all), and the counts printed at the end."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from tests.helm import boxes
from tests.helm.build import ensure
from tests.helm.charts import Helm
from tests.helm.cluster import Cluster
from tests.helm.dockerfile import Build, Image

CHECKOUT = Path(__file__).resolve().parents[2]
COUNTED = "helm"


@pytest.fixture(scope="session")
def tools() -> Mapping[str, Path]:
    """Each program by its name."""
    return ensure()


@pytest.fixture(scope="session")
def helm(tools: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm, to render the chart."""
    return Helm(tools["helm"], tmp_path_factory.mktemp("helm"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """One for all tests."""
    async with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """What the Dockerfile makes of this checkout: about half a minute, and the network."""
    if reason := boxes.why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("image")
    yield Build(CHECKOUT, folder).image()
    # pytest keeps the folders of some runs, and this is large.
    shutil.rmtree(folder)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[str, int], None]:
    """`record("manifests validated", 12)`: adds to a line of the closing table, if the test passes."""

    def add(name: str, number: int) -> None:
        # With the report, which comes home from other processes as well.
        request.node.user_properties.append((COUNTED, [name, number]))

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    counts: Counter[str] = Counter()
    for report in terminalreporter.stats.get("passed", []):
        for kind, entry in report.user_properties:
            if kind == COUNTED and report.when == "call":
                counts[entry[0]] += entry[1]
    if counts:
        terminalreporter.section("Helm chart")
        for name, number in counts.items():
            terminalreporter.write(f"{number:8,}  {name}\n")
