"""LSPS5 (bLIP 55): what each method takes, what it answers, and the errors by their codes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.core import lsps5
from sidecar.core.errors import BadWebhook
from sidecar.core.lsps0 import (
    INVALID_PARAMS,
    MAX_PAYLOAD,
    METHOD_NOT_FOUND,
    RpcError,
    read_request,
    write_result,
)
from sidecar.core.lsps5 import Text, params_of
from sidecar.core.webhooks import (
    MAX_APP_NAME,
    BadUrl,
    UnsupportedProtocol,
    Webhook,
    WebhookSet,
    WebhookTooLong,
)

URL = "https://www.example.org/push?l=1234567890abcdefghijklmnopqrstuv&c=best"


def call(method: str, params: Any) -> dict[str, Text]:
    """The parameters of a request, read from its bytes."""
    request = {"jsonrpc": "2.0", "id": "6ba7b810", "method": method, "params": params}
    return params_of(read_request(json.dumps(request).encode()))


def refusal(method: str, params: Any) -> RpcError:
    """The error with which a request is refused."""
    with pytest.raises(RpcError) as caught:
        call(method, params)
    return caught.value


def test_set_webhook_takes_a_name_and_a_webhook() -> None:
    """Both are required strings, with their sizes as they were written."""
    params = call("lsps5.set_webhook", {"app_name": 'My "Client"', "webhook": URL})
    assert params == {"app_name": Text('My "Client"', 13), "webhook": Text(URL, len(URL))}


def test_the_other_methods_take_what_the_blips_say() -> None:
    """list_protocols and list_webhooks "takes no parameters `{}`", remove_webhook an app_name."""
    assert call("lsps0.list_protocols", {}) == {}
    assert call("lsps5.list_webhooks", {}) == {}
    assert call("lsps5.remove_webhook", {"app_name": "a"}) == {"app_name": Text("a", 1)}


@pytest.mark.parametrize(
    "method",
    ["", "lsps5", "lsps5.Set_webhook", "lsps5.webhook_registered", "lsps1.get_info", "lsps5.set_webhook "],
)
def test_an_unknown_method_is_not_found(method: str) -> None:
    """bLIP 50: "-32601 "Method not found" [...] that it does not recognize", whatever its params are."""
    error = refusal(method, {"app_name": 5})
    assert (error.code, error.data) == (METHOD_NOT_FOUND, None)


@pytest.mark.parametrize(
    ("method", "params", "unrecognized"),
    [
        ("lsps0.list_protocols", {"b": 1, "a": {}}, {"a", "b"}),
        ("lsps5.list_webhooks", {"app_name": "a"}, {"app_name"}),
        ("lsps5.remove_webhook", {"app_name": "a", "webhook": URL}, {"webhook"}),
        ("lsps5.set_webhook", {"app_name": "a", "webhook": URL, "": None}, {""}),
        ("lsps5.set_webhook", {"App_name": "a", "webhook": 5}, {"App_name"}),
    ],
)
def test_unrecognized_params_are_named(method: str, params: Any, unrecognized: set[str]) -> None:
    """They are "the parameter names that are not recognized by the LSP as valid for the RPC method"."""
    error = refusal(method, params)
    assert error.code == INVALID_PARAMS
    assert error.data is not None
    assert set(error.data["unrecognized"]) == unrecognized


@pytest.mark.parametrize("wrong", [None, 5, 1.5, True, [], ["a"], {}, {"a": "b"}])
@pytest.mark.parametrize("name", ["app_name", "webhook"])
def test_params_of_a_wrong_type_are_invalid(name: str, wrong: Any) -> None:
    """An invalid parameter "MUST include a `data` object" with `unrecognized`, though all were known."""
    error = refusal("lsps5.set_webhook", {"app_name": "a", "webhook": URL} | {name: wrong})
    assert (error.code, error.data) == (INVALID_PARAMS, {"unrecognized": []})


@pytest.mark.parametrize("params", [{}, {"app_name": "a"}, {"webhook": URL}])
def test_missing_params_are_invalid(params: dict[str, str]) -> None:
    """Both are required."""
    error = refusal("lsps5.set_webhook", params)
    assert (error.code, error.data) == (INVALID_PARAMS, {"unrecognized": []})


def test_results_have_the_fields_of_the_blips() -> None:
    """Each result as bLIP 50 and bLIP 55 show it, and nothing of a URL."""
    webhooks = [Webhook(name, URL, 0) for name in ("a", "b")]
    assert lsps5.protocols() == {"protocols": [5]}
    assert lsps5.webhook_set(WebhookSet(2, no_change=False), 4) == {
        "num_webhooks": 2,
        "max_webhooks": 4,
        "no_change": False,
    }
    assert lsps5.webhook_list(webhooks, 42) == {"app_names": ["a", "b"], "max_webhooks": 42}
    assert lsps5.webhook_removed() == {}


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (WebhookTooLong("x"), 500, "too_long: x"),
        (BadUrl("x"), 501, "url_parse_error: x"),
        (UnsupportedProtocol("x"), 502, "unsupported_protocol: x"),
        (BadWebhook("x"), INVALID_PARAMS, "Invalid params: x"),
    ],
)
def test_a_bad_webhook_has_the_code_of_its_rule(error: BadWebhook, code: int, message: str) -> None:
    """too_long 500, url_parse_error 501, unsupported_protocol 502: no `data` is defined for them."""
    refused = lsps5.bad_webhook(error)
    assert (refused.code, refused.message) == (code, message)
    assert (refused.data is None) == (code != INVALID_PARAMS)


def test_the_other_errors_have_their_codes() -> None:
    """too_many_webhooks 503 with `max_webhooks`, app_name_not_found 1010, and LDK's 1003."""
    assert (lsps5.too_many_webhooks(10).code, lsps5.too_many_webhooks(10).data) == (503, {"max_webhooks": 10})
    assert (lsps5.app_name_not_found().code, lsps5.app_name_not_found().data) == (1010, None)
    assert (lsps5.no_prior_activity().code, lsps5.no_prior_activity().data) == (1003, None)


def test_the_longest_list_fits_in_a_message() -> None:
    """As many webhooks as a server may allow, with names of 64 written bytes and the longest id."""
    names = ["\\" * (MAX_APP_NAME // 2)] * lsps5.MOST_WEBHOOKS
    listed = lsps5.webhook_list([Webhook(name, URL, 0) for name in names], lsps5.MOST_WEBHOOKS)
    assert len(write_result("a" * 255, listed)) < MAX_PAYLOAD
