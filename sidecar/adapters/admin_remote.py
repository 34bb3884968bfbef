"""The caller's side of the admin services over TCP."""

import ssl
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sidecar.adapters.admin_client import AdminClient
from sidecar.adapters.admin_token import read_token
from sidecar.core.errors import AdminDenied, ConfigError, ServerNotRunning

CONNECT_TIMEOUT = 10.0
"""Seconds within which the server must show itself."""


def _roots(cafile: Path | None) -> bytes | None:
    """The certificates that vouch for a server. Raises ConfigError.

    Without a file those of the system; where it has none, None, and gRPC takes those that it brings.
    """
    if cafile is None:
        found = ssl.create_default_context().get_ca_certs(binary_form=True)
        return "".join(map(ssl.DER_cert_to_PEM_cert, found)).encode() or None
    try:
        pem = cafile.read_bytes()
    except OSError as error:
        raise ConfigError(f"admin.cafile: {cafile} can't be read: {error.strerror}") from None
    try:
        ssl.create_default_context(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise ConfigError(f"admin.cafile: {cafile} holds no certificate in PEM") from None
    return pem


class RemoteAdminClient(AdminClient):
    """Calls to a server on another machine; a context manager, as AdminClient is."""

    def __init__(self, address: str, cafile: Path | None, tokenfile: Path) -> None:
        """`address` is host:port; `cafile` is the server's certificate or its CA's, else the system's are.

        Raises ServerNotRunning, AdminDenied, ConfigError.
        """
        token = grpc.access_token_call_credentials(read_token(tokenfile))
        channel = grpc.ssl_channel_credentials(_roots(cafile))
        self._use(grpc.secure_channel(address, grpc.composite_channel_credentials(channel, token)))
        try:
            _meet(self._channel, address)
        except BaseException:
            self._channel.close()
            raise


def _meet(channel: grpc.Channel, address: str) -> None:
    """See that the right server answers; later calls then fail for reasons of their own."""
    try:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        stub.Check(health_pb2.HealthCheckRequest(), timeout=CONNECT_TIMEOUT)
    except grpc.RpcError as error:
        text = error.details() or ""
        # gRPC has no code of its own for these: its text is all that there is.
        if "CERTIFICATE_VERIFY_FAILED" in text or "Hostname Verification" in text:
            raise AdminDenied(
                f"the server at {address} can't prove that it is the one: give its certificate, or its CA's, "
                "as admin.cafile, and a name or address in admin.address that the certificate holds"
            ) from None
        if "handshake failed" in text.lower():
            raise AdminDenied(
                f"what listens at {address} speaks no TLS: is it the server's admin.listen?"
            ) from None
        raise ServerNotRunning(
            f"no server answers at {address}: look whether it runs with admin.listen and has met LND and "
            "Redis, and whether a firewall is in between"
        ) from None
