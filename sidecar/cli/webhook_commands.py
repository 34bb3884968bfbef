"""What each `sidecar webhook` command does."""

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from sidecar.cli.command_line import Commands, NotWell
from sidecar.cli.commands import connect
from sidecar.cli.printing import as_json, span, table, utc
from sidecar.config import Settings
from sidecar.core.errors import BadWebhook
from sidecar.core.webhooks import printable

if TYPE_CHECKING:
    from sidecar.rpc.sidecar.v1 import admin_pb2


ARRIVED = "ok"
"""The outcome of a notification that its push service took."""


def register(top: Any, command: Commands) -> None:
    """Add the group to the command line."""
    hooks = command.group(top, "webhook", "where clients are notified")
    for name, run, text in (
        ("add", add, "register a webhook for a client that can't by itself"),
        ("list", list_webhooks, "a client's webhooks and last notifications"),
        ("test", test, "notify a client now, and tell what came of it"),
        ("pause", pause, "stop using a webhook"),
        ("resume", resume, "use a paused webhook again"),
        ("remove", remove, "forget a webhook"),
    ):
        made = command(hooks, name, run, text)
        made.add_argument("client", metavar="CLIENT", help="a name, a client id, or a node id")
        if name == "test":
            made.add_argument("app", metavar="APP", nargs="?", help="the webhook's name (default: all)")
        elif name != "list":
            made.add_argument("app", metavar="APP", help="the webhook's name")
        if name == "add":
            made.add_argument("url", metavar="URL", help="https://…; - reads it from standard input")


# Far more than a URL may have: what is longer is refused for its length.
_LINE = 65_536


def _typed_url() -> str:
    """A line from standard input: a URL holds a token, and so it shows in no list of processes."""
    try:
        return sys.stdin.buffer.readline(_LINE).decode().strip()
    except UnicodeDecodeError:
        raise BadWebhook("the webhook is no text in UTF-8") from None


def add(args: argparse.Namespace, settings: Settings) -> str:
    """Register a webhook for a client."""
    url = _typed_url() if args.url == "-" else args.url
    with connect(settings) as server:
        added = server.add_webhook(args.client, args.app, url)
    if args.json:
        return as_json({"num_webhooks": added.count, "no_change": added.no_change})
    if added.no_change:
        return f"webhook {printable(args.app)} of {args.client} was registered already"
    return (
        f"webhook {printable(args.app)} of {args.client} is registered: lsps5.webhook_registered goes to it"
    )


def _state(webhook: "admin_pb2.Webhook", now: int) -> str:
    if webhook.paused:
        return "paused"
    if webhook.paused_until > now:
        return f"keeps failing, tried again {span(webhook.paused_until - now)}"
    if webhook.failures:
        return f"failures in a row: {webhook.failures}"
    return "good" if webhook.announced else "not reached yet"


def _deliveries(deliveries: "list[admin_pb2.Delivery]") -> str:
    rows = [
        (utc(each.at_ms // 1000), printable(each.app_name), each.method, each.outcome, each.tries)
        for each in deliveries
    ]
    return table(("TIME", "APP", "METHOD", "OUTCOME", "TRIES"), rows)


def _delivery_json(delivery: "admin_pb2.Delivery") -> dict[str, object]:
    names = ("at_ms", "app_name", "method", "outcome", "tries")
    return {name: getattr(delivery, name) for name in names}


def list_webhooks(args: argparse.Namespace, settings: Settings) -> str:
    """A client's webhooks, and what became of its last notifications."""
    with connect(settings) as server:
        answer = server.webhooks(args.client)
    if args.json:
        names = ("app_name", "host", "registered_at", "announced", "failures", "paused_until", "paused")
        return as_json(
            {
                "node_id": answer.node_id,
                "webhooks": [{name: getattr(each, name) for name in names} for each in answer.webhooks],
                "deliveries": [_delivery_json(each) for each in answer.deliveries],
            }
        )
    now = int(time.time())
    rows = [
        (printable(each.app_name), each.host, utc(each.registered_at), _state(each, now))
        for each in answer.webhooks
    ]
    if rows:
        text = f"node {answer.node_id}\n\n{table(('APP', 'HOST', 'REGISTERED', 'STATE'), rows)}"
    else:
        text = (
            f"{args.client} has no webhook: its wallet registers one by LSPS5, or `sidecar webhook add` does"
        )
    return f"{text}\n\n{_deliveries(list(answer.deliveries))}" if answer.deliveries else text


def test(args: argparse.Namespace, settings: Settings) -> str:
    """Notify a client now, whatever holds notifications back. Raises NotWell when one did not arrive."""
    with connect(settings) as server:
        done = list(server.test_webhooks(args.client, args.app or "").deliveries)
    text = (
        as_json({"deliveries": [_delivery_json(each) for each in done]}) if args.json else _deliveries(done)
    )
    if any(each.outcome != ARRIVED for each in done):
        raise NotWell(text)
    return text


def pause(args: argparse.Namespace, settings: Settings) -> str:
    """Stop using a webhook."""
    return _set_paused(args, settings, paused=True)


def resume(args: argparse.Namespace, settings: Settings) -> str:
    """Use a webhook again."""
    return _set_paused(args, settings, paused=False)


def _set_paused(args: argparse.Namespace, settings: Settings, *, paused: bool) -> str:
    with connect(settings) as server:
        server.pause_webhook(args.client, args.app, paused=paused)
    if args.json:
        return as_json({"app_name": args.app, "paused": paused})
    return f"webhook {printable(args.app)} of {args.client} is {'paused' if paused else 'in use again'}"


def remove(args: argparse.Namespace, settings: Settings) -> str:
    """Forget a webhook."""
    with connect(settings) as server:
        server.remove_webhook(args.client, args.app)
    if args.json:
        return as_json({"removed": args.app})
    return f"webhook {printable(args.app)} of {args.client} is removed"
