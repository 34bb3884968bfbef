"""What a push service of the tests needs of the product's settings, and looks for in a notification."""

from sidecar.core import webhooks
from tests.harness import ln_signature
from tests.harness.push_service import Notification, PushService


def push_options(push: PushService) -> list[str]:
    """The settings of an operator whose own push service is on a private network."""
    return [
        "--lsps5.private_networks=127.0.0.0/8",
        f"--lsps5.ports={push.port}",
        f"--lsps5.cafile={push.ca_file}",
    ]


def check_signature(lnd_node_id: bytes, notification: Notification) -> str:
    """The method of a notification that LND signed. Raises AssertionError for any other."""
    timestamp = notification.headers["x-lsps5-timestamp"]
    text = webhooks.signed_text(timestamp, notification.body)
    assert ln_signature.signer(notification.headers["x-lsps5-signature"], text) == lnd_node_id
    assert notification.verb == "POST"
    methods = (webhooks.WEBHOOK_REGISTERED, webhooks.ONION_MESSAGE_INCOMING)
    (method,) = (each for each in methods if notification.body == webhooks.notification_body(each))
    return method
