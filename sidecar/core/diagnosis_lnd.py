"""What `sidecar doctor` makes of LND: how it is reached, what it is, and how it is set up."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from sidecar.core.diagnosis import (
    Finding,
    failure,
    info,
    lasting,
    ok,
    warning,
)

CERTIFICATE_SOON = 14 * 86_400
"""Seconds before LND's certificate ends from which on there is a warning."""

BURST_BYTES = 524_288
"""What one LDK wallet sends at once, when it renews its ten invoices."""

TEST_NETWORKS = ("regtest", "simnet")
"""Where nobody honest has public addresses."""

# --- the way to LND -------------------------------------------------------------------------------


class Line(Enum):
    """How a TLS connection to LND's gRPC port went."""

    GOOD = "good"
    REFUSED = "refused"
    SILENT = "silent"
    NO_TLS = "no-tls"
    EXPIRED = "expired"
    OTHER_HOST = "other-host"
    OTHER_CERTIFICATE = "other-certificate"


class Wallet(Enum):
    """LND's wallet state. UNKNOWN: LND did not tell."""

    UNKNOWN = "unknown"
    NONE = "none"
    LOCKED = "locked"
    STARTING = "starting"
    ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class ReachFacts:
    """How LND is reached. `unreadable` is a file of the settings that can't be used, and how to mend it.

    `certificate_ends` in seconds since the epoch, 0 when it is not known; `why` is gRPC's own word.
    """

    host: str
    line: Line
    wallet: Wallet = Wallet.UNKNOWN
    certificate_ends: int = 0
    unreadable: str | None = None
    why: str = ""


_SECOND_CERTIFICATE = "set --lnd.tlspath to the tls.cert of the LND at --lnd.host"
_LINES: Mapping[Line, tuple[str, str]] = {
    Line.REFUSED: (
        "nothing listens there",
        "start LND, or set --lnd.host to its rpclisten (host:port of its gRPC, 10009 by default)",
    ),
    Line.SILENT: (
        "no answer",
        "let the firewall pass connections from this machine, and look whether --lnd.host is right",
    ),
    Line.NO_TLS: (
        "what listens there speaks no TLS",
        "set --lnd.host to LND's gRPC port (rpclisten in lnd.conf), not that of its peers or of REST",
    ),
    Line.EXPIRED: (
        "LND's certificate has expired",
        "restart LND: it makes another one then; renew it yourself if it is one of your own",
    ),
    Line.OTHER_HOST: (
        "LND's certificate is not for this name or address",
        (
            "set --lnd.host to a name or address in it, or put tlsextraip= or tlsextradomain= and"
            " tlsautorefresh=true into lnd.conf and restart LND"
        ),
    ),
    Line.OTHER_CERTIFICATE: ("LND shows another certificate than --lnd.tlspath", _SECOND_CERTIFICATE),
}
_WALLETS: Mapping[Wallet, tuple[str, str]] = {
    Wallet.NONE: ("LND has no wallet yet", "run `lncli create`"),
    Wallet.LOCKED: (
        "LND's wallet is locked",
        "run `lncli unlock`, or set wallet-unlock-password-file= in lnd.conf",
    ),
    Wallet.STARTING: ("LND is starting", "wait, and look at LND's log; the sidecar waits too"),
}


def reach(facts: ReachFacts, now: float) -> list[Finding]:
    """Whether LND can be asked at all; `now` in seconds since the epoch."""
    name = "lnd"
    if facts.unreadable is not None:
        seen, _, advice = facts.unreadable.partition(": ")
        return [failure(name, seen, advice)]
    if facts.line in _LINES:
        seen, advice = _LINES[facts.line]
        return [failure(name, f"{facts.host}: {seen}", advice)]
    if facts.wallet is Wallet.UNKNOWN:
        why = f" ({facts.why})" if facts.why else ""
        return [failure(name, f"{facts.host} does not answer as an LND{why}", "look at LND's log")]
    found = [ok(name, f"answers at {facts.host}"), *_certificate(facts, now)]
    if facts.wallet in _WALLETS:
        found.append(failure("lnd.wallet", *_WALLETS[facts.wallet]))
    return found


def _certificate(facts: ReachFacts, now: float) -> list[Finding]:
    if not facts.certificate_ends:
        return []
    left = facts.certificate_ends - now
    seen = f"good for {lasting(left)}"
    if left < CERTIFICATE_SOON:
        advice = "restart LND once it has expired: it makes another then; the sidecar reads it by itself"
        return [warning("lnd.certificate", seen, advice)]
    return [ok("lnd.certificate", seen)]


# --- LND itself -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What LND says of itself. `best_block` in seconds since the epoch.

    `public` and `hidden` count the announced addresses that are on the Internet, and in Tor.
    """

    version: str
    native: bool
    network: str
    node_id: str
    synced_to_chain: bool
    synced_to_graph: bool
    best_block: int
    features: frozenset[int]
    addresses: int
    public: int
    hidden: int


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """Its channels and peers; `speakers` of the peers with a channel say that they know onion messages."""

    channels: int
    active: int
    peers: int
    speakers: int


@dataclass(frozen=True, slots=True)
class MacaroonFacts:
    """What the macaroon allows. `rejected`: LND does not know it. `spends`: it allows payments as well."""

    path: str
    rejected: bool = False
    lacking: Sequence[str] = ()
    tried: int = 0
    spends: bool = False
    no_signer: bool = False


def macaroon(facts: MacaroonFacts) -> list[Finding]:
    """What the macaroon lacks, one line a call, and whether it allows more than it should."""
    name = "lnd.macaroon"
    if facts.rejected:
        advice = "set --lnd.macaroonpath to one that this LND baked (`sidecar macaroon-permissions` says how)"
        return [failure(name, f"LND does not accept {facts.path}", advice)]
    bake = "bake another: `sidecar macaroon-permissions` prints the command"
    found = [failure(name, f"it lacks {uri}", bake) for uri in facts.lacking]
    if facts.no_signer:
        advice = "run a released LND, or build it with the tag `signrpc`"
        found.append(failure("lnd.signer", "this LND was built without its signer", advice))
    if facts.spends:
        found.append(warning(name, f"{facts.path} allows payments too, which the sidecar never makes", bake))
    return found or [ok(name, f"allows all {facts.tried} calls that the sidecar makes")]


def node(facts: NodeFacts, wanted_network: str | None, known_networks: Sequence[str]) -> list[Finding]:
    """What LND is; `wanted_network` is the setting, `known_networks` those that can be served."""
    return [
        _network(facts, wanted_network, known_networks),
        *_sync(facts),
        _mode(facts),
        _onion_bit(facts),
        _lsps_bit(facts),
        *_alias_bit(facts),
        _address(facts),
    ]


def _network(facts: NodeFacts, wanted: str | None, known: Sequence[str]) -> Finding:
    name = "lnd.network"
    if facts.network not in known:
        return failure(name, f"LND is on {facts.network}", f"run LND on one of {', '.join(sorted(known))}")
    if wanted not in (None, facts.network):
        advice = "make --network and --lnd.host agree"
        return failure(name, f"LND is on {facts.network}, and --network says {wanted}", advice)
    return ok(name, f"{facts.network}, node {facts.node_id}")


def _sync(facts: NodeFacts) -> list[Finding]:
    name = "lnd.sync"
    if not facts.synced_to_chain:
        advice = "wait; if it lasts, look at LND's log and its chain backend: payments fail meanwhile"
        return [failure(name, "LND is not synced to the chain", advice)]
    if not facts.synced_to_graph:
        advice = "wait: until then LND does not know all nodes that payers are reached through"
        return [warning(name, "LND is not synced to the graph", advice)]
    return [ok(name, "to the chain and the graph")]


def _mode(facts: NodeFacts) -> Finding:
    if facts.native:
        return ok("lnd.mode", f"native: LND {facts.version} hands over onion messages itself")
    return ok("lnd.mode", f"custom: LND {facts.version} has no onion messages, the sidecar handles them all")


def _onion_bit(facts: NodeFacts) -> Finding:
    name = "lnd.onion-messages"
    if {38, 39} & facts.features:
        return ok(name, "announced (feature bit 39)")
    seen = "not announced (feature bit 39): wallets and payers send nothing"
    if facts.native:
        return failure(name, seen, "take protocol.no-onion-messages out of lnd.conf and restart LND")
    return failure(name, seen, f"put {', '.join(CUSTOM_LINES)} into lnd.conf and restart LND")


def _lsps_bit(facts: NodeFacts) -> Finding:
    if {728, 729} & facts.features:
        return ok("lnd.lsps", "announced (feature bit 729)")
    return warning(
        "lnd.lsps",
        "not announced (feature bit 729): wallets can't see that they are woken",
        "put protocol.custom-init=729, protocol.custom-nodeann=729 into lnd.conf and restart LND",
    )


def _alias_bit(facts: NodeFacts) -> list[Finding]:
    # In custom mode the sidecar resolves aliases by itself.
    if not facts.native:
        return []
    name = "lnd.scid-alias"
    if {46, 47} & facts.features:
        return [
            warning(
                name,
                "protocol.option-scid-alias is on: wallets and payers of LDK 0.2 are never paid",
                "take protocol.option-scid-alias (and protocol.zero-conf) out of lnd.conf and restart LND",
            )
        ]
    return [ok(name, "off, as it should be")]


def _address(facts: NodeFacts) -> Finding:
    name = "lnd.address"
    advice = "put externalip= or externalhosts= into lnd.conf: payers of LDK connect to your node to ask"
    if not facts.addresses:
        return warning(name, "none is announced: payers without a channel can't reach this node", advice)
    if facts.public or facts.network in TEST_NETWORKS:
        return ok(name, f"{facts.addresses} announced")
    if facts.hidden:
        return warning(name, "only Tor addresses are announced: payers without Tor can't connect", advice)
    return warning(name, "only private addresses are announced: payers can't connect", advice)


def peers(facts: PeerFacts) -> list[Finding]:
    """Whether anything can arrive over its channels."""
    name = "lnd.channels"
    if not facts.channels:
        return [warning(name, "none: nobody can be paid over this node", "open channels")]
    seen = f"{facts.active} of {facts.channels} active, {facts.peers} peers"
    if not facts.active:
        return [warning(name, seen, "look why its peers are away (`lncli listchannels`)")]
    if not facts.speakers:
        advice = "open a channel with a node that relays them, or payers must connect to yours to ask"
        return [warning(name, f"{seen}, none of which speaks onion messages", advice)]
    return [ok(name, f"{seen}, {facts.speakers} of them speak onion messages")]


# --- what only lnd.conf tells ---------------------------------------------------------------------

CUSTOM_LINES = (
    "protocol.custom-message=513",
    "protocol.custom-init=39",
    "protocol.custom-nodeann=39",
)
"""What lnd.conf of LND ≤ 0.20 needs. LND ≥ 0.21 does not start with them."""

_PROTOCOL = re.compile(r"^\s*(protocol\.[a-z-]+)\s*(?:[=:]\s*(.*?))?\s*$")

Conf = Mapping[str, Sequence[str]]
"""The `protocol.` options of an lnd.conf: each with all its values."""


def read_conf(text: str) -> Conf:
    """The `protocol.` options in the text of an lnd.conf; all else in it is none of our business."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := _PROTOCOL.match(line):
            found.setdefault(match[1], []).append((match[2] or "true").strip("\"'"))
    return found


def by_hand(facts: NodeFacts, conf: Conf | None, received: int) -> list[Finding]:
    """What gRPC does not tell; `conf` is None where no lnd.conf lies beside tls.cert.

    `received` counts the onion messages that the running server was given.
    """
    if facts.native:
        return [_relay_all(conf), _burst(conf)]
    return [_custom_message(conf, received), _before_upgrade()]


def _unseen(name: str, line: str, why: str) -> Finding:
    key = line.partition("=")[0]
    return info(
        name,
        f"LND does not tell whether {line} is set",
        f"run `grep {key} lnd.conf` where LND runs: {why}",
    )


def _relay_all(conf: Conf | None) -> Finding:
    name, line = "lnd.relay-all", "protocol.onion-msg-relay-all=true"
    why = "without it LND drops what payers without a channel send"
    if conf is None:
        return _unseen(name, line, why)
    values = conf.get("protocol.onion-msg-relay-all", ())
    if values and values[-1].lower() in ("true", "1", "t"):
        return ok(name, "on, by lnd.conf")
    return warning(name, f"off, by lnd.conf: {why}", f"put {line} into lnd.conf and restart LND")


def _burst(conf: Conf | None) -> Finding:
    name, line = "lnd.burst", f"protocol.onion-msg-peer-burst-bytes={BURST_BYTES}"
    why = "with less an LDK wallet needs a minute more to renew its invoices"
    if conf is None:
        return _unseen(name, line, why)
    values = conf.get("protocol.onion-msg-peer-burst-bytes", ())
    if values and values[-1].isdigit() and (int(values[-1]) >= BURST_BYTES or _unlimited(conf)):
        return ok(name, f"{values[-1]} bytes, by lnd.conf")
    seen = values[-1] if values else "262144"
    return warning(name, f"{seen} bytes: {why}", f"put {line} into lnd.conf and restart LND")


def _unlimited(conf: Conf) -> bool:
    # "set both this and onion-msg-peer-kbps to 0 to disable the per-peer limiter"
    both = ("protocol.onion-msg-peer-burst-bytes", "protocol.onion-msg-peer-kbps")
    return all(conf.get(key, ("",))[-1] == "0" for key in both)


def _custom_message(conf: Conf | None, received: int) -> Finding:
    name, line = "lnd.custom-message", CUSTOM_LINES[0]
    if received:
        return ok(name, f"LND handed over {received} messages since the server's start")
    why = "without it LND hands over no onion messages"
    if conf is None:
        return _unseen(name, line, why)
    if "513" in conf.get("protocol.custom-message", ()):
        return ok(name, "513, by lnd.conf")
    return failure(name, f"513 is not in lnd.conf: {why}", f"put {line} into lnd.conf and restart LND")


def _before_upgrade() -> Finding:
    return warning(
        "lnd.upgrade",
        "LND 0.21 does not start with the lines that this LND needs",
        f"before you upgrade to 0.21 remove {', '.join(CUSTOM_LINES)} from lnd.conf",
    )


def left_over(conf: Conf | None) -> list[Finding]:
    """For an LND that is not up: lines of its lnd.conf with which LND 0.21 does not start."""
    split = [line.partition("=") for line in CUSTOM_LINES]
    lines = [f"{key}={value}" for key, _, value in split if value in (conf or {}).get(key, ())]
    if not lines:
        return []
    advice = f"if you have upgraded LND to 0.21, remove {', '.join(lines)}: it does not start with them"
    return [warning("lnd.upgrade", "lnd.conf has lines for LND 0.20 and earlier", advice)]
