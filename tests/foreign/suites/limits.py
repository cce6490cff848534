"""Limits: what happens at them."""

import re

from grpc import StatusCode

from support.backend import NARROW, Backend, failure_of, shown
from support.cases import equal
from support.scene import explained, push, served, up_to_synced
from support.stubs import pb


def limits(case):
    tight = {"ENGINE_MAX_DUELS": "2", "ENGINE_MAX_LOG_EVENTS": "2", "CONTROL_MAX_WATCHERS": "1",
             "CONTROL_MAX_PAYLOAD_BYTES": "64"}
    with served(**tight) as (_, backend):
        with case("as many duels as there may be"):
            for duel in (1, 2):
                equal(backend.call("OpenDuel", duel_id=duel).created, True, f"duel {duel}")
        for method, request in [("OpenDuel", {}), ("PushEvent", {}), ("CloseDuel", {"status": pb.DUEL_STATUS_FINISHED})]:
            with case(f"{method} of one duel too many"):
                _limited(backend.refused(method, {"duel_id": 3} | request), "ENGINE_MAX_DUELS")
        with case("PushEvents to one duel too many"):
            [answer] = backend.push_all([push(1, duel_id=3)])
            error = {"code": 8, "reason": "LIMIT_REACHED", "message": re.compile(".*ENGINE_MAX_DUELS.*")}
            equal(shown(answer.error), error, "error")
        with case("one watcher too many"), backend.watch() as changes:
            next(changes)
            _limited(backend.refused("WatchDuels", {}), "CONTROL_MAX_WATCHERS")
        with case("a payload over the node's own bound"):
            failure = backend.refused("PushEvent", {"duel_id": 1, "payload_json": '{"a":"' + "x" * 57 + '"}'})
            explained(failure, StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", ["payload_json"])
        with case("the log holds the newest events"):
            for _ in range(5):
                backend.call("PushEvent", duel_id=1)
            duel = backend.call("GetDuel", duel_id=1).duel
            equal((duel.oldest_seq, duel.position.seq), (4, 5), "oldest and newest seq")
    _slow_watcher(case)


def _limited(failure, limit):
    explained(failure, StatusCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED", [])
    equal(failure.metadata["limit"], limit, "limit in ErrorInfo")


def _slow_watcher(case):
    with case("a watcher who does not read is told that it missed something"), served() as (hub, backend):
        with Backend(hub.control, options=NARROW) as slow, slow.watch() as changes:
            up_to_synced(changes)
            count = 20_000
            answers = backend.push_all(push(0, duel_id=number) for number in range(1, count + 1))
            equal(sum(answer.HasField("pushed") for answer in answers), count, "pushes")
            failure = failure_of(lambda: [None for _ in changes])
            explained(failure, StatusCode.RESOURCE_EXHAUSTED, "WATCHER_TOO_SLOW", [])
