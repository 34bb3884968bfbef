"""How a setting's text is read: parsers that give the value, or say what is allowed.

Each raises ValueError, and its text is what to give instead: "a whole number from 1 to 10".
"""

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlsplit

T = TypeVar("T")

MINUTE, HOUR, DAY = 60, 3_600, 86_400
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def optional(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """What `parse` reads, or None for an empty text."""
    return lambda text: parse(text) if text else None


def choice(*allowed: str) -> Callable[[str], str]:
    """One of a few words, in small letters or large ones."""

    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return text.lower()

    return parse


def integer(low: int, high: int) -> Callable[[str], int]:
    """A whole number in ASCII digits, both ends included."""

    def parse(text: str) -> int:
        # The length is checked first: int() refuses thousands of digits with an error of its own.
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def rate(high: int) -> Callable[[str], float]:
    """So many a second, above 0."""

    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or not 0 < float(text) <= high:
            raise ValueError(f"a number above 0 and up to {high}, a second")
        return float(text)

    return parse


_UNITS = {"": 1, "s": 1, "m": MINUTE, "h": HOUR, "d": DAY}


def duration(low: int, high: int) -> Callable[[str], int]:
    """Seconds, from a text such as 30d, 12h, 90m, 45s or 45; both ends included."""

    def parse(text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,12})([smhd]?)", text)
        seconds = int(match[1]) * _UNITS[match[2]] if match else 0
        if match is None or not low <= seconds <= high:
            bounds = f"from {format_duration(low)} to {format_duration(high)}"
            raise ValueError(f"a duration {bounds}, such as 30d, 12h, 90m, 45s or plain seconds")
        return seconds

    return parse


def format_duration(seconds: int) -> str:
    """`seconds` in the largest unit that divides it, as the settings take it: 2592000 is 30d."""
    for unit, size in (("d", DAY), ("h", HOUR), ("m", MINUTE)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def line(longest: int) -> Callable[[str], str]:
    """Characters of one line that can be seen, and spaces; at most `longest`."""

    def parse(text: str) -> str:
        if len(text) > longest or not text.isprintable():
            raise ValueError(f"at most {longest} characters of one line")
        return text

    return parse


def path(text: str) -> Path:
    """A path, from the home directory where it begins with `~`, else from where the process runs."""
    try:
        if text and "\0" not in text:
            return Path(text).expanduser().absolute()
    except RuntimeError:  # ~user of nobody here, or ~ in a container whose user is just a number
        raise ValueError("a path from the root: there is no such home directory here") from None
    raise ValueError("a path")


def address(default_port: int | None = None) -> Callable[[str], str]:
    """host:port, an IPv6 host in brackets; the port may only be left out where there is a default."""
    port = default_port or 8443
    wanted = f"host:port, such as 127.0.0.1:{port} or [::1]:{port}"

    def parse(text: str) -> str:
        if not re.fullmatch(r"[^\s/@?#]+", text):
            raise ValueError(wanted)
        try:
            parts = urlsplit(f"//{text}")
            port = default_port if parts.port is None else parts.port
        except ValueError:
            raise ValueError(wanted) from None
        host = parts.hostname
        if not host or not port or parts.netloc.endswith(":"):
            raise ValueError(wanted)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    return parse


def endpoint(default_port: int) -> Callable[[str], tuple[str, int]]:
    """The two parts of host:port, an IPv6 host without its brackets."""

    def parse(text: str) -> tuple[str, int]:
        host, _, port = address(default_port)(text).rpartition(":")
        return host.strip("[]"), int(port)

    return parse


REDIS_FORMS = (
    "redis://HOST…, unix:///PATH, redis+sentinel://HOST[,HOST…]/MASTER or redis+cluster://HOST[,HOST…],"
    " with rediss for TLS"
)

_SEVERAL_HOSTS = re.compile(
    r"rediss?\+(?P<kind>sentinel|cluster)://(?:[^/?#]*@)?(?P<hosts>[^/?#@]+)(?P<path>/[^?#]*)?(?:\?[^#]*)?"
)


def redis_url(text: str) -> str:
    """A URL of one of the REDIS_FORMS; adapters/redis_connect.py reads the rest of it."""
    # A typo must not be taken for the embedded server: that would hide the invoices kept elsewhere.
    try:
        whole = _leads_to_redis(text)
    except ValueError:
        whole = False
    # urlsplit leaves these out in silence, and redis-py would too: two lines would be one wrong host.
    if re.search(r"[\t\r\n]", text) or not whole:
        raise ValueError(f"{REDIS_FORMS}, or `embedded`")
    return text


def with_password(url: str, password: str) -> str:
    """A Redis URL with a password in it; it has none before. Raises ValueError."""
    if not password:
        raise ValueError("it is empty")
    scheme, _, rest = url.partition("://")
    # Not urlsplit: it knows nothing of several hosts.
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, _, hosts = authority.rpartition("@")
    if ":" in user:
        raise ValueError("the URL has a password already")
    return f"{scheme}://{user}:{quote(password, safe='')}@{hosts}{rest.removeprefix(authority)}"


def _leads_to_redis(text: str) -> bool:
    several = _SEVERAL_HOSTS.fullmatch(text)
    if several is not None:
        hosts = [urlsplit(f"//{host}") for host in several["hosts"].split(",")]
        # A port that is no number raises.
        named = all(host.hostname and host.port != 0 for host in hosts)
        return named and (several["kind"] == "cluster" or bool((several["path"] or "").strip("/")))
    parts = urlsplit(text)
    parts.port  # noqa: B018 - raises when it is no number
    if parts.scheme == "unix":
        return bool(parts.path)
    return parts.scheme in ("redis", "rediss") and bool(parts.hostname)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def ports(text: str) -> frozenset[int]:
    """Port numbers with commas between, one at least."""
    try:
        found = frozenset(integer(1, 65_535)(word) for word in _words(text))
    except ValueError:
        found = frozenset()
    if not found:
        raise ValueError("port numbers with commas between, such as 443,8443")
    return found


def networks(text: str) -> tuple[IPNetwork, ...]:
    """Networks with commas between, or none; an address alone is a network of one."""
    try:
        return tuple(ipaddress.ip_network(word) for word in _words(text))
    except ValueError:
        raise ValueError("networks with commas between, such as 10.0.0.0/8,fd00::/8") from None
