"""`make demo`: a static invoice served, and its sleeping wallet woken, in one terminal.

LND is simulated, or with `LND=native` (0.21) and `LND=custom` (0.20) a real one; the sidecar,
its embedded Redis, the wallet's and the payer's cryptography are always the real thing.
With `PAY=1` and a real LND, wallet and payer are LDK's own with real channels, and the wallet is paid.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence

from tests.demo import paid, served
from tests.demo.programs import built, needed
from tests.harness.building import BuildError
from tests.harness.lnd_process import Kind


async def run(kind: Kind | None, *, pay: bool) -> None:
    """Build what is needed for it, and tell the story; no kind is a simulated LND. Raises BuildError."""
    if kind is not None:
        for name, ensure in needed(kind, pay=pay):
            await built(name, ensure)
    if kind is not None and pay:
        await paid.run(kind)
    else:
        await served.run(kind)


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 when the whole story was told."""
    parser = argparse.ArgumentParser(
        prog="make demo",
        usage="make demo [LND=simulated|native|custom] [PAY=1]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--lnd", choices=("simulated", "native", "custom"), default="simulated")
    parser.add_argument("--pay", action="store_true", help="end with a payment; needs a real LND")
    chosen = parser.parse_args(arguments)
    kind: Kind | None = None if chosen.lnd == "simulated" else chosen.lnd
    if chosen.pay and kind is None:
        parser.error("PAY=1 needs a real LND, with channels to pay through: add LND=native (or LND=custom)")
    try:
        asyncio.run(run(kind, pay=chosen.pay))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
