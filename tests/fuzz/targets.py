"""All targets, in one table."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz import core_targets, edge_targets, redis_targets, service_target
from tests.fuzz.target import Target

CORPUS = Path(__file__).with_name("corpus")
"""A folder for each target; each file is an input, its name a part of its hash."""

TARGETS: tuple[Target, ...] = (
    *core_targets.TARGETS,
    *redis_targets.TARGETS,
    *edge_targets.TARGETS,
    *service_target.TARGETS,
)


def find(name: str) -> Target:
    """A target by name. Raises KeyError."""
    return {target.name: target for target in TARGETS}[name]


def corpus(target: Target) -> list[bytes]:
    """What is kept for a target, and its seeds."""
    kept = sorted(CORPUS.joinpath(target.name).glob("*"))
    return [*target.seeds(), *(path.read_bytes() for path in kept)]
