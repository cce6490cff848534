"""What callers are told when the node stops."""

import queue

from grpc import StatusCode

from support.backend import failure_of
from support.cases import equal
from support.hub import DEADLINE_S
from support.scene import NOT_SERVING, SERVING, explained, push, served, up_to_status, up_to_synced, watched_health


def shutdown(case):
    with served() as (hub, backend):
        outgoing = queue.Queue()
        answers = backend.stub.PushEvents(iter(outgoing.get, None), timeout=DEADLINE_S)
        outgoing.put(push(1, duel_id=1))
        next(answers)
        with backend.watch(1) as changes, watched_health(backend, "") as statuses:
            up_to_synced(changes)
            up_to_status(statuses, SERVING)
            hub.ask_to_stop()
            with case("shutdown shows in health Watch"):
                up_to_status(statuses, NOT_SERVING)
            for name, call in [("WatchDuels", changes), ("PushEvents", answers)]:
                with case(f"shutdown ends {name}"):
                    explained(failure_of(lambda call=call: next(call)), StatusCode.UNAVAILABLE, "SHUTTING_DOWN", [])
        outgoing.put(None)
        with case("shutdown ends with status 0"):
            equal(hub.terminate(), 0, "status")
