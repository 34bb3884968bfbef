"""What the chart makes once: the admin API's certificate and token, good for the program that uses them."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from sidecar.adapters.admin_token import read_token
from sidecar.rpc.sidecar.v1 import admin_pb2, admin_pb2_grpc
from tests.harness.admin_tcp import TcpWorld, bearer
from tests.helm.charts import NAMESPACE, Helm, values_of

pytestmark = pytest.mark.helm

NAME = "pay-static-invoice-sidecar"


def data(helm: Helm, template: str, **more: object) -> Mapping[str, bytes]:
    """What the Secret of a template holds."""
    (secret,) = helm.render(values_of("beside-minimal", **more), release="pay", show_only=[template])
    return {key: base64.b64decode(value) for key, value in secret["data"].items()}


@pytest.fixture(scope="module")
def tls(helm: Helm) -> Mapping[str, bytes]:
    """The certificate of the admin API, and what belongs to it."""
    return data(helm, "admin-tls-secret.yaml")


@pytest.fixture
async def served(tmp_path: Path, helm: Helm, tls: Mapping[str, bytes]) -> AsyncIterator[TcpWorld]:
    """An admin server with the files of the Secrets."""
    world = TcpWorld(tmp_path)
    world.tcp.tlscert.write_bytes(tls["tls.crt"])
    world.tcp.tlskey.write_bytes(tls["tls.key"])
    world.tcp.tokenfile.write_bytes(data(helm, "admin-token-secret.yaml")["token"])
    async with world:
        yield world


@pytest.mark.parametrize(
    "name",
    [
        NAME,
        f"{NAME}.{NAMESPACE}",
        f"{NAME}.{NAMESPACE}.svc",
        f"{NAME}.{NAMESPACE}.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        "::1",
    ],
)
async def test_who_trusts_the_ca_may_call_the_server_by_each_name(
    served: TcpWorld, tls: Mapping[str, bytes], name: str
) -> None:
    """The key belongs to the certificate, the CA has signed it, and the token is let in."""
    credentials = grpc.ssl_channel_credentials(tls["ca.crt"])
    options = [("grpc.ssl_target_name_override", name)]
    async with grpc.aio.secure_channel(served.server.address, credentials, options) as channel:
        stub = admin_pb2_grpc.AdminStub(channel)
        token = read_token(served.tcp.tokenfile)
        await stub.GetStatus(admin_pb2.GetStatusRequest(), metadata=bearer(token), timeout=10)


async def test_the_certificate_is_good_for_no_other_name(served: TcpWorld, tls: Mapping[str, bytes]) -> None:
    """Another Service's, say."""
    credentials = grpc.ssl_channel_credentials(tls["ca.crt"])
    options = [("grpc.ssl_target_name_override", "other")]
    async with grpc.aio.secure_channel(served.server.address, credentials, options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await admin_pb2_grpc.AdminStub(channel).GetStatus(admin_pb2.GetStatusRequest(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_the_key_of_the_ca_is_kept_nowhere(tls: Mapping[str, bytes]) -> None:
    """So nobody can sign another certificate that callers would trust."""
    assert set(tls) == {"tls.crt", "tls.key", "ca.crt"}
    assert b"PRIVATE" not in tls["tls.crt"] + tls["ca.crt"]
    assert (
        x509.load_pem_x509_certificate(tls["ca.crt"])
        .extensions.get_extension_for_class(x509.BasicConstraints)
        .value.ca
    )


def test_the_certificate_is_good_as_long_as_it_shall_be(helm: Helm) -> None:
    """And so is its CA's."""
    made = data(helm, "admin-tls-secret.yaml", admin__tls__days=90)
    for name in ("tls.crt", "ca.crt"):
        certificate = x509.load_pem_x509_certificate(made[name])
        span = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert abs(span - dt.timedelta(days=90)) < dt.timedelta(minutes=1)


def test_each_release_has_its_own_secrets(helm: Helm) -> None:
    """They are random, each time."""
    for template, key in (
        ("admin-token-secret.yaml", "token"),
        ("redis-secret.yaml", "password"),
        ("admin-tls-secret.yaml", "tls.key"),
    ):
        assert data(helm, template)[key] != data(helm, template)[key]
