"""LDK's own server as a contestant: the Rust program of tests/ldk/bench, optimised and kept in a cache."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sidecar.core import paths
from tests.bench.contestants import Answered
from tests.bench.questions import Question, Stored
from tests.core.ldk_recordings import LdkNode
from tests.harness.building import BuildError
from tests.ldk import build

VERSIONS = {"0.2.7": "0.2", "0.3.0-rc3": "0.3"}
"""LDK's version, and what tests/ldk/build.py calls it."""

SHAPES = ("private-2", "private-4", "announced-4")
"""The program's payers, as questions.SHAPES names them: compact paths need a channel."""

_HEADER = 35  # path_key ‖ u16 length of the packet


def ensure(version: str) -> Path:
    """The program with that LDK, built when it is not there yet (a minute at first). Raises BuildError."""
    return build.ensure(build.bench(VERSIONS[version]))


@dataclass(frozen=True, slots=True)
class Batch:
    """What the server did: nanoseconds for each request, and what went out for the last."""

    times: list[int]
    answered: Answered


class LdkServer:
    """A running program."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen(
            [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        told = self._ask("hello")
        self.version: str = told["version"]
        server, wallet = _node("server", told["server"]), _node("recipient", told["wallet"])
        self._payers = {shape: _node("payer", payer) for shape, payer in told["payers"].items()}
        self._asked: LdkNode = self._payers[SHAPES[0]]
        self.packet_bytes = 0
        self._server, self._wallet = server, wallet
        # Its invoice is known when it has served one.
        self._ask(f"make {SHAPES[0]} 1")
        served = self._ask("serve")
        forward_path = paths.decode_path(bytes.fromhex(served["forward_path"]))
        self.stored = Stored(server, wallet, bytes.fromhex(served["invoice"]), forward_path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def _ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise BuildError("LDK's server has ended; its last words are on stderr")
        return json.loads(answer)

    def make(self, shape: str, count: int) -> list[Question]:
        """Fresh requests of that shape's payer, opened with the server's keys."""
        self._asked = self._payers[shape]
        made = self._ask(f"make {shape} {count}")["messages"]
        self.packet_bytes = len(made[0]) // 2 - _HEADER
        return [self._question(bytes.fromhex(message)) for message in made]

    def _question(self, message: bytes) -> Question:
        payload, _ = self._server.open(message[: _HEADER - 2], message[_HEADER:])
        assert payload.reply_path is not None
        return Question(payload.content, payload.reply_path, self._asked)

    def serve(self) -> Batch:
        """Have it serve what was made last."""
        served = self._ask("serve")
        forwarded, answer = (bytes.fromhex(served[name]) for name in ("forwarded", "answer"))
        return Batch(
            served["nanoseconds"],
            Answered(_sent(self._wallet, forwarded), _sent(self._asked, answer)),
        )


def _node(name: str, keys: dict[str, str]) -> LdkNode:
    fields = ("node_id", "node_secret", "receive_auth_key")
    return LdkNode(name, *(bytes.fromhex(keys[field]) for field in fields))


def _sent(peer: LdkNode, message: bytes) -> tuple[bytes, bytes, bytes]:
    return peer.node_id, message[: _HEADER - 2], message[_HEADER:]
