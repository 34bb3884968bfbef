"""Several redis-servers that belong together: a Cluster, or a master and a replica with a Sentinel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import redis

from sidecar.adapters.redis_store import RedisStore
from sidecar.core.errors import StoreUnavailable
from tests.harness.ports import free_ports

SAFE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--repl-diskless-sync-delay", "0")
PATIENCE = 20.0
SLOTS = 16_384


def eventually(done: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait until a question to other processes has a true answer; errors of Redis count as none."""
    end = time.monotonic() + seconds
    answer: Any = None
    while time.monotonic() < end:
        try:
            if found := done():
                return found
        except (redis.RedisError, OSError) as error:
            answer = error
        time.sleep(0.01)
    raise AssertionError(f"it did not come: {answer!r}")


async def changed_again(store: RedisStore) -> None:
    """Wait until changes work by themselves."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await store.probe()
            except StoreUnavailable:
                await asyncio.sleep(0.02)


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port where a connection is taken, and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


class Node:
    """A redis-server on a loopback port, in a directory of its own."""

    def __init__(self, executable: Path, port: int, *options: str) -> None:
        self.port = port
        self.directory = Path(tempfile.mkdtemp(prefix="redis-group-"))
        self.client = redis.Redis(port=port, protocol=2)
        base = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(self.directory))
        self._command = [str(executable), *options, *base]
        if options[:1] and options[0].endswith(".conf"):
            self._command = [str(executable), *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it on the data that it has, and wait until it answers."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=self.directory, stdout=log, stderr=log)
        eventually(self.client.ping)

    def signal(self, number: signal.Signals) -> None:
        """Suspend it, or let it go on."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def end(self) -> None:
        """Kill it, and remove what it wrote."""
        self.kill()
        self.client.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def command(self, *words: str | int) -> Any:
        """What an operator would type into redis-cli."""
        return self.client.execute_command(*words)  # type: ignore[no-untyped-call]


class Cluster:
    """Three masters with a third of the slots each, and a replica of each of the first `replicas`."""

    def __init__(self, executable: Path, *, replicas: int = 0) -> None:
        # Masters that live go on when one has died, so that nothing but its silence tells of that.
        options = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", *SAFE)
        timeout = ("--cluster-node-timeout", "1000")
        ports = free_ports(3 + replicas, bus=True)
        self.nodes = [Node(executable, port, *options, *timeout) for port in ports]

    @property
    def url(self) -> str:
        """For the setting `redis.url`: two of its nodes."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[1:3])

    def start(self) -> None:
        """Start all, and wait until every node knows that all slots are served."""
        for node in self.nodes:
            node.start()
        masters = self.nodes[:3]
        bounds = [SLOTS * number // 3 for number in range(4)]
        for number, node in enumerate(masters):
            node.command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes:
            for other in self.nodes:
                node.command("CLUSTER", "MEET", "127.0.0.1", other.port)
        eventually(lambda: all(self._complete(node) for node in self.nodes))
        for master, replica in zip(self.nodes, self.nodes[3:], strict=False):
            self._replicate(master, replica)

    def _replicate(self, master: Node, replica: Node) -> None:
        replica.command("CLUSTER", "REPLICATE", self.id_of(master))
        self.linked(replica)
        known = f"127.0.0.1:{replica.port}"
        eventually(
            lambda: all("slave" in node.client.cluster("NODES")[known]["flags"] for node in self.nodes[:3])
        )

    @staticmethod
    def linked(replica: Node) -> None:
        """Wait until a replica has all that its master has."""
        eventually(lambda: replica.client.info("replication").get("master_link_status") == "up")

    @staticmethod
    def is_master(node: Node) -> bool:
        """Whether a node takes changes, as it says itself."""
        return bool(node.client.info("replication")["role"] == "master")

    def promote(self, node: Node) -> None:
        """Order a failover, which waits until the replica has everything; wait until it is the master."""
        deadline = time.monotonic() + PATIENCE
        while True:
            eventually(lambda: node.command("CLUSTER", "FAILOVER"))
            try:
                eventually(lambda: self.is_master(node), 3)
            except AssertionError:
                # It gives up where the others do not vote in time: it is ordered again.
                if time.monotonic() > deadline:
                    raise
            else:
                return

    def _complete(self, node: Node) -> bool:
        info = node.client.cluster("INFO")
        return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == len(self.nodes)

    def id_of(self, node: Node) -> str:
        """A node's own id."""
        found: bytes = node.command("CLUSTER", "MYID")
        return found.decode()

    def owner(self, key: str) -> tuple[int, Node]:
        """A key's slot, and the master that has it."""
        slot = int(self.nodes[0].command("CLUSTER", "KEYSLOT", key))
        port = self._says(self.nodes[1], slot)
        return slot, next(node for node in self.nodes if node.port == port)

    @staticmethod
    def _says(node: Node, slot: int) -> int:
        """The port of the master that has a slot, as a node knows it; 0 for none."""
        ranges = node.command("CLUSTER SLOTS")
        return next((port for first, last, (_, port, *_), *_ in ranges if first <= slot <= last), 0)

    def disown(self, slot: int, owner: Node) -> None:
        """Take a slot from its owner, and from what the others know of it."""
        # The owner first: as long as it has the slot it tells the others, and they believe it again.
        for node in (owner, *(node for node in self.nodes if node is not owner)):
            while self._says(node, slot):
                node.command("CLUSTER", "DELSLOTS", slot)

    def begin_move(self, slot: int, source: Node, target: Node) -> None:
        """Say that a slot moves; no key of it does yet."""
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))

    @staticmethod
    def move_keys(slot: int, source: Node, target: Node, *only: bytes) -> None:
        """Move a slot's keys, all of them or some."""
        keys = only or source.command("CLUSTER", "GETKEYSINSLOT", slot, 100)
        if keys:
            source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)

    def move(self, slot: int, source: Node, target: Node) -> None:
        """Move a slot as an operator does, its keys one after the other."""
        self.begin_move(slot, source, target)
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 1):
            self.move_keys(slot, source, target, *keys)
        self.end_move(slot, target)

    def end_move(self, slot: int, target: Node) -> None:
        """Say that a slot has moved, to the masters, and wait until all of them agree."""
        masters = self.nodes[:3]
        for node in (target, *(node for node in masters if node is not target)):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", self.id_of(target))
        # What they tell each other of the slot's last move may still be on its way.
        eventually(lambda: all(self._says(node, slot) == target.port for node in masters))
        # The slot's next move gets the epoch behind the highest one that its new master knows of. Were
        # that not this move's, both would have the same, and those who disagree would do so for good.
        eventually(lambda: len({self._epoch(node, target) for node in masters}) == 1)

    @staticmethod
    def _epoch(node: Node, of: Node) -> int:
        """A master's configuration epoch, as a node knows it."""
        return int(node.client.cluster("NODES")[f"127.0.0.1:{of.port}"]["epoch"])

    def end(self) -> None:
        """End all."""
        for node in self.nodes:
            node.end()


class SentinelGroup:
    """A master and replicas, with one Sentinel over them that decides alone, and quickly."""

    NAME = "mine"

    DOWN_AFTER = 300
    """Milliseconds of silence after which the Sentinel takes a server for dead."""

    def __init__(self, executable: Path, *, replicas: int = 1, options: Sequence[str] = SAFE) -> None:
        """`options`: of master and replicas."""
        one, third, *others = free_ports(2 + replicas)
        self.master = Node(executable, one, *options)
        self.replicas = [
            Node(executable, port, *options, "--replicaof", "127.0.0.1", str(one)) for port in others
        ]
        self.replica = self.replicas[0]
        self.sentinel = Node(executable, third, "sentinel.conf", "--sentinel")
        self._lines = (
            *(f"port {third}", "bind 127.0.0.1", f"sentinel monitor {self.NAME} 127.0.0.1 {one} 1"),
            f"sentinel down-after-milliseconds {self.NAME} {self.DOWN_AFTER}",
            f"sentinel failover-timeout {self.NAME} 3000",
        )

    @property
    def url(self) -> str:
        """For the setting `redis.url`: a Sentinel that is away, and the one that is there."""
        return f"redis+sentinel://127.0.0.1:1,127.0.0.1:{self.sentinel.port}/{self.NAME}"

    def start(self) -> None:
        """Start all, and wait until the replica could be promoted."""
        self.master.start()
        for replica in self.replicas:
            replica.start()
        for replica in self.replicas:
            self.linked(replica)
        (self.sentinel.directory / "sentinel.conf").write_text("\n".join(self._lines) + "\n")
        self.sentinel.start()
        self._hurry()

    @staticmethod
    def linked(replica: Node) -> None:
        """Wait until a replica has all that its master has."""
        eventually(lambda: replica.client.info("replication").get("master_link_status") == "up")

    def _hurry(self) -> None:
        # Else it looks every ten seconds what has become of its servers. Redis 7.0 and later.
        with contextlib.suppress(redis.ResponseError):
            times = {"info-period": 300, "ping-period": 100, "ask-period": 50, "publish-period": 100}
            self.sentinel.command("SENTINEL", "DEBUG", *(word for each in times.items() for word in each))
        eventually(lambda: len(self.sentinel.client.sentinel_slaves(self.NAME)) == len(self.replicas))

    @property
    def nodes(self) -> Sequence[Node]:
        """Master and replicas, whichever they are by now."""
        return [self.master, *self.replicas]

    def current(self) -> Node:
        """The master that the Sentinel names."""
        return next(node for node in self.nodes if node.port == self.named())

    def cut(self, master: Node) -> None:
        """Part a master from its replicas until it is started again; it goes on, and the Sentinel sees it."""
        # A replica parted from its master for ten of these before that died is never promoted.
        self._down_after(2_000)
        master.command("ACL", "SETUSER", "default", "-psync", "-sync")
        master.command("CLIENT", "KILL", "TYPE", "replica")

    def _down_after(self, milliseconds: int) -> None:
        self.sentinel.command("SENTINEL", "SET", self.NAME, "down-after-milliseconds", milliseconds)

    def until_replaced(self, old: Node) -> None:
        """Wait until the Sentinel names another master."""
        try:
            # An attempt that it gives up is followed by the next one twice its failover-timeout later.
            eventually(lambda: self.named() != old.port, 2 * PATIENCE)
        except AssertionError as error:
            told = (self.sentinel.directory / "log").read_text()[-3_000:]
            raise AssertionError(f"{error}; the Sentinel says:\n{told}") from None

    def whole(self) -> None:
        """Wait until all others follow the master, and the Sentinel may promote them."""
        # Since a cut it was longer.
        self._down_after(self.DOWN_AFTER)
        eventually(self._is_whole)

    def _is_whole(self) -> bool:
        master = self.current()
        told = master.client.info("replication")
        online = [told.get(f"slave{number}", {}).get("state") for number in range(len(self.replicas))]
        known = self.sentinel.client.sentinel_slaves(self.NAME)
        # By now they may follow; that the Sentinel knows it, and would promote one, it says itself.
        good = [
            each["flags"] == "slave"
            and each["master-link-status"] == "ok"
            and int(each["master-port"]) == master.port
            for each in known
        ]
        count = len(self.replicas)
        return told["role"] == "master" and online == ["online"] * count and sum(good) == count

    def fail_over(self) -> None:
        """Let the Sentinel promote a replica, and wait until it names it."""
        deadline, old = time.monotonic() + PATIENCE, self.named()
        while self.named() == old:
            assert time.monotonic() < deadline, "there was no failover"
            # It begins, and gives up, where what the Sentinel knows of the replica is not fresh.
            with contextlib.suppress(redis.ResponseError):
                self.sentinel.command("SENTINEL", "FAILOVER", self.NAME)
            with contextlib.suppress(AssertionError):
                eventually(lambda: self.named() != old, 3.0)

    def named(self) -> int:
        """The port of the master that the Sentinel names."""
        found: list[bytes] = self.sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.NAME)
        return int(found[1])

    def swap_by_hand(self) -> None:
        """Promote the replica behind the Sentinel's back: nobody cuts the old master's connections."""
        self.sentinel.command("SENTINEL", "REMOVE", self.NAME)
        self.replica.command("REPLICAOF", "NO", "ONE")
        self.master.command("REPLICAOF", "127.0.0.1", self.replica.port)
        self.sentinel.command("SENTINEL", "MONITOR", self.NAME, "127.0.0.1", self.replica.port, 1)
        eventually(lambda: self.master.client.info("replication").get("master_link_status") == "up")

    def end(self) -> None:
        """End all."""
        for node in (self.sentinel, *self.replicas, self.master):
            node.end()
