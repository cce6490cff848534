#!/usr/bin/env bash
# A backend, whole, in curl: opens a duel, issues a ticket, pushes an event, repeats the push, watches the duel, closes it.
#
#     examples/curl/duel.sh [DUEL]
#
# CONTROL is the hub's control plane, 127.0.0.1:50051 by default, and CONTROL_TOKEN its token if it wants one. The ticket that is
# printed opens ws://127.0.0.1:8090/ws?ticket=<ticket>, once.
set -euo pipefail
service=http://${CONTROL:-127.0.0.1:50051}/duelhub.v1.ControlService
# A duel's id is the backend's own, and is never used again: here the time, which will do for trying out.
duel=${1:-$(date +%s)}

# The token comes by a file that curl reads: an argument would show in the list of processes.
token() { [ -z "${CONTROL_TOKEN:-}" ] || printf 'header = "Authorization: Bearer %s"\n' "$CONTROL_TOKEN"; }

# $1: the call; $2: its request. Prints the answer, and fails if that is an error. While the hub is away the call is repeated, which all
# calls but Disconnect may be.
call() {
    local pause answer
    for pause in 0.2 0.5 1 2 0; do
        answer=$(curl --silent --show-error --max-time 5 --config <(token) --header 'Content-Type: application/json' --data "$2" \
            "$service/$1") && [[ $answer != '{"code":"unavailable"'* ]] && break
        sleep "$pause"
    done
    echo "$answer"
    [[ $answer && $answer != '{"code":'* ]]
}

call OpenDuel "{\"duelId\":$duel,\"participants\":[{\"userId\":1001},{\"userId\":1002}]}"
call IssueTicket "{\"duelId\":$duel,\"userId\":1001}"

# With an idempotency key a push may be repeated after any failure, until there is an answer: it takes effect once.
push="{\"duelId\":$duel,\"type\":\"question\",\"payload\":{\"text\":\"Which planet is the third?\"},\"idempotencyKey\":\"question-1\"}"
call PushEvent "$push"
call PushEvent "$push"

# A stream carries messages in envelopes: one byte of flags, four of length, then the JSON. $1: the JSON.
envelope() {
    local length
    length=$(printf '%08x' "${#1}")
    printf "\\x00\\x${length:0:2}\\x${length:2:2}\\x${length:4:2}\\x${length:6:2}%s" "$1"
}

# Prints the JSON of the next envelope on standard input; nothing at the end. The last one tells how the stream ended.
message() {
    local flags a b c d
    read -r flags a b c d < <(dd bs=1 count=5 2>/dev/null | od -An -tu1) || return 0
    dd bs=1 count=$(((a << 24) + (b << 16) + (c << 8) + d)) 2>/dev/null
}

# A watch begins with the present state, ends that with `synced`, and then tells what changes.
exec 3< <(exec curl --silent --show-error --no-buffer --config <(token) --header 'Content-Type: application/connect+json' \
    --data-binary @<(envelope "{\"duelIds\":[$duel]}") "$service/WatchDuels")
watch=$!
trap 'kill "$watch" 2>/dev/null || true' EXIT
while change=$(message <&3) && [ -n "$change" ]; do
    echo "$change"
    case $change in
    *'"synced":'*) call CloseDuel "{\"duelId\":$duel,\"status\":\"DUEL_STATUS_FINISHED\"}" ;;
    *'"closed":'*) break ;;
    esac
done

# A call that fails has a code and a reason to decide by, and a text for people.
call PushEvent "{\"duelId\":$duel,\"idempotencyKey\":\"question-2\"}" || echo "refused"
