"""The benchmark measures the service's real work: what goes out is what a wallet and a payer can read."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.core import keys
from sidecar.core.paths import BlindedHop, BlindedPath, SciddirIntroduction
from tests.bench import __main__ as program
from tests.bench import core, core_report, ldk_server, questions
from tests.bench.common import Reach, Report, reach_table
from tests.bench.contestants import Answered, Operations, Sidecar, needed
from tests.bench.core import Case, WrongAnswer
from tests.bench.questions import Question, Stored
from tests.core.ldk_recordings import FILES, conversation

ROUNDS = 3


@pytest.fixture
def stored() -> Stored:
    """The recorded server, with the recorded invoice."""
    return questions.recorded(conversation(FILES[0]))


def check_figures(found: list[Case], contestants: set[str]) -> None:
    """Every contestant ran in every round, and the table and the JSON have them all."""
    for case in found:
        assert set(case.lanes) == contestants
        for lane in case.lanes.values():
            assert [len(times) for times in lane.rounds] == [2] * ROUNDS
            assert 0 < lane.microseconds(50) <= lane.microseconds(99)
    rows = [line for line in core_report.text(found).splitlines() if line.startswith(found[0].source)]
    assert len(rows) >= len(contestants)
    for figures in core_report.figures(found)["cases"]:
        assert set(figures["contestants"]) == contestants
        assert figures["answer_bytes"] in (1_366, 32_834)
        assert 0 < figures["ratios"]["sidecar / floor"] < 2


def test_every_recorded_and_made_case_is_measured_and_its_answers_are_right() -> None:
    """Both recordings, and every shape of reply path; the run itself opens an answer of each round."""
    found = core.measure([], ROUNDS, each=2)
    assert [(case.source, case.shape) for case in found] == [
        ("recorded from LDK 0.2.7", "announced-4"),
        ("recorded from LDK 0.2.7", "private-2"),
        *(("made here", shape) for shape in questions.SHAPES),
    ]
    check_figures(found, {"sidecar", "sidecar+signer", "floor"})
    assert {len(case.stored.invoice) for case in found} == {1_169}
    assert {case.bytes_out for case in found} == {32_834}


@pytest.mark.ldk
def test_ldks_server_answers_the_same_requests() -> None:
    """Both versions: the server's answers open with the wallet's and the payers' keys, and so do ours."""
    programs = [ldk_server.ensure(version) for version in ldk_server.VERSIONS]
    with ExitStack() as stack:
        found = [case for case in core.cases(stack, programs) if case.ldk is not None]
        asyncio.run(core.run(found, ROUNDS, each=2))
    assert [case.source for case in found[::3]] == ["LDK 0.2.7", "LDK 0.3.0-rc3"]
    check_figures(found, {"sidecar", "sidecar+signer", "floor", "ldk"})


def sent_for(stored: Stored, question: Question) -> Answered:
    """What our side sends."""

    async def one() -> Answered:
        sidecar = Sidecar(stored)
        await sidecar.start()
        _, answered = await sidecar.serve([sidecar.receive(question)])
        return answered

    return asyncio.run(one())


def test_an_answer_to_another_request_stops_the_run(stored: Stored) -> None:
    """The forwarded request, its reply path, the invoice, and to whom: all must be what was asked for."""
    question, other = questions.made(stored, "private-2", 2)
    answered = sent_for(stored, question)
    core.check(question, stored, answered)
    for changed in (
        replace(question, content=other.content),
        replace(question, reply_path=other.reply_path),
    ):
        with pytest.raises(WrongAnswer):
            core.check(changed, stored, answered)
    with pytest.raises(WrongAnswer):
        core.check(question, replace(stored, invoice=stored.invoice + b"\x01"), answered)
    with pytest.raises(WrongAnswer):
        core.check(question, stored, Answered(answered.answer, answered.forwarded))


def test_nothing_is_known_of_a_question_before_it_is_asked(stored: Stored) -> None:
    """Who made it, checked it or answered it before has left its points in the core's cache."""

    async def parsed() -> list[int]:
        sidecar = Sidecar(stored)
        await sidecar.start()
        asked = [sidecar.receive(question) for question in questions.made(stored, "private-2", 3)]
        found = []
        for _ in range(2):
            times, _ = await sidecar.serve(asked)
            assert len(times) == len(asked) - 1
            found.append(keys._point.cache_info().misses)
        return found

    once, again = asyncio.run(parsed())
    assert once == again > 3 * 5


def test_the_questions_of_a_case_are_all_different(stored: Stored) -> None:
    """What a server remembers of one payer must not help it with the next."""
    for shape in questions.SHAPES:
        asked = questions.made(stored, shape, 5)
        assert len({question.content for question in asked}) == 5
        assert len({question.reply_path.path_key for question in asked}) == 5


@pytest.mark.parametrize(
    ("node", "hops", "expected"),
    [
        (b"lnd", 2, Operations(products=5, public_keys=2)),
        (b"lnd", 4, Operations(products=7, public_keys=4)),
        (b"payer", 4, Operations(products=7, public_keys=5)),
        (SciddirIntroduction(1, 7), 2, Operations(products=5, public_keys=2)),
    ],
)
def test_the_floor_counts_an_ecdh_and_a_key_for_each_onion_hop(
    node: bytes | SciddirIntroduction, hops: int, expected: Operations
) -> None:
    """Two products open the request; LND's hop of the reply path costs one, and needs no onion layer."""
    hop = BlindedHop(b"blinded", b"data")
    reply, forward = BlindedPath(node, b"key", (hop,) * hops), BlindedPath(b"lnd", b"key", (hop,) * 2)
    assert needed(reply, forward, b"lnd") == expected


def test_the_command_prints_tables_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m tests.bench core --out FILE`, which `make bench OUT=` runs; what falls short is said."""
    monkeypatch.setattr(ldk_server, "VERSIONS", {})
    out = tmp_path / "bench.json"
    assert program.main(["core", "--quick", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "/ floor" in printed
    assert "coincurve" in printed
    assert '"coincurve"' in out.read_text()


def test_what_was_not_reached_is_said() -> None:
    """A figure on the wrong side of its bound, be that a least or a most."""
    found = [Reach("speed", 2, 2.5, at_least=True), Reach("cost", 1.1, 1.2), Reach("bytes", 2, 1.5)]
    lines = reach_table([Report("x", {}, "", found)]).splitlines()[1:]
    assert ["falls short" in line for line in lines] == [True, False, True]


def test_what_was_measured_before_a_run_went_wrong_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failure and Ctrl-C: no traceback, and the figures of the benchmarks before."""

    def fails(_: bool) -> Report:
        raise WrongAnswer("an answer to something else")

    def interrupted(_: bool) -> Report:
        raise KeyboardInterrupt

    monkeypatch.setitem(program.BENCHMARKS, "growth", lambda _: Report("growth", {"size": 7}, "a table"))
    for wrong, code in ((fails, 1), (interrupted, 130)):
        monkeypatch.setitem(program.BENCHMARKS, "core", wrong)
        out = tmp_path / f"{code}.json"
        assert program.main(["growth", "core", "wake", "--out", str(out)]) == code
        assert '"size": 7' in out.read_text()
        assert '"wake"' not in out.read_text()
    assert capsys.readouterr().err == "core: an answer to something else\n"


def test_the_command_says_which_vectors_it_misses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback: a line that names SIDECAR_VECTORS."""
    monkeypatch.setattr(ldk_server, "VERSIONS", {})
    monkeypatch.setenv("SIDECAR_VECTORS", str(tmp_path))
    monkeypatch.delenv("SIDECAR_VECTORS_REQUIRED", raising=False)
    assert program.main(["core", "--quick"]) == 1
    assert "SIDECAR_VECTORS" in capsys.readouterr().err
