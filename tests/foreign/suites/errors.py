"""What every failure says, and the id that every answer has."""

from grpc import StatusCode

from suites import refusals
from support.backend import SERVICE, failure_of
from support.cases import equal
from support.hub import DEADLINE_S, until
from support.scene import REQUEST_ID, explained, served
from support.stubs import pb


def errors(case):
    with served() as (_, backend):
        refusals.prepare(backend)
        for (method, request), field in refusals.FIELDS:
            with case(f"{method} {str(request)[:120]} names {field}"):
                failure = backend.refused(method, request)
                explained(failure, StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", [field])
        for (method, request), code, reason in refusals.STATES:
            with case(f"{method} {request} is {reason}"):
                explained(backend.refused(method, request), code, reason, [])
        for method, request in refusals.ALLOWED:
            with case(f"{method} {str(request)[:120]} is within the bounds"):
                backend.call(method, **request)
        with case("WatchDuels of 1000 duels is within the bounds"), backend.watch(*range(10_001, 11_001)) as changes:
            equal(next(changes).synced.duels, 0, "duels")
        for method, body in refusals.UNREADABLE:
            with case(f"{method} with the bytes {body!r}"):
                _unreadable(backend, method, body)


def _unreadable(backend, method, body):
    call = backend.channel.unary_unary(f"/{SERVICE.full_name}/{method}")
    failure = failure_of(lambda: call(body, timeout=DEADLINE_S))
    equal((failure.code, failure.reason), (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"), failure.message)


ADOPTED = ["a", "Trace-1.a_B", "x" * 64]
REPLACED = ["", "x" * 65, "two words", "semi;colon", "quote\""]


def request_ids(case):
    with served() as (hub, backend):
        for sent in ADOPTED + REPLACED:
            for name, ask in [("an answer", _answered_id), ("a failure", _failed_id), ("a stream", _streamed_id),
                              ("an unknown call", _unknown_call_id)]:
                with case(f"x-request-id {sent!r} in {name}"):
                    got = ask(backend, [("x-request-id", sent)])
                    equal(got, REQUEST_ID, "id")
                    equal(got == sent, sent in ADOPTED, f"adopted: {got!r}")
        with case("an answer has a request id of its own"):
            equal(len({_answered_id(backend, []) for _ in range(10)}), 10, "different ids")
        with case("the log has the request id"):
            _answered_id(backend, [("x-request-id", "find-me-in-the-log")])
            until(lambda: any("find-me-in-the-log" in line for line in hub.log()), "a line with the id")


def _answered_id(backend, metadata):
    return backend.answer("GetNode", {}, metadata)[1].get("x-request-id")


def _failed_id(backend, metadata):
    failure = backend.refused("GetDuel", {"duel_id": 1}, metadata)
    equal(failure.metadata["request_id"], failure.request_id, "id in ErrorInfo")
    return failure.request_id


def _streamed_id(backend, metadata):
    call = backend.stub.WatchDuels(pb.WatchDuelsRequest(), metadata=metadata, timeout=DEADLINE_S)
    got = dict(call.initial_metadata()).get("x-request-id")
    call.cancel()
    return got


def _unknown_call_id(backend, metadata):
    call = backend.channel.unary_unary(f"/{SERVICE.full_name}/NoSuchCall")
    failure = failure_of(lambda: call(b"", metadata=metadata, timeout=DEADLINE_S))
    equal(failure.code, StatusCode.UNIMPLEMENTED, "code")
    return failure.request_id
