"""`sidecar config`: the settings as they hold, and where each comes from."""

import argparse
from typing import Any

from sidecar.cli.command_line import Commands
from sidecar.cli.printing import as_json, table
from sidecar.config import Loaded, Settings, shown
from sidecar.options import OPTIONS
from sidecar.settings import HIDDEN


def register(top: Any, command: Commands) -> None:
    """Add the command to the command line."""
    command(top, "config", show, "the settings as they hold here, and where each comes from")


def show(args: argparse.Namespace, settings: Settings) -> str:
    """Every setting with its value, but for secrets, its source, and whether it can change at run time."""
    loaded: Loaded = args.loaded
    values = shown(settings)
    if args.json:
        return as_json(_json(loaded, values))
    rows = [
        (
            option.name,
            values[option.name],
            loaded.origin(option.name).short,
            "yes" if option.reloadable else "",
        )
        for option in OPTIONS
    ]
    text = table(("SETTING", "VALUE", "FROM", "RELOADABLE"), rows)
    files = ", ".join(str(file) for file in loaded.files)
    return f"{text}\n\nfiles read: {files or 'none'}"


def _json(loaded: Loaded, values: dict[str, str]) -> dict[str, Any]:
    settings = {}
    for option in OPTIONS:
        origin, value = loaded.origin(option.name), values[option.name]
        settings[option.name] = {
            "value": None if value == HIDDEN else value,
            "hidden": value == HIDDEN,
            "from": origin.kind,
            "place": origin.place or None,
            "reloadable": option.reloadable,
        }
    return {"settings": settings, "files": [str(file) for file in loaded.files]}
