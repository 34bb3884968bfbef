"""What a fuzzer needs to know of a decoder, and how its bytes become something with a structure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

NOTHING_MORE: Mapping[int, bytes] = {}


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder under test: `take` any bytes, and nothing but `may_raise` may come out of it.

    `seeds` makes inputs to begin with, always the same ones. `longest`: bytes of an input at most.
    """

    name: str
    what: str
    read: Callable[[bytes], object]
    may_raise: tuple[type[Exception], ...]
    seeds: Callable[[], Iterable[bytes]]
    longest: int = 4_096

    def take(self, data: bytes) -> None:
        """One input. Raises whatever the decoder should not have raised."""
        try:
            self.read(data)
        except self.may_raise:
            return


class Pieces:
    """A fuzzer's bytes, taken piece by piece; where they have come to an end, zeroes follow."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        return self._position < len(self._data)

    def take(self, size: int) -> bytes:
        """So many bytes, or what is left."""
        taken = self._data[self._position : self._position + size]
        self._position += size
        return taken

    def number(self, size: int = 1) -> int:
        """A number of so many bytes."""
        return int.from_bytes(self.take(size).ljust(size, b"\0"), "big")

    def some(self) -> bytes:
        """Bytes with their length before them."""
        return self.take(self.number(2))

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))

    def choice(self, among: Sequence[T]) -> T:
        """One of a few."""
        return among[self.number() % len(among)]


DELETE, REPLACE, SPLICE, TOKEN, STRANGE = range(5)
"""How a record is changed; see `edited`."""


def edited(
    records: Mapping[int, bytes], pieces: Pieces, tokens: Sequence[bytes], most: int = 8
) -> dict[int, bytes]:
    """The records with up to `most` changes, as the fuzzer says; in the order of their types.

    A change is one byte of DELETE … STRANGE, one that chooses the record, and what the change needs: a
    new value with its length, a position and the bytes that stand there, or the number of a token. A
    STRANGE one gives a type of its own, of 8 bytes.
    """
    found = dict(records)
    types = sorted(records)
    for _ in range(most):
        if not pieces:
            break
        how, type_ = pieces.number() % 5, pieces.choice(types)
        if how == DELETE:
            found.pop(type_, None)
        elif how == REPLACE:
            found[type_] = pieces.some()
        elif how == SPLICE:
            found[type_] = spliced(found.get(type_, b""), pieces)
        elif how == TOKEN:
            found[type_] = pieces.choice(tokens)
        else:
            type_ = pieces.number(8)
            found[type_] = pieces.some()
    return {type_: found[type_] for type_ in sorted(found)}


def spliced(value: bytes, pieces: Pieces) -> bytes:
    """The value with bytes of the fuzzer's written over it somewhere, or cut off there."""
    position = pieces.number(2) % (len(value) + 1)
    new = pieces.take(pieces.number())
    return value[:position] + new + value[position + len(new) :] if new else value[:position]
