"""`make picture-top`: a frame of `sidecar top` as a picture (SVG), for the README.

The view and the server are the real ones, on a simulated LND: wallets leave invoices and sleep, payers ask
for them, one payer asks too often, and the pushes go to a push service.
"""

import argparse
import asyncio
import io
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.terminal_theme import TerminalTheme

from sidecar.adapters.admin_client import AdminClient
from sidecar.cli.digest import Frame, History
from sidecar.cli.live import ask
from sidecar.cli.top import view
from sidecar.core import offers
from tests.demo.picture import check_private, private_places
from tests.harness.asserting import until
from tests.harness.push_service import PushService
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.stage import Stage, simulated
from tests.harness.waking import push_options
from tests.harness.wallet import Wallet, set_webhook

COLUMNS, ROWS = 100, 30
TIMEOUT = 60
"""Seconds after which it gives up."""
CLIENTS = {"alice": 1, "bakery": 3, "carol": 2, "kiosk": 1}
"""Who is served, and how many invoices each leaves."""
ASLEEP = ("alice", "kiosk")
FLOODED = "bakery"
ROUNDS = 12
"""How often each offer is asked for."""
PAUSE = 0.15
"""Seconds between two rounds: an offer may be asked for ten times a second."""
FLOOD = 40
"""How often one offer is asked for at a time: more than an offer's burst."""

# Only fonts that the reader's system has, so that nothing is fetched.
SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}">
<title>sidecar top</title>
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace;
  font-size: {char_height}px;
  line-height: {line_height}px
}}
.{unique_id}-title {{
  font-family: system-ui, 'DejaVu Sans', sans-serif;
  font-size: 16px
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""

# Background, text, and the eight colours twice: as the picture of the demo has them.
_NORMAL = [
    (13, 17, 23),
    (255, 123, 114),
    (126, 231, 135),
    (227, 210, 111),
    (121, 192, 255),
    (210, 168, 255),
    (86, 212, 221),
    (230, 237, 243),
]
THEME = TerminalTheme((13, 17, 23), (230, 237, 243), _NORMAL, _NORMAL)


SPACES = re.compile(r"(^ +| {2,}| +$)")
"""What stands between two texts, and not in one."""


# --- the world ----------------------------------------------------------------------------------


async def _leave_invoices(wallet: Wallet, count: int) -> list[str]:
    return [(await wallet.set_up(slot))[0] for slot in range(count)]


async def _ask_for(stage: Stage, offer_strings: Sequence[str]) -> None:
    payer = await stage.payer()
    for _ in range(ROUNDS):
        for text in offer_strings:
            await payer.get_invoice(text)
        await asyncio.sleep(PAUSE)
    await payer.link.close()


async def _flood(stage: Stage, offer_string: str) -> None:
    payer = await stage.payer()
    offer = offers.decode_offer(offer_string)
    for _ in range(FLOOD):
        await payer.send_request(offer)
    await payer.receive_answer(offer)
    await payer.link.close()


def _look(server: AdminClient, history: History) -> Frame:
    return history.add(ask(server))


async def _lived(stage: Stage, sidecar: SidecarProcess, push: PushService) -> Frame:
    """Some seconds of a server's life; what `sidecar top` would show at their end."""
    history = History()
    with AdminClient(sidecar.datadir) as server:
        wallets = {name: await stage.wallet(sidecar, name) for name in CLIENTS}
        served = {name: await _leave_invoices(wallets[name], count) for name, count in CLIENTS.items()}
        for name in ASLEEP:
            await set_webhook(wallets[name].link, name, push.url())
            await push.next(TIMEOUT)
            await wallets[name].link.close()
        await asyncio.to_thread(_look, server, history)
        await asyncio.gather(*(_ask_for(stage, texts) for texts in served.values()))
        await _flood(stage, served[FLOODED][0])
        for _ in ASLEEP:
            await push.next(TIMEOUT)
        # One of them comes, and finds what waited for it.
        woken = wallets[ASLEEP[0]]
        woken.link = await stage.connect(woken.secret)
        await woken.receive_invoice_request()

        async def delivered() -> bool:
            return (await sidecar.counters()).get("mail.sent", 0) > 0

        await until(delivered, TIMEOUT)
        return await asyncio.to_thread(_look, server, history)


async def frame() -> Frame:
    """What `sidecar top` would show of a server in a world of its own."""
    with tempfile.TemporaryDirectory(prefix="sis-top-") as folder:
        base = Path(folder)
        async with (
            simulated(base / "lnd", "native") as stage,
            PushService(base) as push,
            SidecarProcess(base / "sidecar", stage.lnd, options=push_options(push)) as sidecar,
            asyncio.timeout(TIMEOUT),
        ):
            return await _lived(stage, sidecar, push)


# --- the picture --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Words:
    """A renderable in pieces without spaces that matter: some readers of SVG drop those."""

    whole: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.whole, options):
            for words in SPACES.split(segment.text):
                yield Segment(words, segment.style)


def draw(seen: Frame) -> str:
    """The picture of a frame, as SVG. Ends the program if a path of this machine would be seen in it."""
    console = Console(
        record=True,
        width=COLUMNS,
        height=ROWS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(_Words(view(seen, 0, COLUMNS, ROWS, hint="q ends")))
    check_private(console.export_text(clear=False).splitlines(), private_places())
    return console.export_svg(
        title="sidecar top", theme=THEME, code_format=SVG, font_aspect_ratio=0.6, unique_id="top"
    )


def main(arguments: Sequence[str]) -> int:
    """Let a server live, and write its picture."""
    parser = argparse.ArgumentParser(prog="python -m tests.demo.top_picture", description=__doc__)
    parser.add_argument("picture", type=Path, metavar="OUT.svg", help="the file to write")
    chosen = parser.parse_args(arguments)
    picture = draw(asyncio.run(frame()))
    chosen.picture.parent.mkdir(parents=True, exist_ok=True)
    chosen.picture.write_text(picture, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
