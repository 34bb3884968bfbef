"""The chart's pods, run as the kubelet would run them: a real LND and Redis, the image, wallets, payers."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sidecar.adapters.permissions import NATIVE
from sidecar.core import paths
from sidecar.core.model import Family
from sidecar.core.wire import decode_tlvs
from tests.harness import bolt8
from tests.harness.asking import Asking
from tests.harness.asserting import until
from tests.harness.btcd import Btcd
from tests.harness.lnd_process import LndProcess
from tests.harness.payer import Payer
from tests.harness.stage import Stage
from tests.harness.wallet import Wallet
from tests.helm.charts import Helm, Object, with_values
from tests.helm.dockerfile import Image
from tests.helm.images import images
from tests.helm.network import Network
from tests.helm.pods import Node, Pod

# All in one loop: the pods of a shape are started once for its tests, and are ready again after each.
pytestmark = [pytest.mark.helm, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

NAME = "test-static-invoice-sidecar"
OUTSIDE = "lnd.outside.example"
PEERS, RPC, CHAIN, REDIS = 9735, 10009, 18334, 6379

RATE = 4
"""Requests a second, of the ten that one offer may have."""

BESIDE = {
    "shape": "beside",
    "network": "regtest",
    "existingLnd": {
        "host": f"{OUTSIDE}:{RPC}",
        "tls": {"secret": "lnd-tls"},
        "macaroon": {"secret": "lnd-macaroon"},
    },
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(image: Image) -> AsyncIterator[Network]:  # noqa: ARG001 - skipped where there is no image
    """In which the chart's ports are free."""
    async with Network() as network:
        yield network


@pytest.fixture(scope="module")
def known(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Image]:
    """The images by their names."""
    return images(image, tmp_path_factory.mktemp("images"))


# --- LND and the sidecar in one pod -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Together:
    """Shape `sidecar`, and its Redis."""

    node: Node
    pod: Pod
    redis: Pod
    stack: AsyncExitStack

    async def client(self, name: str) -> paths.BlindedPath:
        """Let one in by `kubectl exec`; its request path."""
        said = await self.pod.containers["sidecar"].ask("sidecar", "client", "add", name, "--json")
        return paths.decode_path_list(bytes.fromhex(json.loads(said)["paths"]))[0]

    async def node_id(self) -> bytes:
        """LND's."""
        info = await self.pod.containers["lnd"].ask("lncli", "--lnddir=/lnd", "--network=regtest", "getinfo")
        return bytes.fromhex(json.loads(info)["identity_pubkey"])

    async def connect(self, secret: bytes) -> bolt8.Bolt8Link:
        """A peer of LND's, from outside."""
        port = await self.stack.enter_async_context(self.node.network.forwarded(PEERS))
        return await bolt8.connect("127.0.0.1", port, await self.node_id(), secret)

    async def wallet(self, request_path: paths.BlindedPath) -> Wallet:
        """One that has its request path."""
        secret = os.urandom(32)
        return Wallet(secret, await self.connect(secret), await self.node_id(), request_path, Family.LDK)

    async def payer(self) -> Payer:
        """One without a channel."""
        secret = os.urandom(32)
        return Payer(secret, await self.connect(secret), await self.node_id())


def beside_a_chain(chain: Btcd) -> dict[str, Any]:
    """Values for LND 0.21 on that chain: no seed to write down, nobody to look for."""
    config = {
        "bitcoin.node": "btcd",
        "btcd.rpchost": f"localhost:{CHAIN}",
        "btcd.rpcuser": chain.user,
        "btcd.rpcpass": chain.password,
        "btcd.rawrpccert": chain.cert_path.read_bytes().hex(),
        "noseedbackup": True,
        "norest": True,
        "nobootstrap": True,
    }
    return {"shape": "sidecar", "network": "regtest", "lnd": {"config": config, "preStopSeconds": 2}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def together(
    helm: Helm, known: Mapping[str, Image], network: Network, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Together]:
    """Both pods, ready."""
    folder = tmp_path_factory.mktemp("together")
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(Btcd(folder / "chain"))
        # LND takes a chain whose newest block is old for one that is still behind.
        await chain.generate(1)
        await stack.enter_async_context(network.offered(CHAIN, chain.rpc_port))
        node = Node(folder, network, known, helm.render(beside_a_chain(chain)))
        redis = await stack.enter_async_context(node.pod("StatefulSet", f"{NAME}-redis"))
        pod = await stack.enter_async_context(node.pod("StatefulSet", NAME))
        yield Together(node, pod, redis, stack)


async def test_a_payer_gets_the_invoice_that_a_wallet_left(together: Together) -> None:
    """With nothing done by hand but `kubectl exec … sidecar client add`: the credentials are baked."""
    wallet = await together.wallet(await together.client("alice"))
    offer, _, invoice = await wallet.set_up()
    await wallet.link.close()
    answer = await (await together.payer()).get_invoice(offer)
    assert answer.records == decode_tlvs(invoice)
    assert "baked" in together.pod.containers["credentials"].boxed.said


async def test_the_pods_of_helm_test_succeed(together: Together) -> None:
    """One looks at all that must be right, one lets a client in: over TLS, by the Service's name."""
    for name in ("doctor", "client"):
        pod = together.node.pod("Pod", f"{NAME}-test-{name}")
        async with pod:
            said = {each.name: each.boxed for each in pod.containers.values()}
            assert await pod.finish() == {name: 0}, said[name].said
    left = await together.pod.containers["sidecar"].ask("sidecar", "client", "list", "--json")
    assert f"{NAME}-test-client" not in [client["name"] for client in json.loads(left)["clients"]]


async def test_every_probe_passes_while_all_is_well(together: Together) -> None:
    """Those for liveness too, which nobody waits for."""
    for pod in (together.pod, together.redis):
        for container in pod.containers.values():
            for probe in container.probes:
                assert await container.passes(probe), (container.name, probe)


async def test_a_deleted_pod_ends_in_order_and_nothing_is_lost(together: Together) -> None:
    """LND last, so that the sidecar finishes; the next pod has the same node, client and invoice."""
    wallet = await together.wallet(await together.client("bob"))
    offer, _, invoice = await wallet.set_up()
    node_id = await together.node_id()
    assert await together.pod.delete() == {"lnd": 0, "credentials": 0, "sidecar": 0}
    assert together.pod.ended[-1] == "lnd"
    assert await together.redis.delete() == {"redis": 0}
    await together.redis.start()
    await together.pod.start()
    assert await together.node_id() == node_id
    answer = await (await together.payer()).get_invoice(offer)
    assert answer.records == decode_tlvs(invoice)


async def test_strangers_get_nothing_from_redis(together: Together) -> None:
    """They are asked for the password of the Secret, which the pod's command line does not show."""
    redis = together.redis.containers["redis"]
    refused = await redis.ask("env", "-u", "REDISCLI_AUTH", "redis-cli", "ping")
    assert refused.startswith("NOAUTH")
    password = together.node.objects.value("Secret", f"{NAME}-redis", "password")
    command_line = Path(f"/proc/{redis.boxed.pid}/cmdline").read_bytes()
    assert password not in command_line


# --- beside an LND that is there ----------------------------------------------------------------


@dataclass(slots=True)
class Beside:
    """Shape `beside`, and an LND that is no pod."""

    helm: Helm
    lnd: LndProcess
    node: Node
    pod: Pod
    values: dict[str, Any]

    async def apply(self, **values: Any) -> None:
        """`helm upgrade` with these values more, and LND's credentials as they are now."""
        self.values = with_values(self.values, {path.replace("__", "."): values[path] for path in values})
        # `helm template` makes new passwords each time; an upgrade keeps them.
        old = {(each["kind"], each["metadata"]["name"]): each for each in self.node.objects}
        new = [
            old[each["kind"], each["metadata"]["name"]] if each["kind"] == "Secret" else each
            for each in self.helm.render(self.values)
        ]
        self.node.apply([*new, *await secrets(self.lnd)])

    @property
    def said(self) -> str:
        """The sidecar's log."""
        return self.pod.containers["sidecar"].boxed.said

    async def ready(self) -> bool:
        """Whether the readiness probe passes."""
        return await self.pod.containers["sidecar"].passes("readinessProbe")


async def secrets(lnd: LndProcess) -> list[Object]:
    """What an operator bakes and puts into Secrets by `kubectl create secret generic … --from-file`."""
    files = {
        "lnd-tls": ("tls.cert", lnd.tls_path),
        "lnd-macaroon": ("sidecar.macaroon", await lnd.bake(NATIVE)),
    }
    return [
        {
            "kind": "Secret",
            "metadata": {"name": name},
            "data": {key: base64.b64encode(path.read_bytes()).decode()},
        }
        for name, (key, path) in files.items()
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def beside(
    helm: Helm, known: Mapping[str, Image], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Beside]:
    """All of it, ready."""
    folder = tmp_path_factory.mktemp("beside")
    extra = [f"--tlsextradomain={OUTSIDE}"]
    async with Network() as network, LndProcess("native", folder / "lnd", extra=extra) as lnd:
        objects = [*helm.render(BESIDE), *await secrets(lnd)]
        node = Node(folder, network, known, objects, hosts=[OUTSIDE])
        redis, pod = node.pod("StatefulSet", f"{NAME}-redis"), node.pod("Deployment", NAME)
        async with network.offered(RPC, lnd.rpc_port), redis, pod:
            yield Beside(helm, lnd, node, pod, BESIDE)


async def test_new_credentials_are_taken_without_a_restart(beside: Beside) -> None:
    """LND has a new certificate and another root key: the Secrets bring what is good while the pod runs."""
    pid = beside.pod.containers["sidecar"].boxed.pid
    assert await beside.ready()
    await beside.lnd.stop()
    of_network = beside.lnd.macaroon_path.parent
    for path in [*beside.lnd.directory.glob("tls.*"), *of_network.glob("*macaroon*")]:
        path.unlink()
    await beside.lnd.start()
    assert not await beside.ready()
    await beside.apply()
    await until(beside.ready)
    assert beside.pod.containers["sidecar"].boxed.pid == pid


async def test_a_new_limit_holds_without_a_restart(beside: Beside) -> None:
    """The ConfigMap with the live settings changes in the pod that runs."""
    sidecar = beside.pod.containers["sidecar"]
    pid = sidecar.boxed.pid
    await sidecar.ask("sidecar", "client", "add", "alice")
    await beside.apply(config__client__slots=3)

    async def allowed() -> bool:
        shown = json.loads(await sidecar.ask("sidecar", "client", "show", "alice", "--json"))
        return bool(shown["limits"]["slots"] == 3)

    await until(allowed)
    assert sidecar.boxed.pid == pid


@asynccontextmanager
async def on_another_machine(beside: Beside, known: Mapping[str, Image], folder: Path) -> AsyncIterator[Pod]:
    """The next pod of the same Deployment, ready: with ports of its own, and the same LND and Redis."""
    async with Network() as network, beside.node.network.forwarded(REDIS) as redis:
        node = Node(folder, network, known, list(beside.node.objects), hosts=[OUTSIDE])
        pod = node.pod("Deployment", NAME, "n3w5k")
        async with network.offered(RPC, beside.lnd.rpc_port), network.offered(REDIS, redis), pod:
            yield pod


async def asked(pod: Pod, *command: str) -> Any:
    """What the `sidecar` command prints in a pod, as JSON."""
    return json.loads(await pod.containers["sidecar"].ask("sidecar", *command, "--json"))


async def test_in_a_rolling_update_the_new_pod_stands_by_and_then_leads(
    beside: Beside, known: Mapping[str, Image], tmp_path: Path
) -> None:
    """It is ready while the old one leads, and names that one; payers are answered throughout, and once.

    `helm test`, which the Service has led to the new pod: its doctor says who leads, and its client waits
    until changes are taken there.
    """
    stage = Stage(beside.lnd)
    added = await asked(beside.pod, "client", "add", "carol")
    secret = os.urandom(32)
    request_path = paths.decode_path_list(bytes.fromhex(added["paths"]))[0]
    wallet = Wallet(secret, await stage.connect(secret), beside.lnd.node_id, request_path, Family.LDK)
    offer, _, invoice = await wallet.set_up()
    await wallet.link.close()
    async with (
        on_another_machine(beside, known, tmp_path) as new,
        new.node.pod("Pod", f"{NAME}-test-client") as test,
        Asking(await stage.payer(), offer, RATE) as asking,
    ):
        assert await stands_by(new) == beside.pod.name
        for probe in new.containers["sidecar"].probes:
            assert await new.containers["sidecar"].passes(probe), probe
        refused = await new.containers["sidecar"].boxed.exec("sidecar", "client", "add", "dave")
        assert refused.code == 1
        assert f"{beside.pod.name} leads, ask that one" in refused.err
        await until(lambda: was_refused(new, "RemoveClient"))
        async with new.node.pod("Pod", f"{NAME}-test-doctor") as doctor:
            await doctor.finish()
            found = doctor.containers["doctor"].boxed.said
        assert f"it stands by: {beside.pod.name} leads" in found
        # This LND has no chain.
        assert re.findall(r"^failure +(\S+)", found, flags=re.MULTILINE) == ["lnd.sync"]

        await asking.until_asked(RATE)
        async with asyncio.timeout(10):
            assert await beside.pod.delete() == {"sidecar": 0}
        await until(lambda: leads(new))
        await asking.until_asked(RATE)
        await asking.until_answered(5)
        assert (asking.unanswered(), asking.most()) == ([], 1)
        answers = {content for each in asking.asked.values() for _, content in each.answers}
        assert answers == {invoice}
        assert asking.slowest() < 2

        said = test.containers["client"].boxed
        assert await test.finish() == {"client": 0}, said.said
        await asked(new, "client", "add", "dave")
        await beside.pod.start()
        assert await stands_by(beside.pod) == new.name
        assert await new.delete() == {"sidecar": 0}
    # For whoever comes next.
    await until(lambda: leads(beside.pod))


async def stands_by(pod: Pod) -> str:
    """That it does; the name of the one that leads."""
    status = await asked(pod, "status")
    assert status["role"] == "stands by"
    return str(status["leader"])


async def was_refused(pod: Pod, call: str) -> bool:
    """Whether somebody has made that call over the port, and it was not for one that stands by."""
    said = pod.containers["sidecar"].boxed.said.splitlines()
    return any(call in line and "stands-by" in line and "tcp" in line for line in said)


async def leads(pod: Pod) -> bool:
    """Whether it does, by its own name."""
    status = await asked(pod, "status")
    return bool((status["role"], status["leader"]) == ("leads", pod.name))


async def test_a_deleted_pod_ends_well(beside: Beside) -> None:
    """With 0, and long before its grace is over."""
    async with asyncio.timeout(10):
        assert await beside.pod.delete() == {"sidecar": 0}
    await beside.pod.start()
