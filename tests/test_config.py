"""Settings: where they come from, which wins, and what is refused."""

import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from sidecar import config, options
from sidecar.adapters import admin
from sidecar.core.errors import ConfigError
from sidecar.core.mailbox import MailLimits
from sidecar.core.model import Quota, TimestampForm

DAY = 86_400

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory that holds nothing."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def datadir(home: Path) -> Path:
    """The default data directory, made."""
    path = home / ".static-invoice-sidecar"
    path.mkdir()
    return path


def refusal(flags: dict[str, str], environ: dict[str, str] | None = None) -> str:
    """The text of the ConfigError that these sources give: one line."""
    with pytest.raises(ConfigError) as caught:
        config.load(flags, environ or {})
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_without_any_source_the_defaults_hold(home: Path) -> None:
    """A bare `sidecar serve` finds LND where it lies by default, on mainnet, with embedded Redis."""
    assert config.load({}, {}) == config.Settings(
        datadir=home / ".static-invoice-sidecar",
        network=None,
        lnd=config.LndSettings(
            host="127.0.0.1:10009",
            tlspath=home / ".lnd/tls.cert",
            macaroonpath=home / ".lnd/data/chain/bitcoin/mainnet/admin.macaroon",
        ),
        redis=config.RedisSettings(url=None, durability="strict"),
        quota=Quota(slots=10, bytes=131_072, ttl=365 * DAY),
        paths_lifetime=365 * DAY,
        limits=config.LimitSettings(
            offer_rate=10.0,
            offer_burst=5,
            client_rate=50.0,
            client_burst=50,
            stores_per_minute=60,
            offer_paths_per_minute=60,
        ),
        mail=MailLimits(letters=200, bytes=4_194_304, ttl=7 * DAY),
        mail_total_bytes=536_870_912,
        lsps5=config.Lsps5Settings(
            timestamps=TimestampForm.OFFSET,
            cooldown=120,
            max_webhooks=10,
            ports=frozenset({443}),
            private_networks=(),
            cafile=None,
        ),
        loglevel="info",
    )


def test_settings_are_frozen() -> None:
    """Nothing changes a setting after it was checked."""
    with pytest.raises(FrozenInstanceError):
        config.load({}, {}).loglevel = "debug"  # type: ignore[misc]


def test_flag_beats_environment_beats_file_beats_datadir_beats_default(datadir: Path) -> None:
    """Each source is asked only for what those before it leave open."""
    named = datadir.parent / "named.toml"
    named.write_text('loglevel = "error"\nclient.slots = 3\nclient.bytes = 3\nlimits.offer_burst = 3\n')
    (datadir / "sidecar.toml").write_text('loglevel = "debug"\nclient.slots = 4\nlimits.client_burst = 4\n')
    flags = {"config": str(named), "loglevel": "warning"}
    environ = {"SIDECAR_LOGLEVEL": "info", "SIDECAR_CLIENT_BYTES": "2"}
    settings = config.load(flags, environ)
    assert settings.loglevel == "warning"
    assert settings.quota == Quota(slots=3, bytes=2, ttl=365 * DAY)
    assert (settings.limits.offer_burst, settings.limits.client_burst) == (3, 4)
    assert settings.limits.stores_per_minute == 60


def test_dotted_keys_and_tables_say_the_same(home: Path) -> None:
    """A file may be written either way that TOML has."""
    dotted, tables = home / "dotted.toml", home / "tables.toml"
    dotted.write_text(
        'lnd.host = "lnd:1"\nlnd.tlspath = "/tls"\nclient.ttl = "2h"\nlimits.offer_rate = 0.5\n'
    )
    tables.write_text(
        '[lnd]\nhost = "lnd:1"\ntlspath = "/tls"\n[client]\nttl = 7200\n[limits]\noffer_rate = 0.5\n'
    )
    assert config.load({"config": str(dotted)}, {}) == config.load({"config": str(tables)}, {})


@pytest.mark.parametrize("option", options.OPTIONS, ids=lambda option: option.name)
def test_every_option_can_come_from_every_source(option: options.Option[object], home: Path) -> None:
    """Flag, variable and file read an option with the same eyes."""
    text = {"network": "regtest", "redis.url": "redis://r", "datadir": str(home / "other")}.get(
        option.name, option.default
    )
    file = home / "all.toml"
    file.write_text(f'{option.name} = "{text}"\n')
    by_flag = config.load({option.name: text}, {})
    assert by_flag == config.load({}, {option.variable: text})
    assert by_flag == config.load({"config": str(file)}, {})
    assert by_flag == config.load({}, {"SIDECAR_CONFIG": str(file)})


def test_variables_are_named_after_their_options() -> None:
    """`--lnd.host` is SIDECAR_LND_HOST."""
    assert (options.LND_HOST.flag, options.LND_HOST.variable) == ("--lnd.host", "SIDECAR_LND_HOST")
    assert options.OFFER_PATHS.variable == "SIDECAR_LIMITS_OFFER_PATHS_PER_MINUTE"


def test_an_empty_or_foreign_variable_is_not_a_setting() -> None:
    """Compose passes empty variables, Kubernetes invents SIDECAR_PORT and its like."""
    environ = {"SIDECAR_LND_HOST": "", "SIDECAR_CONFIG": "", "SIDECAR_PORT": "tcp://10.0.0.1:80"}
    assert config.load({}, environ) == config.load({}, {})


def test_the_datadir_decides_which_file_is_read(home: Path) -> None:
    """sidecar.toml is looked for in the data directory that flag, variable or file name."""
    other = home / "other"
    other.mkdir()
    (other / "sidecar.toml").write_text("client.slots = 7\n")
    assert config.load({"datadir": str(other)}, {}).quota.slots == 7
    assert config.load({}, {"SIDECAR_DATADIR": "~/other"}).quota.slots == 7
    assert config.load({}, {}).quota.slots == 10


def test_the_macaroon_is_looked_for_by_network(home: Path) -> None:
    """LND keeps macaroons by network; a path that was given is taken as it is."""
    by_network = config.load({"network": "Regtest"}, {}).lnd.macaroonpath
    assert by_network == home / ".lnd/data/chain/bitcoin/regtest/admin.macaroon"
    given = config.load({"network": "regtest", "lnd.macaroonpath": "m"}, {}).lnd.macaroonpath
    assert given == Path.cwd() / "m"


@pytest.mark.parametrize(
    ("text", "seconds"), [("60", 60), ("90s", 90), ("90m", 5_400), ("12h", 43_200), ("30d", 30 * DAY)]
)
def test_durations_are_read_in_their_units(text: str, seconds: int) -> None:
    """30d, 12h, 90m, 45s or plain seconds."""
    assert config.load({"client.ttl": text}, {}).quota.ttl == seconds


@pytest.mark.parametrize("seconds", [1, 45, 60, 5_400, 43_200, DAY, 365 * DAY, DAY + 1])
def test_a_printed_duration_reads_back(seconds: int) -> None:
    """What is shown can be given again."""
    assert options._duration(1, 400 * DAY)(options.format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("lnd:10010", "lnd:10010"),
        ("lnd", "lnd:10009"),
        ("[::1]:1", "[::1]:1"),
        ("[::1]", "[::1]:10009"),
    ],
)
def test_lnds_port_is_its_own_default(text: str, address: str) -> None:
    """As with lncli, a host without a port means 10009."""
    assert config.load({"lnd.host": text}, {}).lnd.host == address


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("lnd.host", ["", ":1", "a b", "h:0", "h:65536", "h:x", "h:", "https://h:1", "u@h", "::1", "[::1"]),
        ("lnd.tlspath", ["", "a\0b"]),
        ("network", ["mainet", "bitcoin"]),
        ("redis.url", ["", "localhost", "http://r", "redis://", "rediss://:1", "unix:", "redis://r:x"]),
        ("redis.durability", ["", "always"]),
        ("client.ttl", ["", "59", "-1", "1.5h", "1y", "5 d", "3651d", "9" * 5_000, "\u0663\u0660d"]),
        ("client.slots", ["", "0", "-1", "1001", "ten", "1.0", "\u0661", "9" * 5_000]),
        ("client.bytes", ["0", "1073741825"]),
        ("paths.lifetime", ["89d", "3651d", "0"]),
        ("limits.offer_rate", ["0", "-1", "nan", "inf", "1e3", "1000001"]),
        ("limits.client_rate", ["0.0", "x"]),
        ("limits.offer_burst", ["0", "0.5"]),
        ("limits.client_burst", ["0"]),
        ("limits.stores_per_minute", ["0"]),
        ("limits.offer_paths_per_minute", ["0"]),
        ("mailbox.letters", ["", "0", "10001", "1.5"]),
        ("mailbox.bytes", ["0", "1073741825", "1k"]),
        ("mailbox.ttl", ["59m", "91d", "0", "1w"]),
        ("mailbox.total_bytes", ["0", "1099511627777", "-1"]),
        ("lsps5.timestamps", ["", "default", "utc", "+00:00"]),
        ("lsps5.cooldown", ["", "0", "25h", "0.5s"]),
        ("lsps5.max_webhooks", ["", "0", "101"]),
        (
            "lsps5.ports",
            ["", " , ", "0", "65536", "443;8443", "443 8443", "https", "\u0664\u0664\u0663", "1-9"],
        ),
        (
            "lsps5.private_networks",
            ["10.0.0.1/8", "10.0.0.0/33", "push.internal", "10", "10.0.0.0/8;fd00::/8"],
        ),
        ("lsps5.cafile", ["a\0b"]),
        ("loglevel", ["", "loud"]),
        ("datadir", ["\0"]),
    ],
)
def test_a_wrong_value_is_refused_by_name_source_and_rule(name: str, bad: list[str]) -> None:
    """The error names the option, where the value came from, and what would be right."""
    option = next(each for each in options.OPTIONS if each.name == name)
    for text in bad:
        said = refusal({name: text})
        assert said.startswith(f"{name}: ")
        assert f"the flag --{name}" in said
        assert re.search(r"is not allowed: give \S", said)
        if text and "\0" not in text:
            assert f"the environment variable {option.variable}" in refusal({}, {option.variable: text})


def test_offer_paths_live_at_least_90_days() -> None:
    """LDK's wallets take no shorter ones; 90 days to the second are enough."""
    assert config.load({"paths.lifetime": "90d"}, {}).paths_lifetime == 7_776_000
    assert "from 90d to 3650d" in refusal({"paths.lifetime": "7775999"})


def test_the_mailbox_is_as_large_and_keeps_as_long_as_is_said() -> None:
    """For each of a client's two queues, and for all clients together."""
    flags = {
        "mailbox.letters": "5",
        "mailbox.bytes": "70000",
        "mailbox.ttl": "14d",
        "mailbox.total_bytes": "1099511627776",
    }
    settings = config.load(flags, {})
    assert settings.mail == MailLimits(letters=5, bytes=70_000, ttl=14 * DAY)
    assert settings.mail_total_bytes == 1 << 40


@pytest.mark.parametrize(
    ("text", "form"), [("offset", TimestampForm.OFFSET), ("z", TimestampForm.Z), ("Z", TimestampForm.Z)]
)
def test_both_forms_of_timestamps_can_be_set(text: str, form: TimestampForm) -> None:
    """In small letters or large ones."""
    assert config.load({"lsps5.timestamps": text}, {}).lsps5.timestamps is form


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("8443", {8443}),
        ("443,8443", {443, 8443}),
        (" 443 , 8443, ", {443, 8443}),
        ("443,443", {443}),
        ("1,65535", {1, 65_535}),
    ],
)
def test_ports_are_listed_with_commas(text: str, ports: set[int]) -> None:
    """At least one: with none, no webhook could be registered."""
    assert config.load({"lsps5.ports": text}, {}).lsps5.ports == ports


def test_a_single_port_may_be_a_number_in_a_file(datadir: Path) -> None:
    """TOML has numbers."""
    (datadir / "sidecar.toml").write_text("lsps5.ports = 8443\nlsps5.max_webhooks = 3\n")
    settings = config.load({}, {}).lsps5
    assert (settings.ports, settings.max_webhooks) == (frozenset({8443}), 3)


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("10.0.0.0/8", ["10.0.0.0/8"]),
        ("10.1.2.3, fd00::/8", ["10.1.2.3/32", "fd00::/8"]),
        ("", []),
        (" , ", []),
    ],
)
def test_private_networks_are_named_one_by_one(text: str, networks: list[str]) -> None:
    """An address alone is a network of one; by default there is none."""
    found = config.load({"lsps5.private_networks": text}, {}).lsps5.private_networks
    assert [str(each) for each in found] == networks


def test_a_ca_of_the_operators_own_is_a_file(home: Path) -> None:
    """Found from the home directory as every path; none by default."""
    assert config.load({"lsps5.cafile": "~/ca.pem"}, {}).lsps5.cafile == home / "ca.pem"
    assert config.load({"lsps5.cafile": ""}, {}).lsps5.cafile is None


def test_a_redis_password_is_not_shown() -> None:
    """Neither a refusal nor the settings' repr gives it away."""
    assert "hunter2" not in refusal({"redis.url": "rediss//:hunter2@r"})
    assert "hunter2" not in repr(config.load({"redis.url": "redis://:hunter2@r"}, {}))


def test_embedded_redis_can_be_asked_for_by_name(datadir: Path) -> None:
    """A flag can take back the URL that a file gives."""
    (datadir / "sidecar.toml").write_text('redis.url = "unix:///run/redis.sock"\n')
    assert config.load({}, {}).redis.url == "unix:///run/redis.sock"
    assert config.load({"redis.url": "embedded"}, {}).redis.url is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lnd.hots = 1\n", r"^'lnd\.hots': unknown option in the file \S+: did you mean lnd\.host\?$"),
        ("[zzz]\nqqq = 1\n", r"^'zzz\.qqq': unknown option in the file \S+: allowed are lnd\.host, "),
        ('config = "x"\n', r"^'config': unknown option"),
        ('lnd = "x"\n', r"^'lnd': unknown option"),
        ("client.slots = true\n", r"^client\.slots: the file \S+ must give one text or number, not True"),
        ("client.slots = [1]\n", r"^client\.slots: the file \S+ must give one text or number"),
        ("client.slots = 1.0\n", r"^client\.slots: '1\.0' from the file \S+ is not allowed: give a whole"),
        ("lnd.host\n", r"^config: the file \S+ is no TOML: .*line 1"),
        ("a = '\udcff'\n", r"^config: the file \S+ is no TOML"),
    ],
)
def test_a_wrong_file_is_refused(datadir: Path, text: str, said: str) -> None:
    """In a named file and in the data directory's: a typo never passes for a default."""
    named = datadir.parent / "named.toml"
    named.write_bytes(text.encode(errors="surrogateescape"))
    assert re.search(said, refusal({"config": str(named)}))
    assert re.search(said, refusal({}, {"SIDECAR_CONFIG": str(named)}))
    named.rename(datadir / "sidecar.toml")
    assert re.search(said, refusal({}))


def test_a_named_file_must_be_there(home: Path) -> None:
    """A --config that can't be read is an error; sidecar.toml in the data directory is a may."""
    assert "no-such.toml can't be read: No such file" in refusal({"config": "no-such.toml"})
    assert "can't be read: Is a directory" in refusal({"config": str(home)})


def test_a_datadir_file_can_not_move_the_datadir(datadir: Path) -> None:
    """It was found in the data directory: it has no say in where that is."""
    (datadir / "sidecar.toml").write_text('datadir = "/elsewhere"\n')
    assert refusal({}).startswith("datadir: ")


def test_a_datadir_must_be_a_directory(home: Path) -> None:
    """A file in its place is named as what it is."""
    (home / "file").write_text("")
    assert refusal({"datadir": str(home / "file")}).endswith("/file is of no use: Not a directory")


def test_the_default_quota_is_one_that_the_admin_service_accepts() -> None:
    """Else `client add` would fail on a server that started."""
    admin.check_quota(config.load({}, {}).quota)
