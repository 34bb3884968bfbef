"""The log: one event a line on stderr, for people or as JSON, whoever writes it.

Our own modules log events with structlog (`log.info("client added", client=name)`), libraries with
Python's logging; both go through the same processors and the same handler.
"""

import datetime as dt
import logging
import os
import re
import sys
import time
from typing import Any

import structlog
from structlog.dev import Column, ConsoleRenderer, KeyValueColumnFormatter, LogLevelColumnFormatter
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor

FORMATS = ("console", "json")

MASK = "***"
"""Stands for what must not be in a log."""

_SECRET_WORDS = frozenset(
    {
        *("authorization", "cookie", "invoice", "macaroon", "passphrase", "password"),
        *("preimage", "secret", "seed", "token", "url", "urls"),
    }
)

_PLAIN = re.compile(r"[^\s=\"'\x00-\x1f]+")

# --- processors ---------------------------------------------------------------------------------


def _stamp(_logger: Any, _method: str, event: EventDict) -> EventDict:
    now = dt.datetime.fromtimestamp(time.time(), dt.UTC)
    event["timestamp"] = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return event


def mask_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Hide the values of keys that name a secret: a last guard, for nobody should log one.

    A key is judged by its words (`redis_url`, `admin-token`). Numbers pass: `invoice_slot=3` says nothing.
    """
    for key, value in event.items():
        if isinstance(value, int | float | None):
            continue
        if key != "event" and not _SECRET_WORDS.isdisjoint(re.split(r"[^a-z]+", key.lower())):
            event[key] = MASK
    return event


_SHARED: tuple[Processor, ...] = (
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    _stamp,
    mask_secrets,
    structlog.processors.format_exc_info,
)

# --- forms --------------------------------------------------------------------------------------


def _one_line(value: object) -> str:
    # What a peer or a library says must not be able to make up lines, or to speak to a terminal.
    return "".join(each if each.isprintable() else " " for each in str(value))


def _shown(value: object) -> str:
    if isinstance(value, str) and value.isprintable() and _PLAIN.fullmatch(value):
        return value
    return repr(value)


def _console(colors: bool) -> Processor:
    """`2026-01-31T12:00:00.000Z info     sidecar.app: event key=value`, and a traceback below."""
    styles = ConsoleRenderer.get_default_column_styles(colors)
    levels = ConsoleRenderer.get_default_level_styles(colors)

    def column(style: str, *, postfix: str = "") -> KeyValueColumnFormatter:
        return KeyValueColumnFormatter(
            key_style=None, value_style=style, reset_style=styles.reset, value_repr=_one_line, postfix=postfix
        )

    pairs = KeyValueColumnFormatter(styles.kv_key, styles.kv_value, styles.reset, _shown)
    return ConsoleRenderer(
        columns=[
            Column("", pairs),
            Column("timestamp", column(styles.timestamp)),
            Column("level", LogLevelColumnFormatter(levels, reset_style=styles.reset)),
            Column("logger", column(styles.logger_name, postfix=":")),
            Column("event", column(styles.bright)),
        ],
        exception_formatter=structlog.dev.plain_traceback,
    )


def _indent_traceback(_logger: Any, _method: str, event: EventDict) -> EventDict:
    # An error may quote what a peer said: no line of it must look like an event.
    if "exception" in event:
        lines = str(event["exception"]).split("\n")
        event["exception"] = "\n".join(f"    {_one_line(line)}" for line in lines)
    return event


# --- setting up ---------------------------------------------------------------------------------


def route() -> None:
    """Let structlog's events go through Python's logging, whose level and handlers hold for them."""
    # Python would drop what is below the level too: filter_by_level only does so at once.
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_SHARED, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def setup(level: str, form: str = "console") -> None:
    """Log to stderr what is at least as grave as `level`, in one of FORMATS; replaces what was set up."""
    route()
    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    renderers = (
        [structlog.processors.JSONRenderer()] if form == "json" else [_indent_traceback, _console(colors)]
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=_SHARED, processors=[ProcessorFormatter.remove_processors_meta, *renderers]
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def set_level(level: str) -> None:
    """Log what is at least as grave as `level` from now on."""
    logging.getLogger().setLevel(level.upper())
