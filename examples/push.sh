#!/usr/bin/env bash
# Pushes one event from a terminal and shows what the hub knows of the duel: examples/push.sh [DUEL [PAYLOAD]]
#
# Needs grpcurl (https://github.com/fullstorydev/grpcurl) and a hub on this machine: cargo run --release.
# CONTROL is the hub's control plane, CONTROL_TOKEN its token if it wants one.
set -euo pipefail
duel=${1:-77}
payload=${2:-'{"question":"Hello from the terminal"}'}

call() {
    # grpcurl puts the token in by itself: an argument would show in the list of processes.
    grpcurl -plaintext -expand-headers ${CONTROL_TOKEN:+-H 'authorization: Bearer ${CONTROL_TOKEN}'} \
        -d "$2" "${CONTROL:-127.0.0.1:50051}" "duelhub.v1.ControlService/$1"
}

# The payload is a text inside the request: its quotes and backslashes are escaped for that.
text=${payload//\\/\\\\}
text=${text//\"/\\\"}
# A push with a key may be repeated until it is answered. Another run of this script is another push.
call PushEvent "{\"duel_id\":$duel,\"payload_json\":\"$text\",\"idempotency_key\":\"$(date +%s%N)-$$\"}"
call GetDuel "{\"duel_id\":$duel}"
