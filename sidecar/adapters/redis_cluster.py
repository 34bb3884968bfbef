"""A Redis Cluster: each command goes to the master that has its key's slot.

Every change is within one slot, so it goes to one master, with WAIT and WAITAOF right behind it on the same
connection: redis-py's own cluster client would send them elsewhere. What redis-py knows of
clusters (slots of keys, CLUSTER SLOTS, redirections) is used from it.

A command that is answered MOVED was not executed: it is sent again, to whom it moved. So is one that is
answered TRYAGAIN, whose keys are in two places in the middle of their slot's move. One whose answer was lost
is not.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    InvalidResponse,
    MovedError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from sidecar.adapters.redis_masters import Argument, Command, OneMaster, unavailable
from sidecar.core.errors import StoreUnavailable

HostPort = tuple[str, int]
Range = tuple[int, int, HostPort]
"""The first slot, the last one, and the master that has them."""

TRIES = 9
"""How often a command is sent that is answered MOVED or TRYAGAIN."""

PAUSE = 0.01
"""Seconds before the third time, and twice as long before each more, so 1.3 s in all: nodes hear of a move
one by one, and keys move one after the other."""

LEARN_TIMEOUT = 1.0
"""Seconds for a node to say who has which slot; past it the next one is asked."""

MOST_TAGS = 1 << 17
"""Hash tags that are tried: enough to meet each of the 16,384 slots."""

KEYLESS = frozenset({"TIME", "WAIT", "WAITAOF", "SCAN"})
"""Commands of ours that have no key."""

SCRIPTED = frozenset({"EVALSHA", "EVAL", "EVALSHA_RO", "EVAL_RO"})
"""Commands whose first key stands behind the script and the number of keys."""


@dataclass(slots=True)
class _Part:
    """Commands that stay together: `places` is where they stand in what was asked for.

    `target`: where it was said to have moved.
    """

    slot: int
    places: list[int]
    target: HostPort | None = None


class ClusterMasters:
    """Masters of a Cluster; who has which slot is learnt from its nodes, and anew when they say MOVED."""

    clustered = True

    def __init__(self, seeds: Sequence[HostPort], connect: Callable[[str, int], OneMaster]) -> None:
        """`seeds`: nodes that are asked first, any of them will do."""
        self._seeds = list(seeds)
        self._connect = connect
        self._nodes: dict[HostPort, OneMaster] = {}
        self._ranges: Sequence[Range] = ()
        self._learning = asyncio.Lock()
        self._learnt = 0
        self._stale = True

    async def send(self, commands: Sequence[Command], *, atomic: bool = False) -> list[Any]:
        """One round trip to each master concerned, side by side; see redis_masters.Masters.

        Raises StoreUnavailable when any of them can't be asked.
        """
        replies: list[Any] = [None] * len(commands)
        waiting = _parts(commands)
        for attempt in range(TRIES):
            if attempt > 1:
                await asyncio.sleep(PAUSE * 2 ** (attempt - 2))
            if self._stale:
                await self._learn()
            waiting = await self._try(commands, waiting, replies, atomic=atomic)
            if not waiting:
                return replies
        raise StoreUnavailable(f"Redis: the Cluster is moving slot {waiting[0].slot}")

    async def each(self) -> Sequence[OneMaster]:
        """All masters, asked for anew. Raises StoreUnavailable also where a slot has none."""
        self._stale = True
        await self._learn()
        return [self._node(address) for address in sorted(self._masters())]

    async def probe_keys(self, key: str) -> Sequence[str]:
        """A key for each master: `key` with a hash tag behind it. Raises as `each` does."""
        if self._stale:
            await self._learn()
        masters = self._masters()
        found: dict[HostPort, str] = {}
        for number in range(MOST_TAGS):
            if len(found) == len(masters):
                break
            tag = str(number)
            found.setdefault(self._master(key_slot(tag.encode())), f"{key}:{{{tag}}}")
        return list(found.values())

    async def aclose(self) -> None:
        """Close the connections to all nodes."""
        nodes, self._nodes = self._nodes, {}
        await _close(nodes.values())

    # --- sending --------------------------------------------------------------------------------

    async def _try(
        self, commands: Sequence[Command], parts: Sequence[_Part], replies: list[Any], *, atomic: bool
    ) -> list[_Part]:
        """Send parts to their masters; returns those that must be sent again."""
        batches: dict[Any, tuple[HostPort, list[_Part]]] = {}
        for part in parts:
            master = part.target or self._master(part.slot)
            # MULTI takes one slot's keys at a time; without it, all of a master's go together.
            batches.setdefault(part.slot if atomic else master, (master, []))[1].append(part)

        async def run(master: HostPort, batch: Sequence[_Part]) -> None:
            places = [place for part in batch for place in part.places]
            answers = await self._ask(master, [commands[place] for place in places], atomic=atomic)
            for place, answer in zip(places, answers, strict=True):
                replies[place] = answer

        done = await asyncio.gather(*(run(*each) for each in batches.values()), return_exceptions=True)
        for failure in done:
            if failure is not None:
                raise failure
        return [part for part in parts if await self._was_refused(commands, part, replies, atomic=atomic)]

    async def _was_refused(
        self, commands: Sequence[Command], part: _Part, replies: list[Any], *, atomic: bool
    ) -> bool:
        """Whether a part must be sent again: its slot has moved, or is moving."""
        found = [replies[place] for place in part.places]
        self._stale |= any(isinstance(each, MovedError | ClusterDownError) for each in found)
        moved = next((each for each in found if isinstance(each, AskError)), None)
        if isinstance(moved, MovedError):
            part.target = self._named(moved, part)
            return True
        if moved is not None:
            if atomic:
                # A transaction is for one node: it waits until all of its keys are there.
                return True
            await self._follow(commands, part, replies, self._named(moved, part))
        return any(isinstance(replies[place], TryAgainError) for place in part.places)

    async def _ask(self, master: HostPort, commands: Sequence[Command], *, atomic: bool) -> list[Any]:
        try:
            return await self._node(master).pipe(commands, atomic=atomic)
        except (AskError, ClusterDownError) as error:
            # Of a transaction that was not executed: no command of it was.
            return [error] * len(commands)
        except (RedisError, OSError) as error:
            if not isinstance(error, ResponseError):
                # Perhaps another node is in its place by now.
                self._stale = True
            raise unavailable(error) from error

    def _named(self, redirection: AskError, part: _Part) -> HostPort:
        asked = part.target or self._master(part.slot)
        return _host(redirection.host, asked), int(redirection.port)

    async def _follow(
        self, commands: Sequence[Command], part: _Part, replies: list[Any], target: HostPort
    ) -> None:
        """Send a part to where its key is, in the middle of the move of its slot."""
        asked: list[Command] = []
        for place in part.places:
            asked += [("ASKING",)] if _key(commands[place]) is not None else []
            asked.append(commands[place])
        answers = iter(await self._ask(target, asked, atomic=False))
        for place in part.places:
            if _key(commands[place]) is not None:
                next(answers)
            replies[place] = next(answers)

    def _node(self, address: HostPort) -> OneMaster:
        if address not in self._nodes:
            self._nodes[address] = self._connect(*address)
        return self._nodes[address]

    def _master(self, slot: int) -> HostPort:
        for first, last, master in self._ranges:
            if first <= slot <= last:
                return master
        self._stale = True
        raise StoreUnavailable(f"Redis: no master of the Cluster has slot {slot}")

    def _masters(self) -> set[HostPort]:
        # What is kept in a slot without a master is away, though all masters that are there answer.
        if _covered(self._ranges) < REDIS_CLUSTER_HASH_SLOTS:
            self._stale = True
            raise StoreUnavailable("Redis: slots of the Cluster have no master")
        return {master for *_, master in self._ranges}

    # --- who has what ---------------------------------------------------------------------------

    async def _learn(self) -> None:
        """Ask who has which slot. Raises StoreUnavailable, whose cause is what a node answered."""
        before = self._learnt
        async with self._learning:
            if self._learnt != before:
                return
            found: list[tuple[Sequence[Range], set[HostPort]]] = []
            refused = failed = None
            for address in [*self._nodes, *(seed for seed in self._seeds if seed not in self._nodes)]:
                try:
                    found.append(await self._told(address))
                except (RedisError, OSError) as error:
                    failed = error
                    # It says so while a connection is set up, too; then it comes wrapped.
                    if isinstance(error.__cause__ or error, ResponseError | AuthenticationError):
                        refused = error
                # Next time the others are asked first: what this one says may be of the past.
                self._nodes[address] = self._nodes.pop(address)
                # One that was taken out of the Cluster, or has lost what it knew, tells of few slots or none.
                if found and _covered(found[-1][0]) == REDIS_CLUSTER_HASH_SLOTS:
                    break
            if not found:
                cause = refused or failed or RedisError("a Cluster without nodes")
                raise unavailable(cause) from cause
            await self._believe(*max(found, key=lambda each: _covered(each[0])))

    async def _told(self, asked: HostPort) -> tuple[Sequence[Range], set[HostPort]]:
        """What a node says to CLUSTER SLOTS: who has which slot, and all nodes. Raises redis-py's errors."""
        async with asyncio.timeout(LEARN_TIMEOUT):
            (answer,) = await self._node(asked).pipe([("CLUSTER SLOTS",)], atomic=False)
        if isinstance(answer, RedisError):
            raise answer
        try:
            return _read_slots(answer, asked)
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise InvalidResponse(f"an answer to CLUSTER SLOTS that can't be read: {error}") from error

    async def _believe(self, ranges: Sequence[Range], there: set[HostPort]) -> None:
        """Take that for true, and leave nodes that are gone."""
        self._ranges, self._stale = ranges, False
        self._learnt += 1
        gone = self._nodes.keys() - there - set(self._seeds)
        await _close([self._nodes.pop(address) for address in gone])


async def _close(nodes: Iterable[OneMaster]) -> None:
    # One that hangs is given up after a while, with an error that is of no use to anybody.
    await asyncio.gather(*(node.aclose() for node in nodes), return_exceptions=True)


def _read_slots(answer: Any, asked: HostPort) -> tuple[Sequence[Range], set[HostPort]]:
    ranges, there = [], {asked}
    for first, last, *nodes in answer:
        named = [
            (_host(None if host is None else host.decode(), asked), int(port)) for host, port, *_ in nodes
        ]
        if not 0 <= first <= last < REDIS_CLUSTER_HASH_SLOTS:
            raise ValueError(f"slots {first} to {last}")
        ranges.append((int(first), int(last), named[0]))
        there.update(named)
    return ranges, there


def _covered(ranges: Sequence[Range]) -> int:
    return sum(last - first + 1 for first, last, _ in ranges)


def _host(named: str | None, asked: HostPort) -> str:
    """A node's host; one that does not know its own says nothing, or `?`: it was asked there."""
    return asked[0] if named in (None, "", "?") else named


def _key(command: Command) -> Argument | None:
    if command[0] in KEYLESS:
        return None
    return command[3] if command[0] in SCRIPTED else command[1]


def _parts(commands: Sequence[Command]) -> list[_Part]:
    """What must stay together: each command with its keyless neighbours."""
    parts: list[_Part] = []
    leading: list[int] = []
    for place, command in enumerate(commands):
        key = _key(command)
        if key is not None:
            slot = key_slot(key if isinstance(key, bytes) else str(key).encode())
            parts.append(_Part(slot, [*leading, place]))
            leading = []
        elif parts:
            parts[-1].places.append(place)
        else:
            leading.append(place)
    # TIME alone: any master's clock will do.
    return parts or [_Part(0, leading)]
