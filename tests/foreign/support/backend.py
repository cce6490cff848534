"""A backend: the generated client on one channel, and what it makes of a failure."""

from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from google.protobuf.json_format import MessageToDict

from .hub import DEADLINE_S
from .stubs import errors, pb, rpc

SERVICE = pb.DESCRIPTOR.services_by_name["ControlService"]


def request_of(method, fields):
    return SERVICE.methods_by_name[method].input_type._concrete_class(**fields)


def shown(message):
    """A message as proto3's JSON: zeros are left out, 64-bit numbers are strings."""
    return MessageToDict(message, preserving_proto_field_name=True)


def bearer(token):
    return [("authorization", f"Bearer {token}")]


@dataclass(frozen=True)
class Failure:
    """A failed call, with what google.rpc's details say about it."""

    code: grpc.StatusCode
    message: str
    reason: str
    domain: str
    metadata: dict
    fields: list
    request_id: str

    @staticmethod
    def of(error):
        # A call that fails at once has nothing but trailers.
        received = dict([*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())])
        status = errors.Status.FromString(received.get("grpc-status-details-bin", b""))
        info, bad = _detail(status, errors.ErrorInfo), _detail(status, errors.BadRequest)
        fields = [violation.field for violation in bad.field_violations]
        return Failure(error.code(), error.details(), info.reason, info.domain, dict(info.metadata), fields,
                       received.get("x-request-id", ""))


def _detail(status, kind):
    """The first detail of its kind; an empty one if there is none."""
    found = kind()
    for detail in status.details:
        if detail.Unpack(found):
            break
    return found


# Keeps the windows of HTTP/2 at their 64 KiB: what a caller does not read backs up to the hub.
NARROW = [("grpc.http2.bdp_probe", 0)]


class Backend:
    """`with Backend(hub.control) as backend: backend.call("GetDuel", duel_id=1)`"""

    def __init__(self, address, metadata=(), options=()):
        self.metadata = list(metadata)
        self.channel = grpc.insecure_channel(address, options=options)
        self.stub = rpc.ControlServiceStub(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def call(self, method, **fields):
        return self.answer(method, fields)[0]

    def answer(self, method, fields, metadata=()):
        """The answer to a unary call, and the metadata that came with it."""
        unary = getattr(self.stub, method)
        answer, call = unary.with_call(request_of(method, fields), timeout=DEADLINE_S,
                                       metadata=[*self.metadata, *metadata])
        return answer, dict([*call.initial_metadata(), *call.trailing_metadata()])

    def refused(self, method, fields, metadata=()):
        """How a call fails that has to."""
        return failure_of(lambda: self._finish(method, fields, metadata))

    def push_all(self, pushes):
        """Sends all of them at once; the answers as they come."""
        return self.stub.PushEvents(iter(pushes), timeout=3 * DEADLINE_S, metadata=self.metadata)

    @contextmanager
    def watch(self, *duel_ids):
        call = self.stub.WatchDuels(pb.WatchDuelsRequest(duel_ids=duel_ids), timeout=3 * DEADLINE_S,
                                    metadata=self.metadata)
        try:
            yield call
        finally:
            call.cancel()

    def _finish(self, method, fields, metadata):
        if method == "WatchDuels":
            call = self.stub.WatchDuels(request_of(method, fields), timeout=DEADLINE_S, metadata=self.metadata)
            return next(call)
        return self.answer(method, fields, metadata)


def failure_of(attempt):
    try:
        answer = attempt()
    except grpc.RpcError as error:
        return Failure.of(error)
    raise AssertionError(f"it was answered: {answer}")
