"""PushEvents: the stream of pushes, pipelined."""

import queue

from grpc import StatusCode

from support.backend import NARROW, Backend, shown
from support.cases import equal
from support.hub import DEADLINE_S, until
from support.scene import push, pushed, served
from support.stubs import pb

# A thousand pushes with these in their midst: place, push, error.
MISFITS = {
    100: (push(700, duel_id=1, type="Not A Type"), {"code": 3, "reason": "INVALID_FIELD", "field": "type"}),
    300: (pb.PushEventsRequest(tag=2100), {"code": 3, "reason": "INVALID_FIELD", "field": "push"}),
    500: (push(3500, duel_id=2), {"code": 9, "reason": "DUEL_CLOSED"}),
    501: (push(3507, duel_id=0), {"code": 3, "reason": "INVALID_FIELD", "field": "duel_id"}),
    700: (push(4900, duel_id=3, idempotency_key="k", type="other"), {"code": 6, "reason": "IDEMPOTENCY_KEY_REUSED"}),
    900: (push(6300, duel_id=1, audience={"only": {"user_ids": [0]}}),
          {"code": 3, "reason": "INVALID_FIELD", "field": "audience.only.user_ids[0]"}),
}


def stream(case):
    with served() as (hub, backend):
        _pipelined(case, backend)
        _one_by_one(case, backend)
        _too_large(case, backend)
        _unread(case, hub)


def _pipelined(case, backend):
    backend.call("CloseDuel", duel_id=2, status=pb.DUEL_STATUS_FINISHED)
    backend.call("PushEvent", duel_id=3, idempotency_key="k")
    sent = [push(7 * at, duel_id=1, payload_json=f'{{"at":{at}}}') for at in range(1000)]
    for at, (misfit, _) in MISFITS.items():
        sent[at] = misfit
    with case("PushEvents answers 1000 pushes sent at once"):
        answers = list(backend.push_all(sent))
        equal([answer.tag for answer in answers], [7 * at for at in range(1000)], "tags, in the order sent")
        stored = [answer.pushed.position.seq for at, answer in enumerate(answers) if at not in MISFITS]
        equal(stored, list(range(1, 1001 - len(MISFITS))), "seqs, dense")
    for at, (_, error) in MISFITS.items():
        with case(f"PushEvents answers push {at} with {error['reason']}, and goes on"):
            equal(shown(answers[at].error), error | {"message": str}, "error")


def _one_by_one(case, backend):
    with case("PushEvents answers each push while the stream is open"):
        outgoing = queue.Queue()
        answers = backend.stub.PushEvents(iter(outgoing.get, None), timeout=DEADLINE_S)
        # Two pushes of one key and one tag: the tag need not be unique, and 0 is fine.
        for wanted in (pushed(1), pushed(1, duplicate=True)):
            outgoing.put(push(0, duel_id=4, idempotency_key="k"))
            equal(shown(next(answers).pushed), wanted, "answer")
        outgoing.put(None)
        equal((list(answers), answers.code()), ([], StatusCode.OK), "the end")


def _too_large(case, backend):
    with case("PushEvents answers a push that is far too large, and goes on"):
        sent = [push(1, duel_id=5), push(2, duel_id=5, payload_json='{"a":"' + "x" * 2**20 + '"}'), push(3, duel_id=5)]
        answers = list(backend.push_all(sent))
        equal([(answer.tag, answer.error.code) for answer in answers], [(1, 0), (2, 3), (3, 0)], "answers")


def _unread(case, hub):
    with case("a sender who takes no answers holds up nobody else, and loses none"):
        count = 20_000
        with Backend(hub.control, options=NARROW) as sender, Backend(hub.control) as other:
            answers = sender.push_all(push(tag, duel_id=6) for tag in range(count))
            until(lambda: 6 in {duel.duel_id for duel in other.call("ListDuels").duels}, "the stream to be under way")
            for _ in range(100):
                other.call("PushEvent", duel_id=7)
            equal([answer.tag for answer in answers], list(range(count)), "tags")
