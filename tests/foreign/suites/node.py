"""GetNode, health, and both versions of reflection."""

import time

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from support.backend import SERVICE, failure_of, shown
from support.cases import equal
from support.hub import DEADLINE_S
from support.scene import SERVING, served, up_to_status, watched_health
from support.stubs import pb

REFLECTIONS = ["grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection"]
SERVICES = sorted([SERVICE.full_name, "grpc.health.v1.Health", *REFLECTIONS])


def node_health_and_reflection(case):
    with served() as (_, backend):
        _node(case, backend)
        health = health_pb2_grpc.HealthStub(backend.channel)
        for service in ("", SERVICE.full_name):
            request = health_pb2.HealthCheckRequest(service=service)
            with case(f"health Watch of {service!r}"), watched_health(backend, service) as statuses:
                up_to_status(statuses, SERVING)
            with case(f"health Check of {service!r}"):
                equal(health.Check(request, timeout=DEADLINE_S).status, SERVING, "status")
        with case("health Check of a service that there is not"):
            request = health_pb2.HealthCheckRequest(service="no.such.Service")
            failure = failure_of(lambda: health.Check(request, timeout=DEADLINE_S))
            equal(failure.code, StatusCode.NOT_FOUND, "code")
        for reflection in REFLECTIONS:
            _reflection(case, backend, reflection)
        _library(case, backend)


def _node(case, backend):
    with case("GetNode"):
        node = backend.call("GetNode")
        limits = {limit.name: limit.value for limit in node.limits}
        equal((node.engine, node.ready), ("embedded", True), "engine and readiness")
        equal((limits["CONTROL_MAX_WATCHERS"], limits["ENGINE_MAX_LOG_EVENTS"]), (64, 1000), "limits")
        running_s = time.time() - node.started_at.ToMilliseconds() / 1000
        equal(abs(running_s - node.uptime.ToMilliseconds() / 1000) < 1, True, "uptime is the time since started_at")
    with case("GetNode counts nothing while there is nothing"):
        equal(shown(node.counts), {}, "counts")


def ask(backend, reflection, *questions):
    """Versions 1 and 1alpha have the same messages under two names."""
    call = backend.channel.stream_stream(
        f"/{reflection}/ServerReflectionInfo", reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString)
    requests = (reflection_pb2.ServerReflectionRequest(**question) for question in questions)
    return list(call(requests, metadata=backend.metadata, timeout=DEADLINE_S))


def _reflection(case, backend, reflection):
    with case(f"{reflection} lists the services"):
        [answer] = ask(backend, reflection, {"list_services": "*"})
        equal(sorted(service.name for service in answer.list_services_response.service), SERVICES, "services")
    symbols = ["duelhub.v1.ControlService", "duelhub.v1.ControlService.PushEvent", "duelhub.v1.View"]
    wanted = [{"file_containing_symbol": symbol} for symbol in symbols]
    wanted += [{"file_by_filename": "duelhub/v1/control.proto"}]
    with case(f"{reflection} shows the proto, asked four times on one stream"):
        for answer in ask(backend, reflection, *wanted):
            files = map(FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
            [control] = [file for file in files if file.name == "duelhub/v1/control.proto"]
            equal(_bare(control) == _own_descriptor(), True, "the same as the repository's")


def _own_descriptor():
    own = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(own)
    return _bare(own)


def _bare(file):
    """Without the comments, and without the JSON names, which not every compiler writes down."""
    file.ClearField("source_code_info")
    for message in file.message_type:
        for field in message.field:
            field.ClearField("json_name")
    return file


def _library(case, backend):
    with case("grpcio's own reflection client finds its way"):
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(backend.channel))
        service = pool.FindServiceByName(SERVICE.full_name)
        equal([method.name for method in service.methods], [method.name for method in SERVICE.methods], "calls")
