"""Webhooks: which may be registered (bLIP 55, RFC 1738), how a notification is written, what is forgotten."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from sidecar.core.errors import BadWebhook
from sidecar.core.lsps0 import written_size
from sidecar.core.model import TimestampForm
from sidecar.core.webhooks import (
    ONION_MESSAGE_INCOMING,
    REMEMBERED,
    WEBHOOK_REGISTERED,
    BadUrl,
    Fate,
    UnsupportedProtocol,
    WebhookTooLong,
    check_app_name,
    check_url,
    fate,
    host_of,
    notification_body,
    printable,
    signed_text,
    timestamp,
)

PORTS = frozenset({443, 8443})
NOW = 1_800_000_000
SECRET = "token-4f1c"


def check(url: str) -> None:
    """Check a URL that is written as it is."""
    check_url(url, len(url), PORTS)


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["a", "é", "😀", "\n", "\\", '"', "\0"])
def test_an_app_name_is_at_most_64_bytes_as_it_is_written(unit: str) -> None:
    r"""It "can be up to 64 bytes in UTF-8 format, with `\` escape codes counting as multiple bytes"."""
    size = written_size(unit)
    name = unit * (64 // size) + "a" * (64 % size)
    assert written_size(name) == 64
    check_app_name(name, written_size(name))
    with pytest.raises(WebhookTooLong):
        check_app_name(name + "a", written_size(name + "a"))
    with pytest.raises(WebhookTooLong):
        check_app_name("short, and written with many escapes", 65)


@pytest.mark.parametrize("name", ["", " ", "\x1b[2J\r\n\0", "\u202egnp.exe", "⚡"])
def test_bLIP_55_allows_any_name(name: str) -> None:  # noqa: N802 - bLIP is written so
    """Nothing and control characters are names too; they are only never shown as they are."""
    check_app_name(name, written_size(name))


def test_a_name_is_unicode_text() -> None:
    """What an operator's terminal may hand over is not always text; no store would keep it."""
    with pytest.raises(BadWebhook):
        check_app_name("\udc80", 3)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Blitz Wallet ⚡ é", "Blitz Wallet ⚡ é"),
        ("a\r\nERROR: forged", r"a\r\nERROR: forged"),
        ("\x1b[2J\0\x7f\x9b", r"\x1b[2J\x00\x7f\x9b"),
        ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),
        ("a\u2028b\u00a0c\U000e0001", r"a\u2028b\xa0c\U000e0001"),
        ("\ud800", r"\ud800"),
    ],
)
def test_no_name_acts_on_a_log_or_terminal(name: str, shown: str) -> None:
    """Control characters, line ends and those that turn the writing direction are escaped."""
    assert printable(name) == shown


@given(st.text())
def test_what_is_printable_is_printable(name: str) -> None:
    """Whatever the name was."""
    assert printable(name).isprintable()


# --- URLs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://www.example.org/push?l=1234567890abcdefghijklmnopqrstuv&c=best",
        "https://example.org",
        "https://example.org?token=a",
        "HTTPS://Example.ORG/",
        "https://example.org:443/",
        "https://example.org:8443/a/b;c=d/e?f=/g?h",
        "https://push/in-cluster",
        "https://xn--bcher-kva.example/",
        "https://a.1.example/%20%C3%A9?~$-_.+!*'(),:@&=",
        "https://93.184.215.14/",
        "https://10.0.0.1/",
        "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:8443/",
        "https://[::ffff:10.0.0.1]/",
        "https://" + "a" * 63 + ".example/",
    ],
)
def test_an_https_url_is_allowed(url: str) -> None:
    """The bLIP's own example and what RFC 1738 and RFC 3986 allow; to where it leads is seen on dialling."""
    check(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org/push",
        "//example.org/push",
        "/push",
        " https://example.org/",
        "https:",
        "https:/example.org/",
        "https:example.org",
        "https:///push",
        "https://",
        "https://?a",
        "https://user@example.org/",
        "https://user:password@example.org/",
        "https://@example.org/",
        "https://example.org@169.254.169.254/",
        "https://example.org#part",
        "https://example.org/push#part",
        "https://example.org/push#",
        "https://example.org:/",
        "https://example.org:0/",
        "https://example.org:65536/",
        "https://example.org:99999/",
        "https://example.org:443443/",
        "https://example.org:0443/",
        "https://example.org:+443/",
        "https://example.org:443a/",
        "https://example.org:443:443/",
        "https://example.org:٤٤٣/",
        "https://example.org/a b",
        "https://example.org/a\tb",
        "https://example.org/\r\nHost: other",
        "https://example.org/\n",
        "https://example.org\n",
        "https://exam\nple.org/",
        "https://example.org\\@other/",
        "https://example.org/\\",
        "https://example.org/\0",
        "https://example.org/\x7f",
        "https://example.org/é",
        "https://éxample.org/",
        "https://example。org/",
        "https://ⓔxample.org/",
        "https://\u212aafka.example/",  # the Kelvin sign, which is a k in small letters
        "https://exampleſ.org/",
        "httpſ://example.org/",
        "https://example.org/%",
        "https://example.org/%4",
        "https://example.org/%zz",
        'https://example.org/"',
        "https://example.org/<a>",
        "https://example.org/{a}",
        "https://example.org/a|b",
        "https://example.org/[a]",
        "https://example.org/`^",
        "https://exam_ple.org/",
        "https://-example.org/",
        "https://example-.org/",
        "https://.example.org/",
        "https://example..org/",
        "https://example.org./",
        "https://exam%70le.org/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://017700000001/",
        "https://127.1/",
        "https://127.0.0.0x1/",
        "https://0177.0.0.1/",
        "https://256.0.0.1/",
        "https://1.2.3.4.5/",
        "https://[::1/",
        "https://::1/",
        "https://[]/",
        "https://[::1%25eth0]/",
        "https://[v1.a]/",
        "https://[1:2]/",
        "https://[::::]/",
        "https://[::1]443/",
        "https://" + "a" * 64 + ".example/",
        "https://" + "a." * 127 + "example/",
    ],
)
def test_what_is_no_https_url_is_a_parse_error(url: str) -> None:
    """url_parse_error: strictly RFC 1738's grammar, "No user name or password is allowed", no fragment."""
    with pytest.raises(BadUrl) as caught:
        check(url)
    assert len(url) < 12 or url not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "HTTP://example.org/",
        "ftp://example.org/",
        "httpsx://example.org/",
        "https+unix://example.org/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:,a",
        "mailto:user@example.org",
        "wss://example.org:443/",
    ],
)
def test_another_scheme_is_an_unsupported_protocol(url: str) -> None:
    """unsupported_protocol: "The `webhook` URI MUST include the `https` protocol scheme"."""
    with pytest.raises(UnsupportedProtocol):
        check(url)


@pytest.mark.parametrize("port", [1, 22, 80, 442, 444, 6379, 65_535])
def test_a_port_must_be_on_the_operators_list(port: int) -> None:
    """A port that is not allowed is refused, with what is; where 443 is not allowed, so is no port."""
    with pytest.raises(UnsupportedProtocol, match=rf"port {port} .* 443, 8443"):
        check(f"https://example.org:{port}/{SECRET}")
    check_url(f"https://example.org:{port}/", 30, {port})
    with pytest.raises(UnsupportedProtocol):
        check_url("https://example.org/", 20, {port})


def test_a_url_is_at_most_1024_characters() -> None:
    """too_long: 1,024 are allowed and 1,025 are not, and neither is what is only written with more."""
    url = "https://example.org/"
    check(url + "a" * (1024 - len(url)))
    for wrong in (url + "a" * (1025 - len(url)), url + " " * 2_000, "a" * 1025):
        with pytest.raises(WebhookTooLong):
            check(wrong)
    with pytest.raises(WebhookTooLong):
        check_url(url, 1025, PORTS)


@pytest.mark.parametrize("url", ["http://h/{}", "https://u@h/{}", "https://h:1/{}", "https://h/{} ", "{}"])
def test_no_error_tells_the_url(url: str) -> None:
    """URLs hold tokens: whatever is wrong with one, its error says only what."""
    with pytest.raises(BadWebhook) as caught:
        check(url.format(SECRET))
    assert SECRET not in str(caught.value)


@given(
    st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(["https", "https", "HTTPS", "http"]),
        st.sampled_from(["example.org", "10.0.0.1", "[::1]", "a@b", "a:b@c", "localhost", "0x7f.1"])
        | st.text("ab01.:@[]%\\_-", max_size=12),
        st.sampled_from(["", ":443", ":8443", ":0", ":"]),
        st.text("ab/?#&=%41:@\\ \t\n~;.[]é", max_size=12).map(lambda rest: "/" + rest if rest else "")
        | st.text("/?#@:", max_size=4),
    )
    | st.text()
)
def test_other_readers_see_the_host_and_port_that_were_checked(url: str) -> None:
    """What is let through is read alike by the library that dials, by Python's own, and by us."""
    try:
        check(url)
    except BadWebhook:
        return
    dialled, split = URL(url, encoded=True), urlsplit(url)
    host, _, port = host_of(url).rpartition("]")[2].partition(":")
    assert dialled.scheme == split.scheme == "https"
    assert dialled.raw_host == split.hostname
    assert split.hostname in ({host} if host else {host_of(url)[1 : host_of(url).index("]")]})
    assert dialled.port == (split.port or 443) == int(port or 443)
    assert dialled.raw_user is dialled.raw_password is split.username is split.password is None
    assert dialled.raw_fragment == ""


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"https://Push.Example.ORG/{SECRET}?{SECRET}", "push.example.org"),
        (f"https://push.example.org:8443?{SECRET}", "push.example.org:8443"),
        (f"https://[::1]:443/{SECRET}", "[::1]:443"),
        (f"https://{SECRET}@push.example.org/", "?"),
        (SECRET, "?"),
    ],
)
def test_the_host_is_all_that_a_log_may_hold(url: str, shown: str) -> None:
    """The path and the query hold tokens; what was never checked is not shown at all."""
    assert host_of(url) == shown


# --- notifications ------------------------------------------------------------------------------

# The hex dump of bLIP 55.
SIGNED = bytes.fromhex(
    "4c53 5053 353a 2044 4f20 4e4f 5420 5349"
    "474e 2054 4849 5320 4d45 5353 4147 4520"
    "4d41 4e55 414c 4c59 3a20 4c53 503a 2041"
    "7420 3230 3233 2d30 352d 3034 5431 303a"
    "3532 3a35 382e 3339 355a 2049 206e 6f74"
    "6966 7920 7b22 6a73 6f6e 7270 6322 3a22"
    "322e 3022 2c22 6d65 7468 6f64 223a 226c"
    "7370 7335 2e67 6f6f 6462 7965 222c 2270"
    "6172 616d 7322 3a7b 7d7d"
)


def test_the_signed_text_is_blip_55s_to_the_byte() -> None:
    """Its example: lsps5.goodbye at 2023-05-04T10:52:58.395Z, as its hex dump has it."""
    at = timestamp(1_683_197_578_395, TimestampForm.Z)
    assert at == "2023-05-04T10:52:58.395Z"
    assert signed_text(at, notification_body("lsps5.goodbye")) == SIGNED


@pytest.mark.parametrize("method", [WEBHOOK_REGISTERED, ONION_MESSAGE_INCOMING])
def test_the_body_is_a_notification_without_a_space(method: str) -> None:
    """LDK's validator writes what it read anew, without spaces and in this order, and so must we."""
    expected = {"jsonrpc": "2.0", "method": method, "params": {}}
    assert notification_body(method) == json.dumps(expected, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("at_ms", "z", "offset"),
    [
        (1_795_344_778_395, "2026-11-22T10:52:58.395Z", "2026-11-22T10:52:58.395+00:00"),
        (1_795_344_778_000, "2026-11-22T10:52:58.000Z", "2026-11-22T10:52:58+00:00"),
        (1_795_344_778_001, "2026-11-22T10:52:58.001Z", "2026-11-22T10:52:58.001+00:00"),
        (1_795_344_778_100, "2026-11-22T10:52:58.100Z", "2026-11-22T10:52:58.100+00:00"),
        (1_795_344_778_999, "2026-11-22T10:52:58.999Z", "2026-11-22T10:52:58.999+00:00"),
        (1_709_164_800_000, "2024-02-29T00:00:00.000Z", "2024-02-29T00:00:00+00:00"),
        (0, "1970-01-01T00:00:00.000Z", "1970-01-01T00:00:00+00:00"),
    ],
)
def test_both_forms_of_a_timestamp(at_ms: int, z: str, offset: str) -> None:
    """bLIP 50's `YYYY-MM-DDThh:mm:ss.uuuZ`; and what chrono prints, which drops a fraction of 0."""
    assert timestamp(at_ms, TimestampForm.Z) == z
    assert timestamp(at_ms, TimestampForm.OFFSET) == offset


@given(st.integers(0, 4_000_000_000_000))
def test_no_millisecond_is_lost(at_ms: int) -> None:
    """Each millisecond has a timestamp of its own, in both forms: no rounding."""
    z, offset = (timestamp(at_ms, form) for form in (TimestampForm.Z, TimestampForm.OFFSET))
    assert len(z) == 24
    assert int(z[-4:-1]) == at_ms % 1000
    assert offset == z.replace(".000Z", "Z").replace("Z", "+00:00")


# --- how long -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "needed", "expected"),
    [
        (None, True, Fate.KEEP),
        (None, False, Fate.MARK),
        (NOW, True, Fate.UNMARK),
        (NOW - REMEMBERED, True, Fate.UNMARK),
        (NOW, False, Fate.KEEP),
        (NOW - REMEMBERED + 1, False, Fate.KEEP),
        (NOW - REMEMBERED, False, Fate.FORGET),
        (NOW - 10 * REMEMBERED, False, Fate.FORGET),
        (NOW + 1, False, Fate.MARK),
    ],
)
def test_webhooks_are_remembered_for_seven_days_at_least(
    since: int | None, needed: bool, expected: Fate
) -> None:
    """As bLIP 55 says: "until for at least 7 days after the last channel with the client is closed"."""
    assert REMEMBERED == 604_800
    assert fate(since, needed=needed, now=NOW) is expected
