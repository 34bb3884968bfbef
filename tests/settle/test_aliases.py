"""`protocol.option-scid-alias`: what can't be paid today, asserted so that we notice when it can."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness.asserting import SILENCE
from tests.harness.beside import LNDS
from tests.settle.build import Plan, town
from tests.settle.ledger import Finding, Ledger
from tests.settle.pair import HELD, RELEASE, Pair
from tests.settle.town import Town

pytestmark = [pytest.mark.settle, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


@pytest_asyncio.fixture(loop_scope="session", params=LNDS)
async def aliased(request: pytest.FixtureRequest, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Town]:
    """A town whose LND gives its private channels aliases."""
    name, flags = request.param, ["--protocol.option-scid-alias"]
    async with town(Plan(LNDS[name], f"{name}, aliases", flags), tmp_path, ledger) as made:
        yield made


async def test_payments_to_wallets_whose_paths_name_an_alias(aliased: Town) -> None:
    """LND 0.21 looks up no alias to forward an onion message: LDK 0.2 never hears what it is sent.

    A wallet misses held_htlc_available, a payer release_held_htlc. When this fails, LND has learnt it: say so
    in README. LDK 0.3 names nodes in these paths; in custom mode the sidecar forwards, which knows aliases.
    """

    async def play(pair: Pair) -> Finding:
        since = pair.wallet.mark()
        payment = await pair.pay()
        await payment.held()
        if aliased.lnd.kind == "custom" or (pair.wallet.version, pair.payer.version) == ("0.3", "0.3"):
            return await pair.settled(payment)
        if pair.wallet.version == "0.2":
            misses, what = pair.wallet.got(HELD, SILENCE, since=since), HELD
        else:
            await pair.wallet.sent(RELEASE, since=since)
            misses, what = pair.payer.got(RELEASE, SILENCE, since=payment.since), RELEASE
        with pytest.raises(AssertionError, match=f"{what}: 0 of 1"):
            await misses
        return await pair.unpaid(payment)

    await aliased.each("paths that name an alias", play)
