"""`sidecar config`: what holds, and where it comes from."""

import json
from pathlib import Path

import pytest

from sidecar import cli, options

SECRET = "redis://:hunter2@r"


@pytest.fixture
def datadir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory of an empty home, with a file of settings; two more come from the environment."""
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".static-invoice-sidecar"
    path.mkdir()
    (path / "sidecar.toml").write_text('client.ttl = "720h"\nlogformat = "json"\n')
    monkeypatch.setenv("SIDECAR_REDIS_URL", SECRET)
    monkeypatch.setenv("SIDECAR_LOGFORMAT", "console")
    return path


def shown(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """What `sidecar config` prints, with these flags."""
    assert cli.main(["config", *args]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_every_setting_is_shown_with_its_source(datadir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One a line: value, source, whether it can change at run time; and the files that were read."""
    text = shown(capsys, "--client.slots", "3")
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line}
    assert list(lines)[1:-1] == [option.name for option in options.OPTIONS]
    file = str(datadir / "sidecar.toml")
    assert lines["client.ttl"] == ["client.ttl", "30d", "file", file, "yes"]
    assert lines["client.slots"] == ["client.slots", "3", "flag", "--client.slots", "yes"]
    assert lines["logformat"] == ["logformat", "console", "env", "SIDECAR_LOGFORMAT"]
    assert lines["lsps5.ports"] == ["lsps5.ports", "443", "default"]
    assert text.endswith(f"\n\nfiles read: {file}\n")


def test_a_secret_is_hidden(
    datadir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the table and in JSON; that there is none may be seen."""
    assert datadir.is_dir()
    for args in ((), ("--json",)):
        text = shown(capsys, *args)
        assert "hunter2" not in text
        assert "SIDECAR_REDIS_URL" in text
    monkeypatch.delenv("SIDECAR_REDIS_URL")
    assert json.loads(shown(capsys, "--json"))["settings"]["redis.url"]["value"] == "embedded"


def test_json_has_the_same_for_scripts(datadir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the settings' names, in their order."""
    answer = json.loads(shown(capsys, "--json", "--client.slots=3"))
    file = str(datadir / "sidecar.toml")
    assert answer["files"] == [file]
    settings = answer["settings"]
    assert list(settings) == [option.name for option in options.OPTIONS]
    assert settings["client.slots"] == {
        "value": "3",
        "hidden": False,
        "from": "flag",
        "place": "--client.slots",
        "reloadable": True,
    }
    assert settings["redis.url"] == {
        "value": None,
        "hidden": True,
        "from": "env",
        "place": "SIDECAR_REDIS_URL",
        "reloadable": False,
    }
    assert (settings["client.ttl"]["from"], settings["client.ttl"]["place"]) == ("file", file)
    assert (settings["http.listen"]["from"], settings["http.listen"]["place"]) == ("default", None)
