"""What the suites of client.py begin with, and ask again and again."""

import re
import sys
from contextlib import contextmanager

from grpc_health.v1 import health_pb2, health_pb2_grpc

from .backend import Backend
from .cases import EPOCH, equal
from .hub import DEADLINE_S, Hub
from .player import Player
from .stubs import pb

BINARY = sys.argv[1]
TOKEN = "a-token-of-sixteen-bytes-or-more"
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@contextmanager
def served(**variables):
    """A hub of its own, and a backend on it."""
    with Hub(BINARY, **variables) as hub, Backend(hub.control) as backend:
        yield hub, backend


def position(seq):
    return {"epoch": EPOCH, "seq": str(seq)} if seq else {"epoch": EPOCH}


def pushed(seq, **more):
    return {"position": position(seq), **more}


def enter(hub, backend, duel, user, role=pb.ROLE_PLAYER):
    """A player who is in the duel."""
    ticket = backend.call("IssueTicket", duel_id=duel, user_id=user, role=role).ticket
    player = Player(hub.edge, ticket)
    player.next("connected")
    return player


def push(tag, **fields):
    return pb.PushEventsRequest(tag=tag, push=fields)


def explained(failure, code, reason, fields):
    """The failure says what the manual says of every failure."""
    said = (failure.code, failure.reason, failure.fields, failure.domain)
    equal(said, (code, reason, fields, "duelhub"), failure.message)
    equal(failure.metadata["request_id"], failure.request_id, "request id in ErrorInfo and in x-request-id")
    equal(failure.request_id, REQUEST_ID, "x-request-id")


def up_to_synced(changes):
    told = [next(changes)]
    while not told[-1].HasField("synced"):
        told.append(next(changes))
    return told


@contextmanager
def watched_health(backend, service):
    stub = health_pb2_grpc.HealthStub(backend.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S)
    try:
        yield watch
    finally:
        watch.cancel()


def up_to_status(statuses, wanted):
    """It may lag behind /readyz, so its first word need not be its last."""
    while next(statuses).status != wanted:
        pass
