"""Settings: where they come from, which wins, and what is refused."""

import pwd
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import ValidationError

from sidecar import config, options, parsing
from sidecar.adapters import admin_records
from sidecar.core.errors import ConfigError
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
    settings = config.load({}, {})
    assert settings.lnd.host == "127.0.0.1:10009"
    assert settings.lnd.tlspath == home / ".lnd/tls.cert"
    assert settings.lnd.macaroonpath == home / ".lnd/data/chain/bitcoin/mainnet/admin.macaroon"
    assert settings.datadir == home / ".static-invoice-sidecar"
    assert (settings.network, settings.redis.read_url(), settings.redis.durability) == (None, None, "strict")
    client, mailbox = settings.client, settings.mailbox
    assert (client.slots, client.bytes, client.ttl) == (10, 131_072, 365 * DAY)
    assert (mailbox.letters, mailbox.bytes, mailbox.ttl) == (200, 4_194_304, 7 * DAY)
    assert (mailbox.total_bytes, settings.paths.lifetime) == (536_870_912, 365 * DAY)
    limits = settings.limits
    assert (limits.offer_rate, limits.offer_burst) == (10.0, 5)
    assert (limits.client_rate, limits.client_burst) == (50.0, 50)
    assert (limits.stores_per_minute, limits.offer_paths_per_minute) == (60, 60)
    lsps5 = settings.lsps5
    assert (lsps5.timestamps, lsps5.cooldown, lsps5.max_webhooks) == (TimestampForm.OFFSET, 120, 10)
    assert (lsps5.ports, lsps5.private_networks, lsps5.cafile) == (frozenset({443}), (), None)
    assert (settings.admin.listen, settings.admin.address, settings.http.listen) == (None, None, None)
    assert (settings.loglevel, settings.logformat) == ("info", "console")


def test_settings_are_frozen() -> None:
    """Nothing changes a setting after it was checked, in a group or out of it."""
    settings = config.load({}, {})
    with pytest.raises(ValidationError, match="frozen"):
        settings.loglevel = "debug"
    with pytest.raises(ValidationError, match="frozen"):
        settings.client.slots = 1


def test_flag_beats_environment_beats_file_beats_datadir_beats_default(datadir: Path) -> None:
    """Each source is asked only for what those before it leave open."""
    named = datadir.parent / "named.toml"
    named.write_text('loglevel = "error"\nclient.slots = 3\nclient.bytes = 3\nlimits.offer_burst = 3\n')
    (datadir / "sidecar.toml").write_text('loglevel = "debug"\nclient.slots = 4\nlimits.client_burst = 4\n')
    flags = {"config": str(named), "loglevel": "warning"}
    environ = {"SIDECAR_LOGLEVEL": "info", "SIDECAR_CLIENT_BYTES": "2"}
    settings = config.load(flags, environ)
    assert settings.loglevel == "warning"
    client = settings.client
    assert (client.slots, client.bytes, client.ttl) == (3, 2, 365 * DAY)
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


# Of each setting a value that is not its default, as it is shown again.
SAMPLES = {
    "lnd.host": "lnd:1",
    "lnd.tlspath": "/tls",
    "lnd.macaroonpath": "/macaroon",
    "lnd.wait": "1d",
    "network": "regtest",
    "redis.url": "redis://:hunter2@r",
    "redis.urlfile": "/url",
    "redis.passwordfile": "/password",
    "redis.durability": "none",
    "redis.replicas": "2",
    "datadir": "/elsewhere",
    "client.ttl": "90d",
    "client.slots": "3",
    "client.bytes": "4",
    "paths.lifetime": "91d",
    "limits.offer_rate": "0.5",
    "limits.offer_burst": "6",
    "limits.client_rate": "7.5",
    "limits.client_burst": "8",
    "limits.stores_per_minute": "9",
    "limits.offer_paths_per_minute": "11",
    "mailbox.letters": "12",
    "mailbox.bytes": "13",
    "mailbox.ttl": "14d",
    "mailbox.total_bytes": "15",
    "lsps5.timestamps": "z",
    "lsps5.cooldown": "16s",
    "lsps5.max_webhooks": "17",
    "lsps5.ports": "443,8443",
    "lsps5.private_networks": "10.0.0.0/8,fd00::/8",
    "lsps5.cafile": "/ca",
    "lease.time": "18s",
    "lease.name": "left",
    "admin.listen": "[::]:8443",
    "admin.tlscert": "/cert",
    "admin.tlskey": "/key",
    "admin.tokenfile": "/token",
    "admin.address": "sidecar:8443",
    "admin.cafile": "/server",
    "http.listen": "127.0.0.1:9100",
    "loglevel": "debug",
    "logformat": "json",
}
# What some settings ask for beside them.
BESIDE = {name: SAMPLES[name] for name in ("admin.tlscert", "admin.tlskey", "admin.tokenfile")}


def test_there_is_a_sample_of_every_setting() -> None:
    """Else the tests that go through the samples would leave one out."""
    assert list(SAMPLES) == [option.name for option in options.OPTIONS]


@pytest.mark.parametrize("name", SAMPLES)
def test_every_option_can_come_from_every_source(name: str, home: Path) -> None:
    """Flag, variable and file read an option with the same eyes; it is known where it came from."""
    text, option = SAMPLES[name], options.find(name)
    beside = {each: value for each, value in BESIDE.items() if each != name}
    if name in ("redis.passwordfile", "redis.replicas"):
        beside["redis.url"] = "redis://r"
    file = home / "all.toml"
    file.write_text(f'{name} = "{text}"\n')
    for origin, flags, environ in (
        (config.Origin("flag", f"--{name}"), {name: text}, {}),
        (config.Origin("env", option.variable), {}, {option.variable: text}),
        (config.Origin("file", str(file)), {"config": str(file)}, {}),
        (config.Origin("file", str(file)), {}, {"SIDECAR_CONFIG": str(file)}),
    ):
        loaded = config.Loader(beside | flags, environ).load()
        assert config.shown(loaded.settings)[name] == ("(hidden)" if option.secret else text)
        assert loaded.origins[name] == origin
        assert set(loaded.origins) == {name, *beside}
        reloaded, restart = config.changes(config.load(beside, {}), loaded.settings)
        # The network says where LND's macaroon is, too.
        also = ["lnd.macaroonpath"] if name == "network" else []
        assert (reloaded, restart) == (([name], []) if option.reloadable else ([], [*also, name]))


def test_what_is_shown_can_be_given_again() -> None:
    """Every text but the secret's is one that the setting reads, to the same value."""
    of_the_url = ("redis.url", "redis.urlfile", "redis.passwordfile", "redis.replicas")
    given = {name: text for name, text in SAMPLES.items() if name not in of_the_url}
    for flags in ({}, given):
        settings = config.load(flags, {})
        again = {name: text for name, text in config.shown(settings).items() if name not in of_the_url}
        assert config.load(again, {}) == settings


def test_variables_are_named_after_their_options() -> None:
    """`--lnd.host` is SIDECAR_LND_HOST."""
    host = options.find("lnd.host")
    assert (host.flag, host.variable) == ("--lnd.host", "SIDECAR_LND_HOST")
    assert options.OFFER_PATHS.variable == "SIDECAR_LIMITS_OFFER_PATHS_PER_MINUTE"


@pytest.mark.parametrize(
    "name",
    [
        *("PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR", "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_GRPC"),
        # Services called sidecar-lnd, sidecar-lnd-hos, sidecar-admin and sidecar-lsps5.
        *("LND_PORT", "LND_SERVICE_HOST", "LND_HOS_SERVICE_HOST", "ADMIN_SERVICE_PORT", "LSPS5_PORT"),
        *("VECTORS", "VECTORS_REQUIRED", "NO_SKIPS", "CACHE", "IMAGE", "LND"),
    ],
)
def test_a_foreign_variable_is_not_a_setting(name: str) -> None:
    """Kubernetes invents SIDECAR_PORT and its like for services, and the tests have some of their own."""
    assert config.load({}, {f"SIDECAR_{name}": "tcp://10.0.0.1:80"}) == config.load({}, {})


def test_an_empty_variable_is_not_a_setting() -> None:
    """Compose passes those that nobody gave."""
    environ = {"SIDECAR_LND_HOST": "", "SIDECAR_CONFIG": "", "SIDECAR_LND_HOTS": ""}
    assert config.load({}, environ) == config.load({}, {})


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("LND_HOTS", "LND_HOST"),
        ("DATA_DIR", "DATADIR"),
        ("LOG_LEVEL", "LOGLEVEL"),
        ("CLIENT_SLOT", "CLIENT_SLOTS"),
        ("LSPS5_PRIVATE_NETWORK", "LSPS5_PRIVATE_NETWORKS"),
        ("CONFIG_", "CONFIG"),
    ],
)
def test_a_variable_with_a_typo_is_refused(wrong: str, right: str) -> None:
    """It must not pass for a default; its value, which may be a password, is not shown."""
    said = refusal({}, {f"SIDECAR_{wrong}": "hunter2"})
    assert said == f"'SIDECAR_{wrong}': unknown environment variable: did you mean SIDECAR_{right}?"


def test_the_datadir_decides_which_file_is_read(home: Path) -> None:
    """sidecar.toml is looked for in the data directory that flag, variable or file name."""
    other = home / "other"
    other.mkdir()
    (other / "sidecar.toml").write_text("client.slots = 7\n")
    assert config.load({"datadir": str(other)}, {}).client.slots == 7
    assert config.load({}, {"SIDECAR_DATADIR": "~/other"}).client.slots == 7
    assert config.load({}, {}).client.slots == 10


def test_a_user_without_a_home_directory_is_told_which_path_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user is just a number: whole paths do, and defaults with a ~ do not."""

    def nobody(_number: int) -> None:
        raise KeyError("no such user")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    given: dict[str, str] = {}
    for name in ("datadir", "lnd.tlspath", "lnd.macaroonpath"):
        text = refusal(dict(given))
        assert text.startswith(f"{name}: '~/")
        assert "from the defaults is not allowed: give a path from the root" in text
        given[name] = f"/{name}"
    assert config.load(given, {}).datadir == Path("/datadir")
    assert refusal(given | {"lnd.tlspath": "~/c"}).startswith(
        "lnd.tlspath: '~/c' from the flag --lnd.tlspath"
    )


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
    assert config.load({"client.ttl": text}, {}).client.ttl == seconds


@pytest.mark.parametrize("seconds", [1, 45, 60, 5_400, 43_200, DAY, 365 * DAY, DAY + 1])
def test_a_printed_duration_reads_back(seconds: int) -> None:
    """What is shown can be given again."""
    assert parsing.duration(1, 400 * DAY)(parsing.format_duration(seconds)) == seconds


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
        (
            "redis.url",
            ["redis+sentinel://r", "redis+sentinel://r/", "redis-sentinel://r/m", "sentinel://r/m"],
        ),
        ("redis.url", ["redis+cluster://", "redis+cluster://r,", "redis+cluster://r:x", "redis+clutser://r"]),
        ("redis.url", ["unix+cluster://r", "redis://r,s:x", "redis+cluster://r,s:x", "redis+cluster://r#"]),
        ("redis.durability", ["", "always"]),
        ("redis.replicas", ["", "-1", "11", "all"]),
        ("lease.time", ["", "1s", "61s", "2.5s"]),
        ("lease.name", ["a\nb", "a\0b", "n" * 65]),
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
        ("redis.urlfile", ["a\0b"]),
        *((name, ["a\0b"]) for name in ("admin.tlscert", "admin.tlskey", "admin.tokenfile", "admin.cafile")),
        *(
            (name, ["host", ":1", "h:0", "h:65536", "h:", "https://h:1", "::1", "[::1]"])
            for name in ("admin.listen", "admin.address", "http.listen")
        ),
        ("loglevel", ["", "loud"]),
        ("logformat", ["", "xml"]),
        ("datadir", ["\0"]),
    ],
)
def test_a_wrong_value_is_refused_by_name_source_and_rule(name: str, bad: list[str]) -> None:
    """The error names the option, where the value came from, and what would be right."""
    option = options.find(name)
    for text in bad:
        said = refusal({name: text})
        assert said.startswith(f"{name}: ")
        assert f"the flag --{name}" in said
        assert re.search(r"is not allowed: give \S", said)
        if text and "\0" not in text:
            assert f"the environment variable {option.variable}" in refusal({}, {option.variable: text})


def test_offer_paths_live_at_least_90_days() -> None:
    """LDK's wallets take no shorter ones; 90 days to the second are enough."""
    assert config.load({"paths.lifetime": "90d"}, {}).paths.lifetime == 7_776_000
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
    mailbox = settings.mailbox
    assert (mailbox.letters, mailbox.bytes, mailbox.ttl) == (5, 70_000, 14 * DAY)
    assert mailbox.total_bytes == 1 << 40


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


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:p@a:26379,b,[::1]:1/mymaster/2?sentinel_password=q",
        "rediss+sentinel://a/mymaster?ssl_ca_certs=/ca.pem",
        "redis+cluster://u:p@[::1]:7000,a",
        "rediss+cluster://a:7000/",
    ],
)
def test_a_redis_of_several_servers_has_several_hosts(url: str) -> None:
    """Sentinels with the name of their master, or some nodes of a Cluster."""
    assert config.load({"redis.url": url}, {}).redis.url == url


def test_a_redis_password_is_not_shown(datadir: Path) -> None:
    """Neither a refusal nor the settings' repr and dump give it away."""
    assert "hunter2" not in refusal({"redis.url": "rediss//:hunter2@r"})
    settings = config.load({"redis.url": "redis://:hunter2@r"}, {})
    assert settings.redis.url == "redis://:hunter2@r"
    for text in (repr(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert "hunter2" not in text
    (datadir / "sidecar.toml").write_text('redis.url = ["redis://:hunter2@r"]\n')
    assert "hunter2" not in refusal({})


def test_the_redis_url_can_lie_in_a_file(home: Path) -> None:
    """It is read where it is needed, each time anew: the command may not be allowed to read it."""
    file = home / "url"
    settings = config.load({"redis.urlfile": "~/url"}, {})
    for url in ("redis://:hunter2@r", "unix:///run/redis.sock"):
        file.write_text(f"{url}\n")
        assert settings.redis.read_url() == url


@pytest.mark.parametrize(
    "text", [b"", b"embedded", b"hunter2", b"redis://a\nredis://:hunter2", b"\xffhunter2"]
)
def test_a_file_that_holds_no_redis_url_is_refused(home: Path, text: bytes) -> None:
    """By its path, and without what it holds."""
    (home / "url").write_bytes(text)
    with pytest.raises(
        ConfigError, match=f"^redis.urlfile: what {home}/url holds is not allowed: "
    ) as caught:
        config.load({"redis.urlfile": "~/url"}, {}).redis.read_url()
    assert "hunter2" not in str(caught.value)


def test_a_file_of_the_redis_url_must_be_there() -> None:
    """An operator who names one wants no embedded server."""
    with pytest.raises(ConfigError, match=r"^redis\.urlfile: .*/no can't be read: No such file"):
        config.load({"redis.urlfile": "no"}, {}).redis.read_url()


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("redis://r", "redis://:p%2F%40%3A%20w@r"),
        ("redis://alice@r:1/2?ssl_ca_certs=/a@b:c", "redis://alice:p%2F%40%3A%20w@r:1/2?ssl_ca_certs=/a@b:c"),
        ("redis://r?db=1", "redis://:p%2F%40%3A%20w@r?db=1"),
        ("unix:///run/redis.sock", "unix://:p%2F%40%3A%20w@/run/redis.sock"),
        ("rediss+sentinel://a:1,[::1]:2/m/3", "rediss+sentinel://:p%2F%40%3A%20w@a:1,[::1]:2/m/3"),
        ("redis+cluster://u@a,b", "redis+cluster://u:p%2F%40%3A%20w@a,b"),
    ],
)
def test_the_redis_password_may_be_in_a_file_of_its_own(home: Path, url: str, whole: str) -> None:
    """As it is, but for the end of its line; read anew each time, with the URL or the file that holds it."""
    (home / "password").write_text("p/@: w\n")
    assert config.load({"redis.url": url, "redis.passwordfile": "~/password"}, {}).redis.read_url() == whole
    (home / "url").write_text(url)
    by_files = config.load({"redis.urlfile": "~/url", "redis.passwordfile": "~/password"}, {})
    assert by_files.redis.read_url() == whole
    (home / "password").write_text("q")
    assert by_files.redis.read_url() == whole.replace("p%2F%40%3A%20w", "q")


@pytest.mark.parametrize(
    ("url", "password", "why"),
    [
        ("redis://:hunter2@r", b"hunter3", "the URL has a password already"),
        ("redis+cluster://:@r", b"hunter3", "the URL has a password already"),
        ("redis://r", b"\n", "it is empty"),
        ("redis://r", b"\xffhunter3", "give one line of text"),
        ("redis://r", None, "can't be read: No such file"),
    ],
)
def test_a_redis_password_that_can_not_be_used_is_refused(
    home: Path, url: str, password: bytes | None, why: str
) -> None:
    """By its file, and without what that holds."""
    if password is not None:
        (home / "password").write_bytes(password)
    settings = config.load({"redis.url": url, "redis.passwordfile": "~/password"}, {})
    with pytest.raises(ConfigError, match=f"^redis.passwordfile: .*{home}/password .*{why}") as caught:
        settings.redis.read_url()
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize("given", [{}, {"redis.url": "embedded"}])
def test_the_embedded_redis_has_no_password(given: dict[str, str]) -> None:
    """Whoever gives one has forgotten the URL."""
    assert refusal({"redis.passwordfile": "/p", **given}) == (
        "redis.passwordfile: '/p' from the flag --redis.passwordfile is not allowed:"
        " give redis.url as well, or redis.urlfile"
    )


@pytest.mark.parametrize("given", [{}, {"redis.url": "embedded"}])
def test_the_embedded_redis_has_no_replicas(given: dict[str, str]) -> None:
    """Each change would wait for what never comes; one of a URL's, from a file too, may have them."""
    assert refusal({"redis.replicas": "1", **given}) == (
        "redis.replicas: '1' from the flag --redis.replicas is not allowed:"
        " give redis.url as well, or redis.urlfile: the embedded one has no replicas"
    )
    for place in ({"redis.url": "redis://r"}, {"redis.urlfile": "/url"}):
        assert config.load({"redis.replicas": "1", **place}, {}).redis.replicas == 1
    config.load({"redis.replicas": "0", **given}, {})


@pytest.mark.parametrize("url", ["redis://:hunter2@r", "embedded"])
def test_the_redis_url_comes_from_one_place(datadir: Path, url: str) -> None:
    """Which of the two is meant can't be guessed, wherever they stand; an empty file name takes it back."""
    (datadir / "sidecar.toml").write_text('redis.urlfile = "/url"\n')
    said = refusal({"redis.url": url})
    assert said == (
        f"redis.urlfile: '/url' from the file {datadir}/sidecar.toml is not allowed:"
        " give either it or redis.url, not both"
    )
    assert config.load({"redis.url": url, "redis.urlfile": ""}, {}).redis.urlfile is None


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("admin.listen", ["admin.tlscert", "admin.tlskey", "admin.tokenfile"]),
        ("admin.address", ["admin.tokenfile"]),
    ],
)
def test_admin_calls_over_tcp_need_tls_and_a_token(name: str, needed: list[str]) -> None:
    """What is missing is named; whoever may call can put clients out."""
    whole = {name: "h:1"} | dict.fromkeys(needed, "/file")
    assert config.load(whole, {}).admin.tokenfile == Path("/file")
    for missing in needed:
        said = refusal({each: text for each, text in whole.items() if each != missing})
        assert said == (
            f"{name}: 'h:1' from the flag --{name} is not allowed: give {' and '.join(needed)} as well"
        )


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
        (f"client.slots = {'9' * 5_000}\n", r"^config: the file \S+ holds what is no option of ours$"),
        (
            f"client.slots = 0x{'f' * 5_000}\n",
            r"^client\.slots: 'a number of thousands of digits' from the file",
        ),
        (f"a = {'[' * 10_000}\n", r"^config: the file \S+ holds what is no option of ours$"),
        (f"{'a.' * 1_500}a = 1\n", r"^config: the file \S+ holds what is no option of ours$"),
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
    admin_records.check_quota(Quota(**asdict(config.load({}, {}).client_limits)))


def test_each_limit_of_a_client_has_its_setting() -> None:
    """What holds for a client that has no limits of its own."""
    names = {
        "slots": "client.slots",
        "bytes": "client.bytes",
        "ttl": "client.ttl",
        "requests_per_second": "limits.client_rate",
        "requests_burst": "limits.client_burst",
        "stores_per_minute": "limits.stores_per_minute",
        "offer_paths_per_minute": "limits.offer_paths_per_minute",
        "mailbox_letters": "mailbox.letters",
        "mailbox_bytes": "mailbox.bytes",
    }
    numbers = {field: 100 + place for place, field in enumerate(names)}
    flags = {names[field]: str(number) for field, number in numbers.items()}
    assert asdict(config.load(flags, {}).client_limits) == numbers


# --- a running server ---------------------------------------------------------------------------


def test_settings_are_read_anew(datadir: Path) -> None:
    """The files as they are now, with the command line and environment of the start."""
    file = datadir / "sidecar.toml"
    environ = {"SIDECAR_CLIENT_BYTES": "5"}
    loader = config.Loader({"loglevel": "error"}, environ)
    old = loader.load()
    file.write_text('client.slots = 7\nloglevel = "debug"\nlnd.host = "lnd:1"\n')
    environ["SIDECAR_CLIENT_BYTES"] = "6"
    new = loader.load()
    assert (new.settings.client.slots, new.settings.client.bytes, new.settings.loglevel) == (7, 5, "error")
    assert config.changes(old.settings, new.settings) == (["client.slots"], ["lnd.host"])
    assert (old.files, new.files) == ((), (file,))
    file.write_text("client.slots = 0\n")
    with pytest.raises(ConfigError, match=r"^client\.slots: "):
        loader.load()


def test_what_may_change_at_run_time_is_known() -> None:
    """Limits and quotas, and how much is logged; all else is built upon at the start."""
    reloadable = {option.name for option in options.OPTIONS if option.reloadable}
    groups = {option.name for option in options.OPTIONS if option.name.startswith(("client.", "limits."))}
    assert reloadable == groups | {"mailbox.letters", "mailbox.bytes", "loglevel"}
