"""One POST to a push service, real HTTPS on loopback: what counts as success, and what an answer may cost."""

from __future__ import annotations

import ipaddress
import resource
import time
from pathlib import Path

import pytest
import trustme
from aiohttp.client_proto import ResponseHandler

from sidecar.adapters.guard import ANSWER_ROOM, DialRules
from sidecar.adapters.pushes import BAD_URL, Pushes, PushLimits
from sidecar.core.errors import ConfigError, NotNotified
from tests.harness import push_service
from tests.harness.hostile_addresses import Zone, nothing_connects
from tests.harness.push_service import Behaviour, Certificate, PushService, answer

LIMITS = PushLimits(connect=0.5, address=0.5, total=0.5)
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


def pushes_to(service: PushService, limits: PushLimits = LIMITS) -> Pushes:
    """What may tell this service, and trusts its CA."""
    return Pushes(DialRules((LOOPBACK,), frozenset({service.port})), limits, service.ca_file, Zone({}))


async def outcome(service: PushService, limits: PushLimits = LIMITS) -> str:
    """What comes of a POST."""
    try:
        await pushes_to(service, limits).post(service.url(), {"x-lsps5-timestamp": "now"}, b'{"a":1}')
    except NotNotified as error:
        text, slug = str(error), error.slug
    else:
        return "ok"
    assert "secret" not in text
    return slug


async def test_a_post_arrives_to_the_byte(tmp_path: Path) -> None:
    """Path and query as they were registered, our headers, the body, and nothing that tells of us."""
    async with PushService(tmp_path) as service:
        url = service.url("/a%2Fb/%7Eme;c=1/../x?t=a+b%20c&&d=/?")
        await pushes_to(service).post(url, {"x-lsps5-timestamp": "now"}, b'{"a":1}')
        came = await service.next()
    assert (came.verb, came.path, came.body) == ("POST", "/a%2Fb/%7Eme;c=1/../x?t=a+b%20c&&d=/?", b'{"a":1}')
    assert came.headers["x-lsps5-timestamp"] == "now"
    assert came.headers["content-length"] == "7"
    assert came.headers["user-agent"] == "static-invoice-sidecar"
    assert not {"cookie", "authorization", "referer"} & came.headers.keys()


@pytest.mark.parametrize("status", [201, 202, 204, 301, 400, 401, 404, 410, 429, 500, 503, 599])
async def test_200_is_the_only_success(tmp_path: Path, status: int) -> None:
    """bLIP 55: "The LSP MUST consider a `200 OK` response a success"; any other is none."""
    async with PushService(tmp_path, answer(status)) as service:
        assert await outcome(service) == f"status-{status}"


@pytest.mark.parametrize(
    "place",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://127.0.0.1:{port}/elsewhere",
        "/elsewhere",
        "file:///",
    ],
)
async def test_no_redirect_is_followed(tmp_path: Path, place: str) -> None:
    """bLIP 55: "The LSP SHOULD NOT follow any redirection responses", wherever they lead."""
    async with PushService(tmp_path) as service:
        for status in (301, 302, 303, 307, 308):
            service.behaviour = answer(status, "location: " + place.format(port=service.port))
            assert await outcome(service) == f"status-{status}"
        assert service.connections == 5


@pytest.mark.parametrize(
    ("behaviour", "slug"),
    [
        (answer(200, "content-encoding: gzip", body=b"no gzip at all"), "ok"),
        (answer(200, "set-cookie: a=b", "content-type: \xff"), "ok"),
        (answer(200, "location: https://169.254.169.254/", "connection: upgrade", "upgrade: h2c"), "ok"),
        (push_service.drip_body, "ok"),
        (push_service.endless_body, "ok"),
        (push_service.endless_headers, "bad-answer"),
        (push_service.endless_continue, "reset"),
        (push_service.drip, "timeout"),
        (push_service.hang, "timeout"),
        (push_service.garbage, "bad-answer"),
        (push_service.hang_up, "reset"),
        (push_service.reset, "reset"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_an_answer_costs_little(tmp_path: Path, behaviour: Behaviour, slug: str) -> None:
    """A byte now and then, 10 GB, no end of headers or of promises, no HTTP at all: short, and for little."""
    async with PushService(tmp_path, behaviour) as service:
        began = time.monotonic()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert await outcome(service) == slug
        assert time.monotonic() - began < 2
        assert (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 20_000
        )  # KB; the service is in it


async def test_what_is_read_of_an_answer_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 KB, of whatever is in it: `100 Continue` without end would keep a core busy until time is up."""
    seen = []
    feed = ResponseHandler.data_received

    def count(handler: ResponseHandler, data: bytes) -> None:
        seen.append(len(data))
        feed(handler, data)

    monkeypatch.setattr(ResponseHandler, "data_received", count)
    async with PushService(tmp_path, push_service.endless_continue) as service:
        assert await outcome(service) == "reset"
        assert 0 < sum(seen) <= ANSWER_ROOM


@pytest.mark.parametrize("certificate", [Certificate.OTHER_CA, Certificate.WRONG_NAME])
async def test_a_bad_certificate_is_no_push_service(tmp_path: Path, certificate: Certificate) -> None:
    """Of another CA, or for another name: nothing is sent to it."""
    async with PushService(tmp_path, certificate=certificate) as service:
        assert await outcome(service) == "certificate"
        assert service.count() == 0


async def test_a_ca_of_the_operators_own_must_be_given(tmp_path: Path) -> None:
    """Without `ca_file` the service's CA is one that nobody knows; and the file must be one."""
    async with PushService(tmp_path) as service:
        rules = DialRules((LOOPBACK,), frozenset({service.port}))
        with pytest.raises(NotNotified) as failure:
            await Pushes(rules, LIMITS).post(service.url(), {}, b"{}")
        assert failure.value.slug == "certificate"
    (tmp_path / "empty").touch()
    for name in ("empty", "absent"):
        with pytest.raises(ConfigError, match=name):
            Pushes(rules, LIMITS, tmp_path / name)


async def test_nobody_there_and_no_such_name_are_told_apart(tmp_path: Path) -> None:
    """For the operator, who sees a word in the log of deliveries."""
    service = PushService(tmp_path)
    async with service:
        pass
    assert await outcome(service) == "connect"
    with pytest.raises(NotNotified) as failure:
        await pushes_to(service).post(service.url(host="nobody.push.test"), {}, b"{}")
    assert failure.value.slug == "no-such-host"


async def test_the_environments_proxies_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would dial for us, past the guard."""
    async with PushService(tmp_path, ca=trustme.CA()) as proxy, PushService(tmp_path) as service:
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        rules = DialRules((LOOPBACK,), frozenset({service.port, proxy.port}))
        await Pushes(rules, LIMITS, service.ca_file).post(service.url(), {}, b"{}")
        assert service.connections == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "https:///x",
        "https://",
        "",
        "x",
        "https://127.0.0.1:99999/",
        "https://[::1/",
        "https://127.0.0.1/\r\nx: y",
        "https://127.0.0.1/ x",
        "https://127.0.0.1/é",
        "https://a%00b/",
    ],
)
async def test_what_is_no_plain_https_url_is_not_dialled(url: str) -> None:
    """Checked when it was registered, and here again: a store may hold what an older version let in."""
    with nothing_connects() as attempts, pytest.raises(NotNotified) as failure:
        await Pushes(DialRules((LOOPBACK,)), LIMITS, resolver=Zone({})).post(url, {}, b"{}")
    assert (failure.value.slug, attempts) == (BAD_URL, [])
