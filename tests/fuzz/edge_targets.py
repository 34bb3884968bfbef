"""What the operator types and writes, what LND streams, and what a wallet asks by LSPS."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from sidecar import config
from sidecar.adapters.admin import AdminService
from sidecar.adapters.admin_webhooks import WebhooksService
from sidecar.adapters.onions import ONION_MESSAGE, CustomOnions, NativeOnions
from sidecar.adapters.redis_connect import connect, is_local, place
from sidecar.bindings import Bindings
from sidecar.clients import RunningClients
from sidecar.core import keys, onion
from sidecar.core.errors import BadContext, ConfigError, Malformed, NotForUs, SidecarError
from sidecar.core.keys import SidecarKeys
from sidecar.core.lsps0 import MAX_PAYLOAD
from sidecar.options import OPTIONS
from sidecar.peeler import Peeler
from sidecar.rpc import lightning_pb2 as ln
from sidecar.rpc.sidecar.v1 import admin_pb2
from tests.core import making
from tests.fuzz.core_targets import PATH, POINTS
from tests.fuzz.target import Pieces, Target
from tests.harness.admin_world import DEFAULTS, told
from tests.harness.lsps_world import URL, Lsps, request
from tests.harness.memory_store import MemoryStore
from tests.harness.shell import Issuer, no_dry_run, well

AGAIN = 500
"""Inputs after which what they have left behind is thrown away."""

CALLS = 20
"""The same of the admin API, by which all that there is can be removed."""


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


# --- settings -------------------------------------------------------------------------------------

_TYPED = (*(option.name for option in OPTIONS), "redis.url", "redis.url")


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fuzz-")


def _folder() -> Path:
    return Path(_temporary().name)


def read_settings(data: bytes) -> None:
    """One option as a flag, one by itself, a file of them, or a URL of Redis."""
    pieces = Pieces(data)
    how = pieces.number() % 4
    if how == 0:
        name = pieces.choice(_TYPED)
        config.load({name: pieces.rest().decode("utf-8", "surrogateescape"), "datadir": str(_folder())}, {})
    elif how == 1:
        pieces.choice(OPTIONS).read(pieces.rest().decode("utf-8", "surrogateescape"), "the flag")
    elif how == 2:
        path = _folder() / "file.toml"
        path.write_bytes(pieces.rest())
        config.load({"config": str(path), "datadir": str(_folder())}, {})
    else:
        url = pieces.rest().decode("utf-8", "surrogateescape")
        _loop().run_until_complete(_connected(url))
        place(url)
        is_local(url)


async def _connected(url: str) -> None:
    await connect(url).aclose()


URLS = (
    "redis://:secret@h:6379/1",
    "unix:///run/redis.sock?db=1",
    "redis+sentinel://u:p@a:1,[::1]:2/main/3?sentinel_username=x",
    "rediss+cluster://a,b:7000?ssl_ca_certs=/ca",
)


def settings_seeds() -> Iterator[bytes]:
    """A value of each kind, and files."""
    for name, text in (("lnd.host", "[::1]:9"), ("client.ttl", "90d"), ("lsps5.ports", "443,8443")):
        yield bytes([0, _TYPED.index(name)]) + text.encode()
        yield bytes([1, _TYPED.index(name)]) + text.encode()
    for url in URLS:
        yield b"\x03" + url.encode()
        yield bytes([0, _TYPED.index("redis.url")]) + url.encode()
    yield b'\x02loglevel = "debug"\n[client]\nslots = 3\nttl = "30d"\n[limits]\noffer_rate = 1.5\n'
    yield b"\x02a = [" + b"[" * 40


# --- the admin API --------------------------------------------------------------------------------


class _Admin:
    """The admin services over stores in memory, with two clients, one of them with a node."""

    def __init__(self) -> None:
        self.used = 0
        store = MemoryStore()
        self._lsps = Lsps()
        clients = RunningClients(Bindings(store, Counter()), DEFAULTS, lambda: None)
        admin = AdminService(
            *(store, Issuer(), clients, told, DEFAULTS),
            letters=store.mail_list,
            mail_use=lambda _: None,
            dry_run=no_dry_run,
            look=well,
        )
        hooks = WebhooksService(store, self._lsps.store, self._lsps.service, cast("Any", None))
        self.calls: list[tuple[type[Message], Callable[..., Any]]] = []
        for service, name in ((admin, "Admin"), (hooks, "Webhooks")):
            for method in admin_pb2.DESCRIPTOR.services_by_name[name].methods:
                if method.name != "TestWebhooks":
                    kind = GetMessageClass(method.input_type)
                    self.calls.append((kind, getattr(service, method.name)))

    async def set_up(self) -> None:
        """Add the clients."""
        kind, add = next(each for each in self.calls if each[0] is admin_pb2.AddClientRequest)
        await add(kind(name="alice"), None)
        await add(kind(name="bob", node_id=POINTS[0].hex()), None)

    async def take(self, number: int, encoded: bytes) -> None:
        """One call; what it answers can be written."""
        kind, call = self.calls[number % len(self.calls)]
        self.used += 1
        answer = await call(kind.FromString(encoded), None)
        answer.SerializeToString()


_admins: list[_Admin] = []


def read_admin(data: bytes) -> None:
    """A call to one of the admin services."""
    if not _admins or _admins[0].used >= CALLS:
        _admins[:] = [_Admin()]
        _loop().run_until_complete(_admins[0].set_up())
    pieces = Pieces(data)
    _loop().run_until_complete(_admins[0].take(pieces.number(), pieces.rest()))


def admin_seeds() -> Iterator[bytes]:
    """Each call, with every field set to something."""
    for number, (kind, _) in enumerate(_Admin().calls):
        yield bytes([number]) + _filled(kind, "bob").SerializeToString()
        yield bytes([number]) + _filled(kind, "alice").SerializeToString()


def _filled(kind: type[Message], client: str) -> Message:
    message = kind()
    values = {"name": client, "client": client, "app_name": "app", "url": URL, "node_id": POINTS[1].hex()}
    for field in kind.DESCRIPTOR.fields:
        if field.name in values:
            setattr(message, field.name, values[field.name])
        elif field.name == "quota":
            message.quota.slots, message.quota.requests_per_second = 7, 2.5  # type: ignore[attr-defined]
    return message


# --- what LND streams -----------------------------------------------------------------------------

OWN = SidecarKeys.derive(making.secret(making.OWN))


@cache
def _peeler() -> Peeler:
    return Peeler(POINTS[2], making.LocalKey(making.secret(making.LND)), OWN, most=100)


@cache
def _transports() -> tuple[CustomOnions, NativeOnions]:
    lnd = cast("Any", None)
    return CustomOnions(lnd, lambda _: None), NativeOnions(lnd, lambda _: None)


def read_update(data: bytes) -> None:
    """An update of LND's stream, of an old LND or a new one, and the message in it."""
    pieces = Pieces(data)
    custom, native = _transports()
    how = pieces.number() % 4
    if how == 0:
        received = native._read(ln.OnionMessageUpdate.FromString(pieces.rest()))
    elif how == 1:
        received = custom._read(ln.CustomMessage.FromString(pieces.rest()))
    elif how == 2:
        received = custom._read(ln.CustomMessage(peer=POINTS[0], type=ONION_MESSAGE, data=pieces.rest()))
    else:
        key, encrypted = pieces.some(), pieces.some()
        update = ln.OnionMessageUpdate(
            path_key=key, encrypted_recipient_data=encrypted, onion=_packet(pieces)
        )
        received = native._read(update)
    if received is not None:
        _loop().run_until_complete(_peeler().peel(received))


def _packet(pieces: Pieces) -> bytes:
    """One for LND's hop of a path, with any payload."""
    nodes = [hop.blinded_node_id for hop in PATH.hops]
    return onion.build(bytes(range(32)), [(nodes[0], pieces.some()), (nodes[1], pieces.rest())])


def update_seeds() -> Iterator[bytes]:
    """Of both kinds of LND."""
    packet = onion.build(bytes(range(32)), [(hop.blinded_node_id, b"x") for hop in PATH.hops])
    data = PATH.hops[0].encrypted_recipient_data
    update = ln.OnionMessageUpdate(
        peer=POINTS[0], path_key=PATH.path_key, onion=packet[:100], encrypted_recipient_data=data
    )
    yield b"\0" + update.SerializeToString()
    framed = PATH.path_key + len(packet).to_bytes(2, "big") + packet
    yield (
        b"\x01" + ln.CustomMessage(peer=POINTS[0], type=ONION_MESSAGE, data=framed[:120]).SerializeToString()
    )
    yield b"\x02" + framed
    yield b"\x02" + framed[:34]
    sealed = len(PATH.path_key).to_bytes(2, "big") + PATH.path_key + len(data).to_bytes(2, "big") + data
    yield b"\x03" + sealed + b"\0\x05hello" + b"final"


# --- LSPS -----------------------------------------------------------------------------------------


class _Wallets:
    """The LSPS service with a node that may register, and one that may not."""

    def __init__(self) -> None:
        self.used = 0
        self.lsps = Lsps()
        self.peers = (keys.public_key(b"\x01" * 32), keys.public_key(b"\x02" * 32))
        self.lsps.known.add(self.peers[0])

    async def take(self, peer: bytes, payload: bytes) -> None:
        """One message; its answer, if any, fits in a message."""
        lsps = self.lsps
        self.used += 1
        lsps.clock.pass_seconds(60)
        lsps.transport.arrive(peer, payload)
        await lsps.settled()
        for answer in lsps.transport.sent.pop(peer, ()):
            assert len(json.dumps(answer, ensure_ascii=False).encode()) <= MAX_PAYLOAD + 10_000
            assert ("result" in answer) != ("error" in answer)
        faults = [name for name in lsps.counters if name.endswith(("internal-error", "timeout"))]
        assert not faults, faults


_wallets: list[_Wallets] = []


async def _ended() -> None:
    if _wallets:
        await _wallets.pop().lsps.__aexit__(None, None, None)


def close() -> None:
    """End what an earlier input has left at work; for tests."""
    _loop().run_until_complete(_ended())


async def _asked(peer: int, payload: bytes) -> None:
    if not _wallets or _wallets[0].used >= AGAIN:
        await _ended()
        _wallets[:] = [_Wallets()]
        await _wallets[0].lsps.__aenter__()
    wallets = _wallets[0]
    try:
        await wallets.take(wallets.peers[peer % 2], payload)
    except BaseException:
        _wallets.clear()
        raise


METHODS = (
    "lsps0.list_protocols",
    "lsps5.set_webhook",
    "lsps5.list_webhooks",
    "lsps5.remove_webhook",
    "other",
)


def read_lsps(data: bytes) -> None:
    """A message as it came, or a method with params that are any text, or any JSON."""
    pieces = Pieces(data)
    how, peer = pieces.number() % 3, pieces.number()
    if how == 0:
        payload = pieces.rest()
    elif how == 1:
        method = pieces.choice(METHODS)
        app, url = pieces.some().decode("utf-8", "replace"), pieces.rest().decode("utf-8", "replace")
        payload = request(
            method, {"app_name": app, "webhook": url} if method == METHODS[1] else {"app_name": app}
        )
    else:
        head = b'{"jsonrpc":"2.0","id":"1","method":"' + pieces.choice(METHODS).encode() + b'","params":'
        payload = head + pieces.rest()
    _loop().run_until_complete(_asked(peer, payload))


def lsps_seeds() -> Iterator[bytes]:
    """Requests of each method, and what is none."""
    for number, method in enumerate(METHODS):
        yield b"\0\0" + request(method)
        yield bytes([1, number % 2, number, 0, 3]) + b"app" + URL.encode()
        yield (
            bytes([2, 0, number]) + b'{"app_name":"\\u0061\\ud83d\\ude00","webhook":"https://a.b:443/%20?x"}}'
        )
    yield b"\0\0" + b'{"a":' * 40
    yield b"\0\0" + b"[" * 7_000
    yield b"\0\0" + b'{"jsonrpc":"2.0","id":"\\ud800","method":1e999,"params":[NaN]}'
    yield b"\0\x01" + b'{"jsonrpc":"2.0","id":"x","result":{}}'


def _targets() -> Iterable[Target]:
    yield Target("settings", "settings", read_settings, (ConfigError,), settings_seeds)
    yield Target("admin", "the admin API", read_admin, (SidecarError, DecodeError), admin_seeds)
    may_raise = (Malformed, NotForUs, BadContext, DecodeError)
    yield Target("update", "what LND streams", read_update, may_raise, update_seeds, longest=40_000)
    yield Target("lsps", "LSPS requests", read_lsps, (), lsps_seeds, longest=8_000)


TARGETS = tuple(_targets())
