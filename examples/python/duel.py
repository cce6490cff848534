#!/usr/bin/env python3
"""A backend, whole: opens a duel, issues a ticket, pushes an event, repeats the push, watches the duel, closes it.

    python3 -m pip install -r requirements.txt
    python3 -m grpc_tools.protoc -I../../proto --python_out=. --pyi_out=. --grpc_python_out=. duelhub/v1/control.proto
    python3 duel.py [DUEL]

CONTROL is the hub's control plane, 127.0.0.1:50051 by default, and CONTROL_TOKEN its token if it wants one. The ticket that is
printed opens ws://127.0.0.1:8090/ws?ticket=<ticket>, once.
"""

import json
import os
import sys
import time
from pathlib import Path

import grpc

from duelhub.v1 import control_pb2 as pb
from duelhub.v1 import control_pb2_grpc as rpc

OPTIONS = [
    # Which calls are repeated, and when: examples/README.md says why these.
    ("grpc.service_config", Path(__file__).parent.with_name("service-config.json").read_text()),
    # A hub that restarts is back within a second. By default the wait between two connections grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A watch may be silent for long, and would not notice that the hub's machine is gone.
    ("grpc.keepalive_time_ms", 20_000),
]


def main():
    token = os.environ.get("CONTROL_TOKEN")
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(os.environ.get("CONTROL", "127.0.0.1:50051"), OPTIONS) as channel:
        # A duel's id is the backend's own, and is never used again: here the time, which will do for trying out.
        duel_id = int(sys.argv[1]) if sys.argv[1:] else time.time_ns() // 1_000_000
        play(rpc.ControlServiceStub(channel), metadata, duel_id)


def play(hub, metadata, duel_id):
    players = [pb.Participant(user_id=1001), pb.Participant(user_id=1002)]
    opened = hub.OpenDuel(pb.OpenDuelRequest(duel_id=duel_id, participants=players), metadata=metadata)
    print(f"duel {duel_id} is open, created just now: {opened.created}")

    # The ticket admits this user to this duel, once.
    issued = hub.IssueTicket(pb.IssueTicketRequest(duel_id=duel_id, user_id=1001), metadata=metadata)
    print(f"ticket of user 1001: {issued.ticket}")

    # With an idempotency key a push may be repeated after any failure, until there is an answer: it takes effect once.
    payload = json.dumps({"text": "Which planet is the third?"})
    push = pb.PushEventRequest(duel_id=duel_id, type="question", payload_json=payload, idempotency_key="question-1")
    for _ in range(2):
        pushed = hub.PushEvent(push, metadata=metadata)
        print(f"event {pushed.position.seq} is stored, a duplicate: {pushed.duplicate}")

    # A watch begins with the present state, ends that with `synced`, and then tells what changes.
    watch = hub.WatchDuels(pb.WatchDuelsRequest(duel_ids=[duel_id]), metadata=metadata)
    for event in watch:
        change = event.WhichOneof("change")
        print(f"watched: {change}")
        if change == "synced":
            hub.CloseDuel(pb.CloseDuelRequest(duel_id=duel_id, status=pb.DUEL_STATUS_FINISHED), metadata=metadata)
        if change == "closed":
            break
    watch.cancel()  # Leaving the loop does not end the call.

    # A call that fails has a code to decide by, and a text for people.
    try:
        hub.PushEvent(pb.PushEventRequest(duel_id=duel_id, idempotency_key="question-2"), metadata=metadata)
    except grpc.RpcError as error:
        print(f"refused: {error.code().name}, {error.details()}")


if __name__ == "__main__":
    main()
