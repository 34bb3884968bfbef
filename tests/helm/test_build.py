"""How the chart's tools are built: what is said when that can't be, and what the programs say they are."""

from __future__ import annotations

import pytest

from tests.harness.building import BuildError
from tests.helm import build


def test_without_go_the_build_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for whoever runs the tests, and no traceback of a missing file."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BuildError, match="install Go"):
        build.ensure()


def test_the_programs_are_told_the_versions_that_their_modules_pin() -> None:
    """A chart asks for them: without, Helm would say it is made for Kubernetes 1.20."""
    chart, kube = (build._flags(module).split() for module in build._ALL)
    assert {
        "helm.sh/helm/v3/internal/version.version=v3.22.0",
        "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=37",
        "main.version=1.14.2",
    } <= set(chart)
    assert "k8s.io/component-base/version.gitVersion=v1.34.4" in kube
