"""The documents say what the code does: links, commands, settings, metrics, the doctor's lines, modules."""

from pathlib import Path

import pytest

from tests import chart_values
from tests import docs_reader as reader
from tests.docs_reader import DOCUMENTS, ROOT

ARCHITECTURE, DOCTOR, KUBERNETES, README = (
    ROOT / "docs" / "architecture.md",
    ROOT / "docs" / "doctor.md",
    ROOT / "docs" / "kubernetes.md",
    ROOT / "README.md",
)

documents = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)

# --- the documents ----------------------------------------------------------------------------------


@documents
def test_every_link_leads_somewhere(path: Path) -> None:
    """To a file of this repository, and a heading in it; names of links are defined."""
    assert not reader.bad_links(path, path.read_text())


@documents
def test_every_command_is_one(path: Path) -> None:
    """The command's own parser takes it, with the values of settings in it."""
    assert not reader.bad_commands(path.read_text())


def test_every_command_is_told() -> None:
    """In one of the documents at least."""
    assert not reader.commands_missing(path.read_text() for path in DOCUMENTS)


@documents
def test_every_setting_is_one(path: Path) -> None:
    """By its name, as a flag, as a variable; docs/kubernetes.md names the chart's values too."""
    others = chart_values.paths() | {"--set"} if path == KUBERNETES else frozenset()
    assert not reader.bad_settings(path.read_text(), others)


def test_every_value_of_the_chart_is_one() -> None:
    """Where docs/kubernetes.md names it; files and settings are named there as well."""
    bad = chart_values.bad_values(KUBERNETES.read_text())
    assert not [name for name in bad if name not in reader._NAMES and not reader.is_file(name)]


@documents
def test_every_metric_is_exported(path: Path) -> None:
    """tests/monitoring has the other way round: every one is in docs/monitoring.md."""
    assert not reader.bad_metrics(path.read_text())


def test_the_doctors_lines_are_told() -> None:
    """Each that it may print, and no other."""
    assert not reader.bad_doctor(DOCTOR.read_text())


def test_every_module_is_on_the_map() -> None:
    """Once in docs/architecture.md's tables; every file that is named there exists."""
    assert not reader.bad_modules(ARCHITECTURE.read_text())


@documents
def test_every_table_is_one(path: Path) -> None:
    """An empty line ends a table: what stands below it is none."""
    assert not reader.bad_tables(path.read_text())


# --- that each of these can fail --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("[a](docs/errors.md) ![b](docs/demo.svg) [c](https://a.example/b)", []),
        ("[a](docs/waking.md#waking-wallets) [b](#run-it)\n\n# Run it!", []),
        ("[a](docs/nothing.md)", ["docs/nothing.md"]),
        ("[a](docs/waking.md#nothing)", ["docs/waking.md#nothing"]),
        ("[a](#nothing)\n\n```\n# nothing\n```\n", ["#nothing"]),
        ("[a](..)", [".."]),
        ("[a](http://a.example/b)", ["http://a.example/b"]),
        ("[a][b] [c][d]\n\n[b]: docs/nothing\n", ["d", "docs/nothing"]),
        ("`[a](docs/nothing.md)`\n\n    [b](docs/nothing.md)\n", []),
    ],
)
def test_a_link_that_leads_nowhere_is_noticed(text: str, bad: list[str]) -> None:
    """Relative to the document; what is in code is no link."""
    assert reader.bad_links(README, text) == bad


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("```console\n$ sidecar client add alice --slots 3\n```\n", True),
        ("```console\n$ sidecar client add\n```\n", False),
        ("```sh\nsidecar export - | age -r X > y    # all of it\n```\n", True),
        ("```sh\nsidecar serve \\\n  --loglevel debug\n```\n", True),
        ("```sh\nsidecar serve \\\n  --logloevel debug\n```\n", False),
        ("```sh\nsidecar serve --loglevel loud\n```\n", False),
        ("a\n\n    sidecar serves\n\nb", False),
        ("| `sidecar client pause\\|resume NAME` |\n", True),
        ("| a |\n|---|\n| `sidecar client pause\\|wake NAME` |\n", False),
        ("| a |\n|---|\n| `sidecar client remove` |\n", False),
        ("| a |\n|---|\n| `sidecar client remove …` |\n", True),
        ("| a |\n|---|\n| `sidecar client list`, `client hide NAME` |\n", False),
        ("| a |\n|---|\n| `sidecar client add NAME [--ttl 90d] [--slots 3] …` |\n", True),
        ("| a |\n|---|\n| `sidecar client add NAME [--tll 90d] …` |\n", False),
        ("say `sidecar client rebind`, `sidecar webhook …` or `webhook test`", True),
        ("say `sidecar client\nadd | list | show`", True),
        ("say `sidecar client add | lost`", False),
        ("say `sidecar client add --node-id`", True),
        ("say `sidecar client add --node`", False),
        ("say `sidecar status now please`", False),
        ("say `sidecar dry-run NAME SLOT`, `sidecar doctor --egress HOST[:PORT]`", True),
    ],
)
def test_a_command_that_is_none_is_noticed(text: str, right: bool) -> None:
    """In code it is whole; what is just mentioned may lack what follows, and no more."""
    assert (not reader.bad_commands(text)) is right


def test_a_command_that_nobody_tells_is_noticed() -> None:
    """All but the two that are told here."""
    missing = reader.commands_missing(["`sidecar serve` and\n\n    sidecar client update a --slots 2\n"])
    assert "client add" in missing
    assert not {"serve", "client update"} & set(missing)


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("`lsps5.cooldown` `--http.listen` `lsps5.*` `--json` `--reset FIELD` lnd.host `lnd.conf`", []),
        ("`SIDECAR_LND_HOST` and SIDECAR_…; `lsps5.payment_incoming`; `lnd.sync` of the doctor", []),
        ("`lsps5.cool_down`", ["lsps5.cool_down"]),
        ("```toml\nlsps5.port = 443\n```\n", ["lsps5.port"]),
        ("raise limits.client_rates.", ["limits.client_rates"]),
        ("`lsp5.cooldown` and `lsp5.*`", ["lsp5.*", "lsp5.cooldown"]),
        ("`--htttp.listen 127.0.0.1:8066`", ["--htttp.listen"]),
        ("`--http.listens`", ["--http.listens"]),
        ("say --http.listens, --lnd.version or lnd.version", ["--http.listens", "lnd.version"]),
        ("`SIDECAR_LND_HOSTS`", ["SIDECAR_LND_HOSTS"]),
    ],
)
def test_a_setting_that_is_none_is_noticed(text: str, bad: list[str]) -> None:
    """With a group that exists wherever it stands; with another one as code."""
    assert reader.bad_settings(text) == bad


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("sidecar_ready sidecar_lsps_total sidecar_store_seconds sidecar_store_seconds_count", []),
        ("sidecar_build_info", []),
        ("sidecar_readiness", ["sidecar_readiness"]),
        ("sidecar_lsps", ["sidecar_lsps"]),
        ("sidecar_ready_total", ["sidecar_ready_total"]),
    ],
)
def test_a_metric_that_is_not_exported_is_noticed(text: str, bad: list[str]) -> None:
    """By the very name under which Prometheus has it."""
    assert reader.bad_metrics(text) == bad


def test_a_line_of_the_doctor_that_is_amiss_is_noticed() -> None:
    """One that is not told, and one that is told and never printed."""
    text = DOCTOR.read_text()
    assert reader.bad_doctor(text.replace("`lnd.burst`", "burst")) == ["lnd.burst"]
    assert reader.bad_doctor(text.replace("| `lnd.sync`", "| `lnd.bogus` and `lnd.sync`")) == ["lnd.bogus"]
    # Each way in which the code names a line.
    assert {"settings", "datadir", "lnd.mode", "redis.memory", "lnd.burst"} <= reader.doctor_lines()


def test_a_module_that_is_amiss_on_the_map_is_noticed() -> None:
    """One that is not there, one that is in another folder, one that is only spoken of."""
    text = ARCHITECTURE.read_text()
    assert reader.bad_modules(text.replace("`courier` |", "|")) == ["courier"]
    assert reader.bad_modules(text.replace("`wire`", "`courier`")) == ["core/courier", "core/wire"]
    assert reader.bad_modules(f"{text} `core/nothing.py`") == ["core/nothing.py"]


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("| a | b |\n| --- | :-: |\n| 1 | 2 |\n", []),
        ("| a |\n|---|\n| 1 |\n\n| 2 |\n", ["| 2 |"]),
        ("```\n| 2 |\n```\n", []),
    ],
)
def test_a_table_that_is_none_is_noticed(text: str, bad: list[str]) -> None:
    """Rows that an empty line has cut off."""
    assert reader.bad_tables(text) == bad
