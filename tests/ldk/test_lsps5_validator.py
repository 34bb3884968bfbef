"""LDK's validator of LSPS5 notifications, asked about signatures of a real LND.

Where LDK 0.2.7 and 0.3.0-rc3 depart from bLIP 55, the sidecar lives with it; when LDK changes, a test here
says so. In all that is asked here the two are of one mind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness.ldk_lsps5 import LdkLsps5, signature_of, signed_text
from tests.harness.lnd_process import LndProcess
from tests.ldk.build import VERSIONS

pytestmark = [pytest.mark.ldk, pytest.mark.asyncio(loop_scope="module")]

SECOND = "2026-11-22T10:52:58"
TIMESTAMP = f"{SECOND}.395+00:00"
BODY = '{"jsonrpc":"2.0","method":"lsps5.onion_message_incoming","params":{}}'


@pytest_asyncio.fixture(loop_scope="module", params=VERSIONS)
async def validator(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LdkLsps5]:
    """The validator of each LDK, with no connection to anybody."""
    async with LdkLsps5(request.param, tmp_path / "validator") as wallet:
        yield wallet


@pytest.mark.parametrize("method", ["lsps5.webhook_registered", "lsps5.onion_message_incoming"])
async def test_the_validator_accepts_what_lnd_signed(
    shared_lnd: LndProcess, validator: LdkLsps5, method: str
) -> None:
    """`….395+00:00`, and the zbase32 of LND's SignMessage: the form in which LDK prints a time."""
    body = f'{{"jsonrpc":"2.0","method":"{method}","params":{{}}}}'
    verdict = await validator.validate(
        shared_lnd.node_id, TIMESTAMP, await signature_of(shared_lnd, TIMESTAMP, body), body
    )
    assert (verdict.method, verdict.error) == (method, None)
    assert verdict.signed == signed_text(TIMESTAMP, body)


@pytest.mark.parametrize(
    ("header", "signed", "accepted"),
    [
        (".395+00:00", ".395+00:00", True),
        (".395Z", ".395Z", False),
        (".395Z", ".395+00:00", True),
        (".100+00:00", ".100+00:00", True),
        (".000+00:00", ".000+00:00", False),
        (".000Z", ".000Z", False),
        ("+00:00", "+00:00", True),
        ("Z", "Z", False),
        (".000+00:00", "+00:00", True),
        (".000Z", "+00:00", True),
    ],
)
async def test_the_validator_checks_the_time_as_it_prints_it_itself(
    shared_lnd: LndProcess, validator: LdkLsps5, header: str, signed: str, accepted: bool
) -> None:
    """A departure from bLIP 55, whose `….uuuZ` it never accepts; nor `.000`, which it does not print."""
    verdict = await validator.validate(
        shared_lnd.node_id, SECOND + header, await signature_of(shared_lnd, SECOND + signed, BODY), BODY
    )
    assert verdict.error == (None if accepted else "InvalidSignature")
    assert verdict.signed == signed_text(SECOND + header.replace("Z", "+00:00").replace(".000", ""), BODY)


async def test_the_validator_refuses_what_was_not_signed_so(
    shared_lnd: LndProcess, validator: LdkLsps5
) -> None:
    """Another node's id, another body, another time, a signature with one character changed."""
    signature = await signature_of(shared_lnd, TIMESTAMP, BODY)
    last = "y" if signature[-1] != "y" else "b"
    later = TIMESTAMP.replace("58", "59")
    other_body = BODY.replace("onion_message", "payment")
    for node_id, timestamp, signed, body in (
        (validator.node_id, TIMESTAMP, signature, BODY),
        (shared_lnd.node_id, later, signature, BODY),
        (shared_lnd.node_id, TIMESTAMP, signature, other_body),
        (shared_lnd.node_id, TIMESTAMP, signature[:-1] + last, BODY),
        (shared_lnd.node_id, TIMESTAMP, "", BODY),
    ):
        assert (await validator.validate(node_id, timestamp, signed, body)).error == "InvalidSignature"
    # None of these has made it refuse the real one.
    assert (await validator.validate(shared_lnd.node_id, TIMESTAMP, signature, BODY)).ok


async def test_the_validator_does_not_look_at_a_clock(shared_lnd: LndProcess, validator: LdkLsps5) -> None:
    """Whatever its age: bLIP 55 asks for the signature's check alone."""
    for year in ("2001", "2126"):
        timestamp = TIMESTAMP.replace("2026", year)
        assert (
            await validator.validate(
                shared_lnd.node_id, timestamp, await signature_of(shared_lnd, timestamp, BODY), BODY
            )
        ).ok


async def test_the_validator_knows_the_last_five_signatures(
    shared_lnd: LndProcess, validator: LdkLsps5
) -> None:
    """A notification that is sent twice must not be signed once only: the second is a replay."""
    signature = await signature_of(shared_lnd, TIMESTAMP, BODY)

    async def again(signature: str = signature, *, fresh: bool = False) -> str | None:
        return (await validator.validate(shared_lnd.node_id, TIMESTAMP, signature, BODY, fresh=fresh)).error

    assert await again() is None
    assert [await again(), await again(signature.upper())] == ["ReplayAttack"] * 2
    assert await again(fresh=True) is None
    for millis in range(1, 6):
        assert await again() == "ReplayAttack"
        other = f"{SECOND}.{millis:03}+00:00"
        assert (
            await validator.validate(
                shared_lnd.node_id, other, await signature_of(shared_lnd, other, BODY), BODY
            )
        ).ok
    assert await again() is None


async def test_the_validator_reads_the_body_and_checks_what_it_read(
    shared_lnd: LndProcess, validator: LdkLsps5
) -> None:
    """The body that is signed has to be the one that LDK would write: compact, `params` last."""
    spaced = BODY.replace(":", ": ")
    signature = await signature_of(shared_lnd, TIMESTAMP, spaced)
    assert (
        await validator.validate(shared_lnd.node_id, TIMESTAMP, signature, spaced)
    ).error == "InvalidSignature"
    signature = await signature_of(shared_lnd, TIMESTAMP, BODY)
    assert (await validator.validate(shared_lnd.node_id, TIMESTAMP, signature, spaced)).ok


@pytest.mark.parametrize(
    ("timestamp", "body", "expected"),
    [
        ("yesterday", BODY, "BadTimestamp"),
        ("2026-11-22T10:52:58.395", BODY, "BadTimestamp"),
        (TIMESTAMP, "{}", "BadBody"),
        (TIMESTAMP, BODY.replace("onion_message_incoming", "goodbye"), "BadBody"),
        (TIMESTAMP, BODY.replace(',"params":{}', ""), "BadBody"),
    ],
)
async def test_the_validator_is_not_even_asked_about_rubbish(
    validator: LdkLsps5, timestamp: str, body: str, expected: str
) -> None:
    """LDK's types for the time and the notification come before it; it knows no method of tomorrow's."""
    verdict = await validator.validate(validator.node_id, timestamp, "y" * 104, body)
    assert (verdict.error, verdict.signed) == (expected, None)
