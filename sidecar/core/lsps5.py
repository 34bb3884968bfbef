"""LSPS5 (bLIP 55): the methods by which a client registers its webhooks, and their errors.

lsps0.list_protocols (bLIP 50) is here too: it is about LSPS5, the one protocol that we have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.core.errors import BadWebhook
from sidecar.core.lsps0 import Request, RpcError, invalid_params, method_not_found
from sidecar.core.webhooks import BadUrl, UnsupportedProtocol, Webhook, WebhookSet, WebhookTooLong

LIST_PROTOCOLS = "lsps0.list_protocols"
SET_WEBHOOK = "lsps5.set_webhook"
LIST_WEBHOOKS = "lsps5.list_webhooks"
REMOVE_WEBHOOK = "lsps5.remove_webhook"

TOO_LONG = 500
URL_PARSE_ERROR = 501
UNSUPPORTED_PROTOCOL = 502
TOO_MANY_WEBHOOKS = 503
APP_NAME_NOT_FOUND = 1010

NO_PRIOR_ACTIVITY = 1003
"""LDK's code for a peer that has no channel with its LSP; LDK's clients know it.

bLIP 50's own (1, "Client rejected") needs a `data` object, with which LDK 0.2's clients can't read
the answer at all.
"""

MOST_WEBHOOKS = 100
"""The largest limit a server may have for a node's webhooks, so that list_webhooks fits in a message."""

# Every parameter of ours is a required string.
_PARAMS: Mapping[str, tuple[str, ...]] = {
    LIST_PROTOCOLS: (),
    SET_WEBHOOK: ("app_name", "webhook"),
    LIST_WEBHOOKS: (),
    REMOVE_WEBHOOK: ("app_name",),
}

_REFUSALS: Mapping[type[BadWebhook], tuple[int, str]] = {
    WebhookTooLong: (TOO_LONG, "too_long"),
    BadUrl: (URL_PARSE_ERROR, "url_parse_error"),
    UnsupportedProtocol: (UNSUPPORTED_PROTOCOL, "unsupported_protocol"),
}


@dataclass(frozen=True, slots=True)
class Text:
    """A string parameter, and the bytes of it as it was written in the request."""

    value: str
    size: int


def params_of(request: Request) -> dict[str, Text]:
    """The parameters of a method of ours, all of them there. Raises RpcError -32601 and -32602."""
    names = _PARAMS.get(request.method)
    if names is None:
        # "Respond with a -32601 "Method not found" error, if it receives a request to call a
        # client-callable API `method` that it does not recognize."
        raise method_not_found()
    unrecognized = [name for name in request.params if name not in names]
    if unrecognized:
        # "Respond with a -32602 "Invalid params" error, described in a previous section with
        # `unrecognized` field in the `data` dictionary"
        raise invalid_params("Invalid params", unrecognized)
    params = {}
    for name in names:
        value = request.params.get(name)
        if not isinstance(value, str):
            raise invalid_params(f"Invalid params: {name} must be a string")
        params[name] = Text(value, request.sizes[name])
    return params


# --- results ------------------------------------------------------------------------------------


def protocols() -> dict[str, Any]:
    """The answer to list_protocols. "0 MUST NOT appear in the `protocols` array." (bLIP 50)."""
    return {"protocols": [5]}


def webhook_set(done: WebhookSet, most: int) -> dict[str, Any]:
    """The answer to set_webhook."""
    return {"num_webhooks": done.count, "max_webhooks": most, "no_change": done.no_change}


def webhook_list(webhooks: Sequence[Webhook], most: int) -> dict[str, Any]:
    """The answer to list_webhooks."""
    return {"app_names": [webhook.app_name for webhook in webhooks], "max_webhooks": most}


def webhook_removed() -> dict[str, Any]:
    """The answer to remove_webhook."""
    return {}


# --- errors -------------------------------------------------------------------------------------


def bad_webhook(error: BadWebhook) -> RpcError:
    """The error for a webhook that breaks a rule."""
    refusal = _REFUSALS.get(type(error))
    if refusal is None:
        return invalid_params(f"Invalid params: {error}")
    code, name = refusal
    return RpcError(code, f"{name}: {error}")


def too_many_webhooks(most: int) -> RpcError:
    """The error for one webhook more than a node may have.

    "The `data` object of the `error` response contains the field `max_webhooks`" (bLIP 55).
    """
    return RpcError(TOO_MANY_WEBHOOKS, "too_many_webhooks", {"max_webhooks": most})


def app_name_not_found() -> RpcError:
    """The error for a name that none of the node's webhooks has."""
    return RpcError(APP_NAME_NOT_FOUND, "app_name_not_found")


def no_prior_activity() -> RpcError:
    """The error for a peer that may not register."""
    return RpcError(
        NO_PRIOR_ACTIVITY,
        "This node has no channel with us, and is bound to no client of ours: it can't register webhooks",
    )
