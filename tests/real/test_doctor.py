"""`sidecar doctor` before real LNDs: what it sees of them is so, and looking at them does no harm."""

from pathlib import Path

import pytest

from sidecar.adapters import permissions
from sidecar.config import load
from sidecar.core.diagnosis import Finding, Level
from sidecar.doctor import examine
from tests.harness.beside import URIS
from tests.harness.lnd_process import LndProcess

pytestmark = pytest.mark.real


async def look(lnd: LndProcess, macaroon: Path) -> list[Finding]:
    """The findings about LND."""
    given = {
        "datadir": str(lnd.directory / "data"),
        "lnd.host": lnd.host,
        "lnd.tlspath": str(lnd.tls_path),
        "lnd.macaroonpath": str(macaroon),
    }
    return [each for each in await examine(load(given, {})) if each.name.startswith(("lnd", "clock"))]


def level(found: list[Finding], name: str) -> Level:
    """Of the one line of that name."""
    (one,) = [each for each in found if each.name == name]
    return one.level


async def test_a_real_lnd_is_seen_as_it_is(lnd: LndProcess) -> None:
    """With the macaroon of the recipe: reached, allowed all, of its kind, announcing onion messages."""
    found = await look(lnd, await lnd.bake(URIS[lnd.kind]))
    for name in ("lnd", "lnd.certificate", "lnd.macaroon", "lnd.mode", "lnd.onion-messages", "lnd.network"):
        assert level(found, name) is Level.OK, found
    (mode,) = [each for each in found if each.name == "lnd.mode"]
    assert mode.seen.startswith(lnd.kind)


async def test_a_real_macaroon_is_read_call_by_call(lnd: LndProcess) -> None:
    """Each call and stream that was not baked in is named, and nothing else; the admin's allows too much."""
    uris = URIS[lnd.kind]
    lacking = {
        uris[2],
        "/lnrpc.Lightning/SubscribeCustomMessages",
        "/signrpc.Signer/DeriveSharedKey",
        uris[-1],
    }
    found = await look(lnd, await lnd.bake([uri for uri in uris if uri not in lacking]))
    assert {each.seen for each in found if each.name == "lnd.macaroon"} == {f"it lacks {u}" for u in lacking}
    found = await look(lnd, lnd.macaroon_path)
    assert level(found, "lnd.macaroon") is Level.WARNING
    both = await lnd.bake([*uris, "/lnrpc.Lightning/CheckMacaroonPermissions"])
    assert level(await look(lnd, both), "lnd.macaroon") is Level.OK
    assert "/lnrpc.Lightning/CheckMacaroonPermissions" not in permissions.COMMON
