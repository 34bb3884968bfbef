#!/bin/sh
# Makes the sidecar's credentials beside LND, in its image, and keeps them good: a copy of its certificate, and a macaroon for
# nothing more than what the sidecar calls (those of `sidecar macaroon-permissions`).
#
# LNDDIR: LND's directory. NETWORK, RPCSERVER: as lncli takes them. CREDENTIALS: the directory where they go.
# EVERY: seconds between two looks, once there is a macaroon.
set -eu
# Others than our group must never read them, not for a moment.
umask 027

MACAROON=$CREDENTIALS/sidecar.macaroon
CERTIFICATE=$CREDENTIALS/tls.cert
PERMISSIONS="
    /lnrpc.Lightning/GetInfo
    /lnrpc.Lightning/ListPeers
    /lnrpc.Lightning/ListChannels
    /lnrpc.Lightning/GetChanInfo
    /lnrpc.Lightning/GetNodeInfo
    /lnrpc.Lightning/ConnectPeer
    /lnrpc.Lightning/DisconnectPeer
    /lnrpc.Lightning/SubscribePeerEvents
    /lnrpc.Lightning/SubscribeCustomMessages
    /lnrpc.Lightning/SendCustomMessage
    /lnrpc.Lightning/SignMessage
    /signrpc.Signer/DeriveSharedKey
    /lnrpc.Lightning/SubscribeOnionMessages
    /lnrpc.Lightning/SendOnionMessage
"

say() {
    echo "credentials: $*"
    waiting=
}

waiting=
wait_for() {
    # What lasts is said once: it would fill the log.
    [ "$waiting" = "$*" ] || say "waiting: $*"
    waiting=$*
}

ask() {
    # An LND that hangs must not make us hang.
    timeout 30 lncli "--lnddir=$LNDDIR" "--network=$NETWORK" "--rpcserver=$RPCSERVER" "$@"
}

copy_certificate() {
    [ -s "$LNDDIR/tls.cert" ] || return 0
    cmp -s "$LNDDIR/tls.cert" "$CERTIFICATE" && return 0
    cp "$LNDDIR/tls.cert" "$CERTIFICATE.new" && mv "$CERTIFICATE.new" "$CERTIFICATE" && say "copied LND's certificate"
}

good() {
    [ -s "$MACAROON" ] && ask "--macaroonpath=$MACAROON" getinfo >/dev/null 2>&1
}

bake() {
    # LND up to 0.20 has no calls for onion messages, and bakes nothing for a call that it does not have.
    known=$(ask listpermissions) || return 1
    set --
    for uri in $PERMISSIONS; do
        case $known in *"\"$uri\""*) set -- "$@" "uri:$uri" ;; esac
    done
    ask bakemacaroon "--save_to=$MACAROON.new" --root_key_id=66 "$@" >/dev/null || return 1
    mv "$MACAROON.new" "$MACAROON" && say "baked the sidecar's macaroon"
}

look() {
    copy_certificate || return 1
    if good; then
        waiting=
        return 0
    fi
    answer=$(ask state 2>&1 | tr -s '\n ' ' ')
    case $answer in
        *_ACTIVE*) bake ;;
        *NON_EXISTING*) wait_for "LND has no wallet yet (lncli create)" ;;
        *'"LOCKED"'*) wait_for "LND's wallet is locked (lncli unlock)" ;;
        *) wait_for "LND: $answer" ;;
    esac
}

keep() {
    while :; do
        look || say "that failed, and is tried again"
        # Until there is one the sidecar waits for it.
        if [ -s "$MACAROON" ]; then sleep "${EVERY:-30}"; else sleep 2; fi
    done
}

# A shell minds a signal only between two commands, but at once while it waits for what runs in the background.
keep &
trap 'kill "$!"; exit 0' TERM INT
wait "$!"
