"""Who looks for `sidecar doctor`: this process, or the server at admin.address."""

import asyncio
from typing import TYPE_CHECKING

from sidecar import __version__, doctor, logs
from sidecar.adapters.admin_client import AdminClient
from sidecar.cli.commands import connect
from sidecar.config import Settings
from sidecar.core.diagnosis import Finding, Level
from sidecar.core.diagnosis_server import elsewhere, too_old, unreached
from sidecar.core.errors import ConfigError, OperatorError, ServerTooOld
from sidecar.core.webhooks import printable

if TYPE_CHECKING:
    from sidecar.rpc.sidecar.v1 import admin_pb2


def look(settings: Settings, egress: tuple[str, int] | None) -> list[Finding]:
    """All findings, for a process that does nothing else: the log is set up, and it blocks.

    `egress` is a host and port to connect to.
    """
    # What the adapters log would otherwise stand on stdout, between the findings.
    logs.setup("warning", settings.logformat)
    if settings.admin.address is not None:
        return _ask(settings, settings.admin.address, _written(egress))
    return asyncio.run(doctor.examine(settings, egress))


def _written(egress: tuple[str, int] | None) -> str:
    if egress is None:
        return ""
    host, port = egress
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ask(settings: Settings, place: str, egress: str) -> list[Finding]:
    """Let the server at `place` look at itself: LND's files and the data directory are there, not here."""
    try:
        with connect(settings) as server:
            return _asked(server, place, egress)
    except ConfigError as error:
        return [unreached(place, str(error), "change that setting")]
    except OperatorError as error:
        seen, _, advice = str(error).partition(": ")
        return [unreached(place, seen, advice)]


def _asked(server: AdminClient, place: str, egress: str) -> list[Finding]:
    version = printable(server.status().version)
    try:
        found = server.diagnose(egress).findings
    except ServerTooOld:
        return [too_old(place, version, __version__)]
    return [elsewhere(place, version, __version__), *map(_read, found)]


def _read(told: "admin_pb2.Finding") -> Finding:
    try:
        level = Level(told.level)
    except ValueError:  # of a later version
        level = Level.WARNING
    return Finding(printable(told.name), level, printable(told.seen), printable(told.advice))
