"""Bad input of every kind, gathered from the tests' own tables, and what each of it comes to.

The tables stay where the rules are tested one by one. Here all of them are counted: each case must come to
one of the slugs that are declared for its kind, and to nothing else.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from sidecar import config
from sidecar.adapters.admin import read_node_id
from sidecar.adapters.admin_records import check_name
from sidecar.core import bolt12, context, messages, offers, paths
from sidecar.core.errors import SidecarError
from sidecar.core.lsps0 import read_request
from sidecar.core.model import Family
from sidecar.core.paths import BlindedPath
from sidecar.core.wire import encode_tlvs, write_bigsize
from tests import test_config
from tests.adapters import test_admin, test_admin_nodes
from tests.core import (
    making,
    test_backup,
    test_bolt12,
    test_context,
    test_lsps0,
    test_messages,
    test_offers,
    test_paths,
    test_static_invoices,
    test_webhooks,
)
from tests.harness import hostile_addresses
from tests.harness.world import World
from tests.journeys import test_service_bad_input as packets
from tests.journeys import test_service_wrong_content as contents

Try = Callable[[], Awaitable[str]]
"""Gives the slug to which a case comes; empty where it was let through."""


@dataclass(slots=True)
class Kind:
    """One kind of bad input: its cases by name, and the slugs that are declared for it.

    What each came to is added to `came_to` as it is tried.
    """

    name: str
    declared: frozenset[str]
    cases: Sequence[tuple[object, Try]]
    came_to: set[str] = field(default_factory=set)

    async def violations(self) -> list[str]:
        """The cases that came to what is not declared, or were let through."""
        found = []
        for name, attempt in self.cases:
            try:
                slug = await attempt()
            except Exception as error:  # noqa: BLE001 - this is what must not be
                slug = f"undeclared {error!r}"
            if slug in self.declared:
                self.came_to.add(slug)
            else:
                found.append(f"{self.name}, {name!r:.120}: came to {slug or 'nothing'}")
        return found


_PARAM = type(pytest.param())


def cases_of(test: Callable[..., object], names: str) -> list[Any]:
    """What a test is parametrised with under these names."""
    for mark in getattr(test, "pytestmark", []):
        given = mark.args[0] if mark.name == "parametrize" else ""
        if (given if isinstance(given, str) else ", ".join(given)) == names:
            return [each.values if isinstance(each, _PARAM) else each for each in mark.args[1]]
    raise AssertionError(f"{test.__name__} has no cases of {names}")


def _kind(name: str, declared: str, read: Callable[[Any], object], inputs: Iterable[Any]) -> Kind:
    """Of a decoder that raises."""

    def attempt(given: Any) -> Try:
        async def run() -> str:
            try:
                read(given)
            except SidecarError as error:
                return error.reason
            return ""

        return run

    cases = [(given, attempt(given)) for given in inputs]
    return Kind(name, frozenset(declared.split()), cases)


# --- decoders -------------------------------------------------------------------------------------


def _changed_record(change: dict[str, object]) -> None:
    record = {"key": "{00}", "type": "hash", "items": ["YQ==", "Yg=="]} | change
    test_backup.read([*test_backup.written()[:2], json.dumps(record).encode() + b"\n"])


def _recipient_data(records: dict[int, bytes]) -> None:
    paths.decrypt_recipient_data(test_paths.SHARED, test_paths.sealed(records))


def _settings(given: tuple[str, str]) -> None:
    config.load(dict([given]), {})


def _unsealed(body: bytes) -> None:
    context.unseal(test_context.KEY, test_context.maced(body))


def _decoders() -> Iterator[Kind]:
    yield _kind(
        "offers", "bad-offer", offers.read_offer, [_offer(each) for each, _ in test_offers.BAD_OFFERS]
    )
    requests = [making.signed_request(each) for each, _ in test_offers.BAD_REQUESTS]
    slugs = "bad-invoice-request bad-signature"
    yield _kind("invoice_requests", slugs, offers.read_invoice_request, requests)
    bad = [each for each, _ in test_static_invoices.BAD]
    yield _kind("static invoices", "bad-static-invoice", test_static_invoices.read, bad)
    records = [each for each, _ in test_paths.REFUSED]
    yield _kind("recipient data", "bad-recipient-data", _recipient_data, records)
    strings = [text for text, _ in cases_of(_STRING, "text, why")]
    yield _kind("offer strings", "bad-offer", bolt12.decode_string, strings)
    bodies = [body for body, _ in cases_of(_CONTEXT, "body, why")]
    yield _kind("path contexts", "bad-context", _unsealed, bodies)
    payloads = [payload for payload, _ in cases_of(_PAYLOAD, "payload, why")]
    yield _kind("onion payloads", "bad-message", messages.read_final_payload, payloads)
    texts = [payload for test in _LSPS for payload in cases_of(test, "payload")]
    yield _kind("LSPS messages", "lsps-refused", read_request, texts)
    changes = cases_of(_CHANGED, "change")
    yield _kind("records of an export", "bad-export", _changed_record, changes)


def _offer(changes: Mapping[int, bytes | None]) -> bytes:
    return encode_tlvs(making.offer_records(changes))


_STRING = test_bolt12.test_a_string_that_breaks_a_rule_is_refused
_CONTEXT = test_context.test_a_context_that_we_do_not_know_is_refused_even_with_a_right_mac
_PAYLOAD = test_messages.test_a_final_payload_that_breaks_a_rule_is_refused
_LSPS = (
    test_lsps0.test_what_is_not_one_json_object_in_utf8_is_a_parse_error,
    test_lsps0.test_json_that_two_readers_could_read_differently_is_a_parse_error,
    test_lsps0.test_no_message_takes_long_to_refuse,
)
_CHANGED = test_backup.test_a_record_of_wrong_words_is_refused


# --- what operators and strangers type ------------------------------------------------------------


def _typed() -> Iterator[Kind]:
    given = cases_of(test_config.test_a_wrong_value_is_refused_by_name_source_and_rule, "name, bad")
    values = [(name, text) for name, bad in given for text in bad]
    yield _kind("settings", "bad-config", _settings, values)
    names = cases_of(test_admin.test_a_bad_name_is_refused, "name")
    yield _kind("names of clients", "bad-name", check_name, names)
    ids = cases_of(test_admin_nodes.test_a_bad_node_id_is_refused, "node_id")
    yield _kind("node ids", "bad-node-id", read_node_id, ids)
    tests = (
        test_webhooks.test_what_is_no_https_url_is_a_parse_error,
        test_webhooks.test_another_scheme_is_an_unsupported_protocol,
    )
    urls = [url for test in tests for url in cases_of(test, "url")]
    yield _kind("webhooks' URLs", "bad-url unsupported-protocol", test_webhooks.check, urls)


async def hostile() -> tuple[int, int]:
    """Hostile addresses of webhooks: how many were tried, and how many were refused before a dial."""
    return await hostile_addresses.try_all()


# --- messages, through the whole service ----------------------------------------------------------


def _slug(counted: Counter[str]) -> str:
    """What a message was counted as, and nothing else."""
    drops = [name for name in counted if name.startswith("dropped.")]
    if len(drops) != 1 or counted != {"received": 1, drops[0]: 1}:
        return f"undeclared {dict(counted)}"
    return drops[0].removeprefix("dropped.")


Made = tuple[BlindedPath, bytes]
Content = tuple[BlindedPath, tuple[int, bytes]]


def _packet(native: bool, made: Callable[[packets.Stage], Made]) -> Try:
    async def run() -> str:
        async with World(native=native) as world:
            at = await packets.stage(world)
            path, packet = made(at)
            return _slug(await at.deliver(path, packet))

    return run


def _content(made: Callable[[contents.Cast], Content]) -> Try:
    async def run() -> str:
        async with World() as world:
            cast = await contents.Cast(world).set_up()
            path, content = made(cast)
            before = world.counters.copy()
            await cast.alice.send_along(path, *content, cast.alice.path_to_self(b"answer"))
            await world.settled()
            return _slug(world.counters - before)

    return run


def _as_packet(make: Callable[[packets.Stage], bytes], at: packets.Stage) -> Made:
    return at.offer_path, make(at)


def _as_payload(make: Callable[[packets.Stage], bytes], at: packets.Stage) -> Made:
    return at.offer_path, packets.sealed(at.offer_path, make(at))


def _as_path(make: Callable[[packets.Stage], BlindedPath], at: packets.Stage) -> Made:
    path = make(at)
    last = {messages.ENCRYPTED_RECIPIENT_DATA: path.hops[-1].encrypted_recipient_data}
    return path, packets.sealed(path, encode_tlvs(at.payload() | last))


def _as_update(
    make: Callable[[contents.Cast], dict[int, bytes]], family: Family, cast: contents.Cast
) -> Content:
    stream = encode_tlvs(make(cast))
    if family is Family.BLIP66:
        return cast.issued.update_path, (65544, stream)
    return cast.issued.update_path, (75544, write_bigsize(len(stream)) + stream)


def _as_request(make: Callable[[contents.Cast], bytes], cast: contents.Cast) -> Content:
    return cast.offer.paths[0], (messages.INVOICE_REQUEST, make(cast))


def _as_paths_request(number: int, content: bytes, cast: contents.Cast) -> Content:
    return cast.alice.request_path, (number, content)


def _with_paths(make: Callable[[contents.Cast], Sequence[BlindedPath]], cast: contents.Cast) -> Content:
    encoded = b"".join(paths.encode_path(path) for path in make(cast))
    records = cast.alice.make_offer(cast.issued) | {offers.OFFER_PATHS: encoded}
    return cast.issued.update_path, cast.served(cast.alice.make_invoice(records))


def _misplaced(path: str, content: str, cast: contents.Cast) -> Content:
    return contents.PATHS[path](cast), contents.CONTENTS[content](cast)


def _packets() -> Iterator[Kind]:
    """Each table beside an LND of either kind."""
    for name, table, made in _PACKETS:
        cases = [
            (case, _exactly(slug, _packet(native, partial(made, make))))
            for case, (make, slug) in table.items()
            for native in (True, False)
        ]
        yield Kind(name, frozenset(slug for _, slug in table.values()), cases)


_PACKETS: Sequence[tuple[str, Mapping[str, tuple[Any, str]], Callable[[Any, packets.Stage], Made]]] = (
    ("onion packets", packets.PACKETS, _as_packet),
    ("payloads in them", packets.PAYLOADS, _as_payload),
    ("paths that we did not make", packets.OWN_PATHS, _as_path),
)


def _contents() -> Iterator[Kind]:
    serves = [
        (case, _exactly(slug, _content(partial(_as_update, make, family))))
        for case, (make, slug) in contents.SERVES.items()
        for family in Family
    ]
    yield Kind("serve_static_invoice", frozenset(slug for _, slug in contents.SERVES.values()), serves)
    requests = [
        (case, _exactly(slug, _content(partial(_as_request, make))))
        for case, (make, slug) in contents.REQUESTS.items()
    ]
    slugs = frozenset(slug for _, slug in contents.REQUESTS.values())
    yield Kind("invoice_requests over an offer path", slugs, requests)
    misplaced = [
        (f"{content} over {path}", _content(partial(_misplaced, path, content)))
        for path in contents.PATHS
        for content in contents.CONTENTS
        if (path, content) not in contents.RIGHT
    ]
    yield Kind("content over a wrong path", frozenset({"wrong-context", "content-not-served"}), misplaced)
    others = [(case, _content(partial(_with_paths, make))) for case, make in contents.OTHER.items()]
    yield Kind("invoices with other offer paths", frozenset({"wrong-offer-paths"}), others)
    test = contents.test_offer_paths_request_that_breaks_its_form_is_dropped
    asked = [
        (content, _content(partial(_as_paths_request, number, content)))
        for number, content in cases_of(test, "number, content")
    ]
    yield Kind("offer_paths_request", frozenset({"bad-message"}), asked)


def _exactly(expected: str, attempt: Try) -> Try:
    """The very slug that the table names for the case, not just one of its kind."""

    async def run() -> str:
        slug = await attempt()
        return slug if slug == expected else f"undeclared {slug}, not {expected}"

    return run


def kinds() -> list[Kind]:
    """All of them, none tried yet."""
    return [*_decoders(), *_typed(), *_packets(), *_contents()]
