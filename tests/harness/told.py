"""A server that says what it is told to: for the commands that show what a server says."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from sidecar.adapters.admin_client import admin_socket_path, private_directory, socket_target
from sidecar.cli.digest import Sample
from sidecar.rpc.sidecar.v1 import admin_pb2

STARTED_MS = 1_700_000_000_000


def a_status(counters: Mapping[str, int] | None = None, **more: object) -> admin_pb2.GetStatusResponse:
    """What a server in good order says."""
    status = admin_pb2.GetStatusResponse(
        version="0.1.0",
        node_id="02" + "ab" * 32,
        lnd_version="0.21.2-beta",
        mode="native",
        network="regtest",
        redis="Redis 6.2.14 (embedded, AOF always)",
        durability="strict",
        stream_up=True,
        started_at_ms=STARTED_MS,
        counters=counters,
    )
    status.MergeFrom(admin_pb2.GetStatusResponse(**more))  # type: ignore[arg-type]
    return status


def a_client(name: str, slots: int = 0, **more: object) -> admin_pb2.Client:
    """A client with ten slots."""
    client = admin_pb2.Client(
        client_id=name.encode().hex(),
        name=name,
        state=admin_pb2.CLIENT_STATE_ACTIVE,
        slots_used=slots,
        limits=admin_pb2.Quota(slots=10, bytes=131_072, mailbox_letters=200, mailbox_bytes=4_194_304),
    )
    client.MergeFrom(admin_pb2.Client(**more))  # type: ignore[arg-type]
    return client


def a_sample(
    at: float = 0, status: admin_pb2.GetStatusResponse | None = None, *clients: admin_pb2.Client
) -> Sample:
    """An answer, so many seconds after the server's start."""
    return Sample(at, STARTED_MS + int(at * 1000), a_status() if status is None else status, clients)


class Told:
    """The answers to the two calls that look at a server, and the calls that were made."""

    def __init__(self, *clients: admin_pb2.Client) -> None:
        self.status = a_status()
        self.clients = list(clients)
        self.asked = self.at_once = self.most_at_once = 0
        self.answering = threading.Event()
        """Cleared, an answer waits until it is set."""
        self.answering.set()
        self.changed = threading.Condition()

    def _get_status(
        self, _request: admin_pb2.GetStatusRequest, _context: grpc.ServicerContext
    ) -> admin_pb2.GetStatusResponse:
        with self.changed:
            self.asked += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self.changed.notify_all()
        self.answering.wait(30)
        with self.changed:
            self.at_once -= 1
        return self.status

    def _list_clients(
        self, _request: admin_pb2.ListClientsRequest, _context: grpc.ServicerContext
    ) -> admin_pb2.ListClientsResponse:
        return admin_pb2.ListClientsResponse(clients=self.clients)

    def _handler(self) -> grpc.GenericRpcHandler:
        # By hand: a servicer would have to have all the other calls too.
        return grpc.method_handlers_generic_handler(
            "sidecar.v1.Admin",
            {
                "GetStatus": grpc.unary_unary_rpc_method_handler(
                    self._get_status,
                    request_deserializer=admin_pb2.GetStatusRequest.FromString,
                    response_serializer=admin_pb2.GetStatusResponse.SerializeToString,
                ),
                "ListClients": grpc.unary_unary_rpc_method_handler(
                    self._list_clients,
                    request_deserializer=admin_pb2.ListClientsRequest.FromString,
                    response_serializer=admin_pb2.ListClientsResponse.SerializeToString,
                ),
            },
        )

    def wait_for_calls(self, count: int) -> None:
        """Until `count` calls have begun since the start. Raises AssertionError when they don't come."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.asked >= count, 20), self.asked

    @contextlib.contextmanager
    def serving(self, datadir: Path) -> Iterator[None]:
        """Answer on the admin socket of a data directory; what is under way at the end is cut off."""
        path = admin_socket_path(datadir)
        private_directory(path.parent)
        path.unlink(missing_ok=True)
        server = grpc.server(ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers((self._handler(),))
        server.add_insecure_port(socket_target(path))
        server.start()
        try:
            yield
        finally:
            server.stop(None).wait()
            path.unlink(missing_ok=True)
