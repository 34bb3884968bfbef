"""Every target takes its corpus, and hundreds of changed inputs: without the fuzzer, always the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import edge_targets, keep, service_target, targets
from tests.fuzz.keep import worth_keeping
from tests.fuzz.run import read_outcome
from tests.fuzz.target import DELETE, REPLACE, SPLICE, STRANGE, TOKEN, Pieces, Target, edited, spliced
from tests.fuzz.targets import CORPUS, TARGETS, corpus

CHANGED = 300
SEED = 66
MOST_OF_ALL = 300_000

EACH = pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])


@pytest.fixture(autouse=True)
def _still_served() -> Iterator[None]:
    """Whatever a test sent: who asks for an invoice afterwards gets it."""
    yield
    service_target.close()
    edge_targets.close()


@EACH
def test_the_corpus_brings_nothing_that_is_not_declared(target: Target) -> None:
    """What was once found, or leads far into a decoder, is tried on each run."""
    for data in corpus(target):
        _take(target, data)


@EACH
def test_changed_inputs_bring_nothing_that_is_not_declared(target: Target) -> None:
    """Bytes that are flipped, put in, taken out, doubled, or another input's."""
    chance = random.Random(SEED)
    known = corpus(target)
    for _ in range(CHANGED):
        _take(target, changed(chance, known)[: target.longest])


def _take(target: Target, data: bytes) -> None:
    try:
        target.take(data)
    except Exception as error:
        raise AssertionError(f"{target.name} on {data.hex()}: {error!r}") from error


def changed(chance: random.Random, known: list[bytes]) -> bytes:
    """One of the inputs, with a few changes."""
    data = chance.choice(known)
    for _ in range(chance.randint(1, 4)):
        at, size = chance.randint(0, len(data)), chance.choice((1, 1, 2, 4, 33))
        new = chance.choice(
            (
                chance.randbytes(size),
                bytes(size),
                b"\xff" * size,
                data[at : at + size],
                chance.choice(known)[at:],
            )
        )
        data = data[:at] + new + data[at + chance.choice((0, size)) :]
    return data


@EACH
def test_what_is_declared_is_declared_narrowly(target: Target) -> None:
    """No target may let through what any fault would raise."""
    assert not {Exception, BaseException, ValueError, TypeError, KeyError} & set(target.may_raise)


@EACH
def test_seeds_lead_somewhere(target: Target) -> None:
    """One at least is taken to its end, and they are the same each time."""
    seeds = list(target.seeds())
    assert _shape(seeds) == _shape(list(target.seeds()))
    accepted = 0
    for data in seeds:
        try:
            target.read(data)
        except target.may_raise:
            continue
        accepted += 1
    assert accepted


def _shape(seeds: list[bytes]) -> list[int]:
    return [len(seed) for seed in seeds]


def test_the_corpus_is_small_and_belongs_to_targets() -> None:
    """It is part of the repository."""
    assert sum(path.stat().st_size for path in CORPUS.glob("*/*")) < MOST_OF_ALL
    assert {path.name for path in CORPUS.iterdir()} <= {target.name for target in TARGETS}


def test_targets_are_found_by_name() -> None:
    """And no two have one."""
    assert [targets.find(target.name) for target in TARGETS] == list(TARGETS)


def test_what_is_kept_reaches_what_nothing_shorter_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the corpus stays small, however long the fuzzer ran."""
    wire = targets.find("wire")
    longer, shorter, same = b"\x01\x02\x00\x05", b"\x01\x01\x00", b"\x03\x01\x00"
    assert worth_keeping(wire, [longer, shorter, same, b""]) == [shorter]
    monkeypatch.setattr(keep, "CORPUS", tmp_path / "corpus")
    work = tmp_path / "work"
    work.mkdir()
    for number, data in enumerate((longer, shorter, b"\x01\x01\x00" + bytes(90))):
        work.joinpath(str(number)).write_bytes(data)
    assert keep.keep(wire, work, 80) == len(shorter)
    (kept,) = tmp_path.glob("corpus/wire/*")
    assert kept.read_bytes() == shorter


# --- pieces ---------------------------------------------------------------------------------------


def test_pieces_end_in_zeroes() -> None:
    """So that every input means something."""
    pieces = Pieces(b"\x01\x00\x02abc")
    assert (pieces.number(), pieces.some(), pieces.rest(), bool(pieces)) == (1, b"ab", b"c", False)
    assert (pieces.number(8), pieces.some(), pieces.choice("xy")) == (0, b"", "x")
    assert Pieces(b"\x01").number(2) == 256


@pytest.mark.parametrize(
    ("program", "found"),
    [
        (b"", {1: b"one", 2: b"two"}),
        (bytes([DELETE, 0]), {2: b"two"}),
        (bytes([REPLACE, 1, 0, 1]) + b"z", {1: b"one", 2: b"z"}),
        (bytes([SPLICE, 1, 0, 1, 1]) + b"z", {1: b"one", 2: b"tzo"}),
        (bytes([SPLICE, 1, 0, 1, 0]), {1: b"one", 2: b"t"}),
        (bytes([TOKEN, 0, 1]), {1: b"b", 2: b"two"}),
        (bytes([STRANGE, 0, *bytes(7), 9, 0, 1]) + b"n", {1: b"one", 2: b"two", 9: b"n"}),
        (bytes([DELETE, 0]) * 9, {2: b"two"}),
    ],
)
def test_records_are_changed_as_the_bytes_say(program: bytes, found: dict[int, bytes]) -> None:
    """Each sort of change, and never more than there may be."""
    assert edited({1: b"one", 2: b"two"}, Pieces(program), [b"a", b"b"]) == found


def test_a_value_is_written_over_or_cut_off() -> None:
    """Also behind its end."""
    assert spliced(b"abc", Pieces(b"\x00\x03\x02de")) == b"abcde"
    assert spliced(b"", Pieces(b"")) == b""


# --- what the fuzzer says -------------------------------------------------------------------------

SAID = """INFO: Seed: 7
#2\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 50Mb
#9\tNEW    cov: 12 ft: 14 corp: 2/3b lim: 4 exec/s: 0 rss: 50Mb L: 2/2 MS: 1 ChangeBit-
#512\tDONE   cov: 12 ft: 14 corp: 2/3b lim: 4 exec/s: 0 rss: 50Mb
Done 512 runs in 1 second(s)
"""


def test_an_outcome_tells_runs_and_coverage() -> None:
    """Before and after."""
    outcome = read_outcome(TARGETS[0], 0, SAID, [])
    assert (outcome.executions, outcome.began, outcome.reached, outcome.finding) == (512, 10, 12, "")
    assert "512 runs" in outcome.line()
    assert outcome.line().endswith("ok")


def test_a_finding_is_told_with_its_input(tmp_path: Path) -> None:
    """By its traceback; and an exit code is one, also where no input was kept."""
    kept = tmp_path / "wire-crash-1"
    kept.write_bytes(b"\x01\x02")
    said = "\n === Uncaught Python exception: ===\nValueError: x\nTraceback …\nINFO: Instrumenting\n" + SAID
    outcome = read_outcome(TARGETS[0], 77, said, [kept])
    assert "ValueError: x" in outcome.finding
    assert "Instrumenting" not in outcome.finding
    assert outcome.finding.endswith("0102")
    assert "FOUND" in outcome.line()
    assert "out of memory" in read_outcome(TARGETS[0], 71, "out of memory", []).finding
    assert read_outcome(TARGETS[0], 0, SAID, [kept]).finding


def test_a_run_that_tried_nothing_is_a_finding() -> None:
    """A fuzzer that did not start proves nothing."""
    assert read_outcome(TARGETS[0], 0, "", []).finding
