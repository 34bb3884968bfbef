"""The LND calls that the sidecar's macaroon must allow: one recipe per kind of LND.

There are two because BakeMacaroon refuses a URI that its LND does not have.
"""

from collections.abc import Sequence

COMMON = (
    "/lnrpc.Lightning/GetInfo",
    "/lnrpc.Lightning/ListPeers",
    "/lnrpc.Lightning/ListChannels",
    "/lnrpc.Lightning/GetChanInfo",
    "/lnrpc.Lightning/GetNodeInfo",
    "/lnrpc.Lightning/ConnectPeer",
    "/lnrpc.Lightning/DisconnectPeer",
    "/lnrpc.Lightning/SubscribePeerEvents",
    "/lnrpc.Lightning/SubscribeCustomMessages",
    "/lnrpc.Lightning/SendCustomMessage",
    "/lnrpc.Lightning/SignMessage",
    "/signrpc.Signer/DeriveSharedKey",
)
"""What every LND is asked for."""

NATIVE = (*COMMON, "/lnrpc.Lightning/SubscribeOnionMessages", "/lnrpc.Lightning/SendOnionMessage")
"""LND 0.21 and later, which handles onion messages itself."""

CUSTOM = COMMON
"""LND 0.20 and earlier, where onion messages are custom messages, as LSPS messages are everywhere."""

WARNING = (
    "Whoever holds this macaroon can pose as your node: DeriveSharedKey is all that the encryption "
    "between Lightning nodes asks of its key. Guard it as you guard admin.macaroon."
)


ROOT_KEY_ID = 66
"""Of the sidecar's macaroon alone, so that `lncli deletemacaroonid 66` makes a stolen one useless."""


def permissions(uris: Sequence[str]) -> list[str]:
    """`uris` as `lncli bakemacaroon` takes them."""
    return [f"uri:{uri}" for uri in uris]


def bake_command(uris: Sequence[str], network: str | None = None) -> str:
    """A ready command line that bakes a macaroon for just `uris`; lncli's own network without `network`."""
    lncli = f"lncli --network={network}" if network else "lncli"
    options = ["--save_to=sidecar.macaroon", f"--root_key_id={ROOT_KEY_ID}"]
    return " ".join([lncli, "bakemacaroon", *options, *permissions(uris)])
