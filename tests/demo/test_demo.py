"""The demo: how its steps are told, what it refuses, and that its stories come to their end."""

import hashlib
import re
import threading
from pathlib import Path

import pytest

from tests.demo import paid, programs, served
from tests.demo.__main__ import main
from tests.demo.picture import COLUMNS, check_private, private_places
from tests.demo.programs import built, needed
from tests.demo.teller import Teller
from tests.harness.beside import LNDS
from tests.harness.building import BuildError
from tests.harness.lnd_process import Kind

NODE_ID = "02c9" + "1d" * 31


def test_a_node_id_is_told_by_its_first_sixteen_digits(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever else is as long stays whole."""
    Teller().say("LND", f"{NODE_ID}, {NODE_ID}0")
    assert capsys.readouterr().out.endswith(f" LND      {NODE_ID[:16]}…, {NODE_ID}0\n")


def test_a_long_step_is_folded_between_words_and_keeps_its_column(capsys: pytest.CaptureFixture[str]) -> None:
    """No line is wider than a picture of the demo is."""
    Teller().say("sidecar", "ready: " + "word " * 30 + "end")
    first, second = capsys.readouterr().out.splitlines()
    assert len(first) <= COLUMNS
    assert first.endswith(" word")
    assert len(second) - len(second.lstrip()) == first.index("ready")
    assert second.endswith("word end")


def test_a_payment_without_a_real_lnd_is_refused_with_exit_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is missing is said in the words of `make`, and nothing is told or built."""
    with pytest.raises(SystemExit) as ended:
        main(["--lnd", "simulated", "--pay"])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert not said.out
    assert "PAY=1 needs a real LND" in said.err
    assert "add LND=native" in said.err


def test_what_can_not_be_built_is_said_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without Go or Rust, as most machines are: exit code 1."""

    def ensure(_: str) -> Path:
        raise BuildError("Go is missing: install it")

    monkeypatch.setattr("tests.lnd.build.ensure", ensure)
    assert main(["--lnd", "native"]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "Go is missing: install it\n")


def test_only_a_payment_needs_rust() -> None:
    """Without one, a real LND is all that is built."""
    assert [name for name, _ in needed("custom", pay=False)] == ["LND 0.20"]
    names = [name for name, _ in needed("native", pay=True)]
    assert names == ["LND 0.21", "lncli", "btcd", "a wallet of LDK 0.2", "a payer of LDK 0.3"]


async def test_what_was_built_before_is_not_spoken_of(capsys: pytest.CaptureFixture[str]) -> None:
    """The story begins at once."""
    await built("LND 0.21", Path)
    assert not capsys.readouterr().out


async def test_a_build_is_announced_while_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes without a word would be taken for a demo that hangs."""
    said: list[str] = []
    announced = threading.Event()

    def say(text: str, **_: bool) -> None:
        said.append(text)
        announced.set()

    def ensure() -> Path:
        assert announced.wait(30)
        return Path()

    monkeypatch.setattr(programs, "PATIENCE", 0.01)
    monkeypatch.setattr("builtins.print", say)
    await built("LND 0.21", ensure)
    assert said == ["LND 0.21 is being built, this first time: that may take some minutes"]


def test_the_preimage_has_to_open_the_htlc() -> None:
    """It is told only when its hash is the payment's."""
    secret = bytes(range(32))
    detail = "PaymentSent {{ payment_id: None, payment_preimage: {}, payment_hash: {}, amount_msat: None }}"
    right = detail.format(secret.hex(), hashlib.sha256(secret).hexdigest())
    assert paid.preimage({"detail": right}) == secret.hex()
    for wrong in (detail.format(secret.hex(), secret.hex()), "PaymentSent { payment_id: None }"):
        with pytest.raises(AssertionError):
            paid.preimage({"detail": wrong})


@pytest.mark.parametrize(("msat", "told"), [(21_000_000, "21,000 sat"), (1_500, "1.5 sat"), (0, "0 sat")])
def test_an_amount_is_told_in_satoshi(msat: int, told: str) -> None:
    """With what is left over a whole one, if anything."""
    assert paid.sat(msat) == told


def check_story(told: str) -> None:
    """It ends as it should, tells nothing of this machine, and no line is too long."""
    assert re.search(r" done +the wallet slept, .*\n\Z", told)
    check_private(told.splitlines(), private_places())
    assert max(len(line) for line in told.splitlines()) <= COLUMNS


async def test_the_story_on_a_simulated_lnd_comes_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    """As `make demo` tells it."""
    await served.run(None)
    check_story(capsys.readouterr().out)


@pytest.mark.settle
@pytest.mark.parametrize("kind", LNDS.values())
async def test_the_story_of_a_payment_comes_to_its_end(
    kind: Kind, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `make demo LND=… PAY=1` tells it; the payment is in LND's own history."""
    await paid.run(kind)
    told = capsys.readouterr().out
    check_story(told)
    assert f"forwarded {paid.sat(paid.MSAT)}" in told
