"""The forms in which LND's two files may be kept."""

import base64
from pathlib import Path

import pytest

from sidecar.adapters import lnd_files
from sidecar.adapters.lnd import Lnd
from tests.harness.sim_lnd import SimulatedLnd

# Of every residue by 3 and 4, so that base64 ends in each of its ways.
MACAROONS = [b"\x02\x01\x03lnd\xff\xfb\xef" + bytes(size) for size in range(4)]
PEM = b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("macaroon", MACAROONS)
def test_a_macaroon_may_be_kept_as_hex_or_base64(tmp_path: Path, macaroon: bytes) -> None:
    """As lndinit and lncli write it into secrets: on one line or several, in either alphabet."""
    path = tmp_path / "macaroon"
    forms = (
        macaroon,
        macaroon.hex().encode(),
        macaroon.hex().upper().encode() + b"\n",
        base64.b64encode(macaroon),
        base64.urlsafe_b64encode(macaroon) + b"\n",
        b"\n".join(base64.b64encode(macaroon)[at : at + 5] for at in range(0, 40, 5)),
    )
    for form in forms:
        path.write_bytes(form)
        assert lnd_files.macaroon(path) == macaroon


@pytest.mark.parametrize("data", [b"", b"of another LND", b"0301", b"AwED", b"020", b"\x03\x01", b"Ag=D"])
def test_what_is_no_macaroon_is_left_to_lnd(tmp_path: Path, data: bytes) -> None:
    """It knows best, and says what is wrong with it."""
    path = tmp_path / "macaroon"
    path.write_bytes(data)
    assert lnd_files.macaroon(path) == data


def test_a_certificate_may_be_kept_as_base64(tmp_path: Path) -> None:
    """Of the PEM file; a PEM file itself, which is base64 inside, stays as it is."""
    path = tmp_path / "tls.cert"
    for form in (PEM, base64.b64encode(PEM), base64.encodebytes(PEM), b"\n" + PEM):
        path.write_bytes(form)
        assert lnd_files.certificate(path).strip() == PEM.strip()
    for other in (b"", b"MA==", b"\xff"):
        path.write_bytes(other)
        assert lnd_files.certificate(path) == other


async def test_lnd_is_reached_with_files_of_text(tmp_path: Path) -> None:
    """Both as base64, from the first call on, and after the macaroon was replaced by another form of it."""
    async with SimulatedLnd(tmp_path) as sim:
        for path in (sim.tls_path, sim.macaroon_path):
            path.write_bytes(base64.b64encode(path.read_bytes()))
        lnd = Lnd(sim.host, sim.tls_path, sim.macaroon_path)
        assert (await lnd.describe()).version
        sim.new_macaroon()
        sim.macaroon_path.write_text(sim.macaroon_path.read_bytes().hex())
        assert (await lnd.describe()).version
        await lnd.aclose()
