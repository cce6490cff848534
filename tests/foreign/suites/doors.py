"""The bearer token, at every way in."""

from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from suites.node import REFLECTIONS, ask
from support.backend import Backend, bearer, failure_of
from support.cases import equal
from support.hub import DEADLINE_S, Hub
from support.scene import BINARY, TOKEN, explained, push
from support.stubs import pb


def bearer_token(case):
    with Hub(BINARY, CONTROL_TOKEN=TOKEN) as hub:
        with Backend(hub.control, bearer(TOKEN)) as backend:
            for name, knock in _doors(backend):
                with case(f"token: {name} with the right one"):
                    knock()
        for metadata in ([], bearer(""), bearer(TOKEN + "x"), bearer(TOKEN[:-1]), [("authorization", TOKEN)]):
            with Backend(hub.control, metadata) as backend:
                for name, knock in _doors(backend):
                    with case(f"token: {name} with {metadata}"):
                        explained(failure_of(knock), StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", [])
        with case("no token shows in the log"):
            equal(TOKEN in "\n".join(hub.log()), False, "token in the log")


def _doors(backend):
    """One call of every kind: unary, stream of pushes, watch, health, reflection."""
    health, check = health_pb2_grpc.HealthStub(backend.channel), health_pb2.HealthCheckRequest()
    more = {"metadata": backend.metadata, "timeout": DEADLINE_S}
    return [
        ("GetNode", lambda: backend.call("GetNode")),
        ("PushEvents", lambda: next(backend.push_all([push(1, duel_id=1)]))),
        ("WatchDuels", lambda: next(backend.stub.WatchDuels(pb.WatchDuelsRequest(), **more))),
        ("health Check", lambda: health.Check(check, **more)),
        ("health Watch", lambda: next(health.Watch(check, **more))),
        *((name, lambda name=name: ask(backend, name, {"list_services": "*"})) for name in REFLECTIONS),
    ]
